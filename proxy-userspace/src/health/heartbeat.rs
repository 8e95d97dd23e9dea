use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the main loop may stand still. Its longest turn is a full sync, well under a second for 10,000 services
/// (docs/performance.md); a node with many more processes than processors takes many times as long.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it may take until there is a main loop. Programs were seen to be attached after 18 s on two processors that
/// ninety processes wanted; where processors are emulated, the verifier takes longer still.
const LIMIT_OF_START: Duration = Duration::from_secs(300);

/// When the main loop moved last.
pub(super) struct Heartbeat {
    start: Instant,
    /// Milliseconds from `start` to the last beat; 0: there was none.
    last: AtomicU64,
}

impl Heartbeat {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(super) fn beat(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.last.store(now.max(1), Ordering::Relaxed);
    }

    /// # Errors
    /// What has stood still, and for how long.
    pub(super) fn check(&self) -> Result<(), String> {
        let last = self.last.load(Ordering::Relaxed);
        judge(self.start.elapsed(), (last > 0).then_some(Duration::from_millis(last)))
    }
}

/// Both times since the start of the process.
fn judge(now: Duration, last: Option<Duration>) -> Result<(), String> {
    let still = now.saturating_sub(last.unwrap_or_default());
    match last {
        None if still > LIMIT_OF_START => {
            Err(format!("maps and programs are being loaded for {} s now", still.as_secs()))
        }
        Some(_) if still > LIMIT => Err(format!("the main loop has stood still for {} s", still.as_secs())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_may_take_longer_than_a_turn_of_the_loop() {
        let judge = |now, last: Option<u64>| judge(Duration::from_secs(now), last.map(Duration::from_secs));
        assert_eq!(judge(0, None), Ok(()));
        assert_eq!(judge(300, None), Ok(()));
        assert_eq!(judge(301, None), Err("maps and programs are being loaded for 301 s now".into()));
        assert_eq!(judge(1000, Some(940)), Ok(()));
        assert_eq!(judge(1000, Some(939)), Err("the main loop has stood still for 61 s".into()));
    }

    #[test]
    fn a_beat_at_once_counts() {
        let heartbeat = Heartbeat::start();
        heartbeat.beat();
        assert!(heartbeat.last.load(Ordering::Relaxed) > 0);
        assert_eq!(heartbeat.check(), Ok(()));
    }
}
