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
    /// Service over direct.
    pub ratio: Estimate,
    /// A second direct path over the first, in the same rounds: what noise alone makes of 1.
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

/// Measures round by round: each visits every path once, in random order.
pub fn compare(
    stand: &Stand,
    metric: Metric,
    placement: Placement,
    services: usize,
    effort: Effort,
) -> Result<Comparison> {
    let mut random = fastrand::Rng::new();
    let (mut ratios, mut controls, mut directs) = (Vec::new(), Vec::new(), Vec::new());
    let mut disturbed = 0;
    for _ in 0..effort.rounds {
        let before = ProcessorTime::now()?;
        let mut order = Path::ALL;
        random.shuffle(&mut order);
        let (mut direct, mut control, mut service) = (0.0, 0.0, 0.0);
        for path in order {
            let value = stand.measure(metric, placement, path, effort.window)?;
            match path {
                Path::Direct => direct = value,
                Path::Control => control = value,
                Path::Service => service = value,
            }
        }
        if ProcessorTime::now()?.stolen_since(&before) > STOLEN {
            disturbed += 1;
            continue;
        }
        ratios.push(service / direct);
        controls.push(control / direct);
        directs.push(direct);
    }
    let none = || format!("all of {} rounds were disturbed", effort.rounds);
    let (ratio, control) = (Estimate::of(&ratios).with_context(none)?, Estimate::of(&controls).with_context(none)?);
    Ok(Comparison {
        metric,
        placement,
        services,
        direct: Estimate::of(&directs).with_context(none)?.median,
        ratio,
        control,
        rounds: ratios.len(),
        disturbed,
        judgement: (metric == Metric::Stream).then(|| judge(&ratio, &control, STREAM_BAR)),
    })
}
