//! Work that must not keep other work waiting has a thread of its own, with a runtime of its own.

use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Runs `work` on a new thread, which begins in the network namespace of this one. What it comes to is sent; nothing if
/// it panics. When nobody waits for that any more, `work` is dropped where it waits next.
///
/// # Errors
/// The kernel gives no thread, or no descriptors for its runtime.
pub fn spawn<F>(name: &str, work: F) -> io::Result<oneshot::Receiver<F::Output>>
where
    F: Future<Output: Send> + Send + 'static,
{
    let (mut done, receiver) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let output = runtime.block_on(async {
            tokio::select! {
                output = work => Some(output),
                () = done.closed() => None,
            }
        });
        if let Some(output) = output {
            // Whoever waited may have stopped a moment ago.
            let _ = done.send(output);
        }
        // A task that is stuck in a system call must not keep the thread.
        runtime.shutdown_background();
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_its_starter_waits() {
        let (sender, receiver) = oneshot::channel();
        let work = spawn("working", async move {
            // Blocks: only another thread can send.
            std::thread::sleep(Duration::from_millis(20));
            receiver.await.unwrap()
        });
        let work = work.unwrap();
        sender.send(7).unwrap();
        assert_eq!(work.await, Ok(7));
        assert!(spawn("panicking", async { panic!("as the test wants") }).unwrap().await.is_err());
    }

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it() {
        let (sender, held) = oneshot::channel::<()>();
        let work = async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        };
        drop(spawn("waiting", work).unwrap());
        assert!(held.await.is_err());
    }
}
