use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// How long the main loop has for what it is at when a signal comes. A signal must not have to wait for the verifier, or
/// for a kubelet's SIGKILL: the first process of a container is not ended by a signal that nobody handles.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends the process if the main loop has not done so in time. Nothing is lost by it: what is in the kernel stays, and
/// the order of writes leaves the maps whole at any point, as they are when an agent is killed.
pub(super) async fn enforce() {
    let (mut terminated, mut interrupted) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminated), Ok(interrupted)) => (terminated, interrupted),
        (Err(cause), _) | (_, Err(cause)) => {
            tracing::warn!(%cause, "signals cannot be waited for: they end the agent only between two changes");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    tokio::time::sleep(PATIENCE).await;
    tracing::info!("stopping in the midst of work; the kernel goes on with what it has");
    std::process::exit(0);
}
