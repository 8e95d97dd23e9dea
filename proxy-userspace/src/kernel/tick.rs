//! Time as the programs count it: ticks of 2^[`Config::TICK_SHIFT`] jiffies. How long a jiffy is was decided when the
//! kernel was built.

use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};
use proxy_common::wire::Config;

use super::KernelError;

/// The length of a tick on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    jiffy: Duration,
}

impl Tick {
    /// Asks the kernel: its coarse clocks advance once a jiffy and say so (`KTIME_LOW_RES`, include/linux/hrtimer.h).
    ///
    /// # Errors
    /// [`KernelError::Clock`] where the clock cannot be read.
    pub fn detect() -> Result<Self, KernelError> {
        let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(|cause| KernelError::Clock(cause.into()))?;
        let jiffy = Duration::from(jiffy);
        // 100 Hz to 1,000 Hz are what a kernel can be built with.
        if !(Duration::from_micros(500)..=Duration::from_millis(20)).contains(&jiffy) {
            return Err(KernelError::Clock(std::io::Error::other(format!("a jiffy cannot take {jiffy:?}"))));
        }
        Ok(Self { jiffy })
    }

    pub fn length(self) -> Duration {
        self.jiffy * (1 << Config::TICK_SHIFT)
    }

    /// The number of ticks that last at least as long as `time`, at least 1.
    pub fn ticks(self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(self.length().as_nanos()).max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// The current tick, to within one tick or two.
    ///
    /// The jiffies start five minutes before they overflow 32 bits (`INITIAL_JIFFIES`, include/linux/jiffies.h) and go
    /// on from there with the monotonic clock.
    pub fn now(self) -> Result<u32, KernelError> {
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|cause| KernelError::Clock(cause.into()))?;
        let jiffies = |time: Duration| (time.as_nanos() / self.jiffy.as_nanos()) as u64;
        let start = u64::from((jiffies(Duration::from_secs(300)) as u32).wrapping_neg());
        Ok((start.wrapping_add(jiffies(uptime.into())) >> Config::TICK_SHIFT) as u32)
    }

    /// How long ago `then` was at `now`; nothing where `then` is later, which the coarseness of the clock allows.
    pub fn since(self, then: u32, now: u32) -> Duration {
        let ticks = now.wrapping_sub(then);
        if ticks > u32::MAX / 2 { Duration::ZERO } else { self.length() * ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_250_HZ: Tick = Tick { jiffy: Duration::from_millis(4) };

    #[test]
    fn a_time_lasts_at_least_one_tick() {
        assert_eq!(AT_250_HZ.length(), Duration::from_millis(1024));
        assert_eq!(AT_250_HZ.ticks(Duration::ZERO), 1);
        assert_eq!(AT_250_HZ.ticks(Duration::from_millis(1024)), 1);
        assert_eq!(AT_250_HZ.ticks(Duration::from_millis(1025)), 2);
        assert_eq!(AT_250_HZ.ticks(Duration::MAX), u32::MAX);
    }

    #[test]
    fn ages_survive_the_overflow_of_ticks() {
        assert_eq!(AT_250_HZ.since(u32::MAX, 1), AT_250_HZ.length() * 2);
        assert_eq!(AT_250_HZ.since(7, 6), Duration::ZERO);
    }

    #[test]
    fn this_kernel_has_a_tick() {
        let tick = Tick::detect().unwrap();
        assert!(tick.length() >= Duration::from_millis(128), "{tick:?}");
    }
}
