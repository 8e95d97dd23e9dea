//! How long tests wait.
//!
//! A wait ends as soon as what it waits for is there: its limit costs time only where a test fails, and is minutes, since
//! other programs may leave a test no more than a tenth of the machine. Nothing is called lost because it is late:
//! traffic tools judge by what arrived after it. Only silence takes as long as it is allowed to, and is allowed little.
//!
//! Where the processor is emulated, everything takes longer still: by as many times as `SHEAVE_TEST_PATIENCE` says.

use std::sync::LazyLock;
use std::time::Duration;

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let set = std::env::var("SHEAVE_TEST_PATIENCE").ok();
    set.and_then(|factor| factor.parse().ok()).filter(|&factor| factor > 0).unwrap_or(1)
});

/// The least after which a wait is called a failure.
const LIMIT: Duration = Duration::from_secs(120);

/// How long to wait for what takes less than `limit` on a machine that has nothing else to do.
pub fn patience(limit: Duration) -> Duration {
    LIMIT.max(limit * *FACTOR)
}

/// The same in milliseconds.
pub fn patience_ms(limit: u64) -> u64 {
    patience(Duration::from_millis(limit)).as_millis() as u64
}

/// How long nothing has to come, in milliseconds, before a test says that nobody answers.
pub fn silence_ms() -> u64 {
    700 * u64::from(*FACTOR)
}
