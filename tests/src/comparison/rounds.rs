use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::paths::{Metric, Path, Placement, Stand};
use super::ratio::{Estimate, Judgement, judge};
use super::samples::Samples;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: u32,
    pub window: Duration,
}

/// A metric through the service beside the same straight to the pod.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Comparison {
    pub metric: Metric,
    pub placement: Placement,
    /// Services that the agents carry while this is measured.
    pub services: usize,
    /// Median of the direct path, in the metric's unit.
    pub direct: f64,
    /// Service over the mean of the two direct paths.
    pub ratio: Estimate,
    /// One direct path over the other, in the same rounds: what noise alone makes of 1.
    pub control: Estimate,
    pub rounds: usize,
    /// Rounds that were left out, since the hypervisor took processor time away.
    pub disturbed: usize,
    /// Only a stream has a bar.
    pub judgement: Option<Judgement>,
}

/// The least that a stream through a ClusterIP is to reach of the direct one.
pub const STREAM_BAR: f64 = 0.95;

/// Streams vary more than the rest, and have a bar: they get so many times the rounds ...
const STREAM_ROUNDS: u32 = 2;
/// ... and as many again, up to this often, where those leave it open.
const STREAM_TRIES: u32 = 3;

/// Measures round by round: each visits every path once, in random order.
pub fn compare(
    stand: &Stand,
    metric: Metric,
    placement: Placement,
    services: usize,
    effort: Effort,
) -> Result<Comparison> {
    let (rounds, tries) = match metric {
        Metric::Stream => (STREAM_ROUNDS * effort.rounds, STREAM_TRIES),
        Metric::Requests | Metric::Connections => (effort.rounds, 1),
    };
    let mut samples = Samples::of(1);
    let mut tried = 0;
    loop {
        tried += 1;
        for _ in 0..rounds {
            samples.add(|turn| stand.measure(metric, placement, Path::of(turn), effort.window))?;
        }
        let estimates = samples.estimates()?;
        let (control, ratio) = (estimates.control, *estimates.ratios.first().context("a ratio")?);
        let judgement = (metric == Metric::Stream).then(|| judge(&ratio, &control, STREAM_BAR));
        if judgement == Some(Judgement::Inconclusive) && tried < tries {
            continue;
        }
        let (rounds, disturbed) = (samples.rounds(), samples.disturbed());
        let direct = estimates.direct.median;
        return Ok(Comparison { metric, placement, services, direct, ratio, control, rounds, disturbed, judgement });
    }
}
