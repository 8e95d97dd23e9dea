use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Processor time of the whole machine, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessorTime {
    total: u64,
    stolen: u64,
}

impl ProcessorTime {
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line `cpu`")
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
        // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user's.
        Some(Self { total: fields.iter().take(8).sum(), stolen: *fields.get(7)? })
    }

    /// Share of the time since `earlier` that the hypervisor gave to others.
    pub fn stolen_since(&self, earlier: &Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / total as f64
    }
}

/// Binds this process, and all that it will start, to the last processor that it may use: client and server then take
/// turns on one, and a rate is one over the cost of both. Across processors it would be the cost of waking each other.
pub fn stay_on_one_processor() -> Result<()> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).context("ask for the processors")?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).context("no processor")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(own, &one).context("stay on one processor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_field() {
        let earlier = ProcessorTime::parse("cpu  10 0 10 80 0 0 0 0 7 7\ncpu0 1").unwrap();
        let later = ProcessorTime::parse("cpu  60 0 20 110 0 0 0 10 7 7\ncpu0 1").unwrap();
        assert!((later.stolen_since(&earlier) - 0.1).abs() < 1e-9);
        assert!(ProcessorTime::parse("intr 1").is_none());
    }
}
