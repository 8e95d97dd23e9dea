//! How the agent fares, for those outside: whether it is ready, and whether it is alive.
//!
//! The main loop publishes a [`Status`] and shows that it moves; a thread of its own, which neither a full sync nor the
//! loading of programs can block, answers probes with what was published last. The same thread sees to it that the
//! process ends in good time when it is told to.

mod heartbeat;
mod server;
mod status;
mod termination;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use heartbeat::Heartbeat;
use server::Probes;
pub use status::{Awaited, Status};

/// The side of the main loop.
pub struct Reporter {
    status: watch::Sender<Status>,
    heartbeat: Arc<Heartbeat>,
    interval: Interval,
}

/// How often the main loop shows that it moves even if nothing happens.
const INTERVAL: Duration = Duration::from_secs(10);

/// Starts the thread, which answers at `address`, if there is one.
///
/// # Errors
/// The thread cannot be started. An address that cannot be used is named in the log and tried again.
pub fn start(address: Option<SocketAddr>) -> io::Result<Reporter> {
    let (status, published) = watch::channel(Status::default());
    let heartbeat = Arc::new(Heartbeat::start());
    let probes = Probes { status: published, heartbeat: Arc::clone(&heartbeat) };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("health".into()).spawn(move || {
        if let Some(address) = address {
            runtime.spawn(server::run(address, probes));
        }
        runtime.block_on(termination::enforce());
    })?;
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Reporter { status, heartbeat, interval })
}

impl Reporter {
    /// Tells how it is now, and that the main loop moves.
    pub fn publish(&self, status: Status) {
        self.heartbeat.beat();
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            if changed {
                // The log says the same as the probes.
                if status.is_ready() {
                    tracing::info!("ready");
                } else {
                    tracing::info!("not ready: {status}");
                }
                *now = status;
            }
            changed
        });
    }

    /// Returns when it is time to publish even if nothing has happened. Safe to drop and call again.
    pub async fn due(&mut self) {
        self.interval.tick().await;
    }
}
