use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// All zeros if there are none.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |share: f64| {
            let rank = (share * durations.len() as f64).ceil() as usize;
            durations.get(rank.saturating_sub(1)).map_or(0.0, |duration| duration.as_secs_f64() * 1e6)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let of = |count: u64| Percentiles::of((1..=count).rev().map(Duration::from_micros).collect());
        assert_eq!(of(0), Percentiles::default());
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        let (one, hundred) = (of(1), of(100));
        assert!(near(one.p50, 1.0) && near(one.max, 1.0), "{one:?}");
        assert!(near(hundred.p50, 50.0) && near(hundred.p99, 99.0) && near(hundred.max, 100.0), "{hundred:?}");
    }
}
