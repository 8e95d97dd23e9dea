//! Time limits of tests are made for machines of today. Where the processor is emulated, everything takes longer, and
//! `SHEAVE_TEST_PATIENCE` says how many times longer a test may wait before it calls it a failure.

use std::sync::LazyLock;
use std::time::Duration;

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let set = std::env::var("SHEAVE_TEST_PATIENCE").ok();
    set.and_then(|factor| factor.parse().ok()).filter(|&factor| factor > 0).unwrap_or(1)
});

/// How long to wait for what takes less than `limit` on an ordinary machine.
pub fn patience(limit: Duration) -> Duration {
    limit * *FACTOR
}

/// The same in milliseconds.
pub fn patience_ms(limit: u64) -> u64 {
    limit * u64::from(*FACTOR)
}
