use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::machine::ProcessorTime;
use super::paths::{Metric, Path, Placement, Stand};
use super::ratio::{Estimate, Judgement, judge};

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
/// Rounds in which more was stolen are left out.
const STOLEN: f64 = 0.01;

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
    let mut samples = Samples::default();
    let mut tried = 0;
    loop {
        tried += 1;
        for _ in 0..rounds {
            samples.add(|path| stand.measure(metric, placement, path, effort.window))?;
        }
        let (direct, ratio, control) = samples.estimates()?;
        let judgement = (metric == Metric::Stream).then(|| judge(&ratio, &control, STREAM_BAR));
        if judgement == Some(Judgement::Inconclusive) && tried < tries {
            continue;
        }
        let (rounds, disturbed) = (samples.ratios.len(), samples.disturbed);
        let direct = direct.median;
        return Ok(Comparison { metric, placement, services, direct, ratio, control, rounds, disturbed, judgement });
    }
}

/// What the rounds so far came to.
#[derive(Default)]
struct Samples {
    directs: Vec<f64>,
    ratios: Vec<f64>,
    controls: Vec<f64>,
    disturbed: usize,
    random: fastrand::Rng,
}

impl Samples {
    fn add(&mut self, measure: impl Fn(Path) -> Result<f64>) -> Result<()> {
        let before = ProcessorTime::now()?;
        let mut order = Path::ALL;
        self.random.shuffle(&mut order);
        let (mut direct, mut control, mut service) = (0.0, 0.0, 0.0);
        for path in order {
            let value = measure(path)?;
            match path {
                Path::Direct => direct = value,
                Path::Control => control = value,
                Path::Service => service = value,
            }
        }
        if ProcessorTime::now()?.stolen_since(&before) > STOLEN {
            self.disturbed += 1;
            return Ok(());
        }
        // Which of two servers is the control is drawn, so that one that is always faster widens the control's interval
        // and does not shift it.
        if self.random.bool() {
            std::mem::swap(&mut direct, &mut control);
        }
        let mean = (direct + control) / 2.0;
        self.directs.push(mean);
        self.ratios.push(service / mean);
        self.controls.push(control / direct);
        Ok(())
    }

    /// The direct path, the service over it, and one direct path over the other.
    ///
    /// # Errors
    /// All rounds were disturbed.
    fn estimates(&self) -> Result<(Estimate, Estimate, Estimate)> {
        let of = |samples: &[f64]| {
            Estimate::of(samples).with_context(|| format!("all of {} rounds were disturbed", self.disturbed))
        };
        Ok((of(&self.directs)?, of(&self.ratios)?, of(&self.controls)?))
    }
}
