//! What packets cost now, as a ratio to what they cost in another revision of the project. Each program measures in
//! turns with a calibrator; the two run in turn with each other, since ratios to the calibrator drift too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use proxy_tests::comparison::Estimate;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::measured_by;

/// Each is the other revision, this one twice, and the other again.
const ROUNDS: usize = 7;

#[derive(Deserialize)]
struct Report {
    costs: Vec<Cost>,
}

/// What every revision's program has printed since there was one.
#[derive(Deserialize)]
struct Cost {
    program: String,
    packet: String,
    services: u32,
    nanoseconds: f64,
    to_calibrator: f64,
}

/// Program, packet, number of services.
type Case = (String, String, u32);

#[derive(Default)]
struct Series {
    nanoseconds: Vec<f64>,
    before: Vec<f64>,
    /// To the other revision's of the same round.
    ratios: Vec<f64>,
    /// The second run of this revision to its first.
    control: Vec<f64>,
}

/// Ratios of all cases that both programs measure, and what only one of them does.
///
/// # Errors
/// A program fails.
pub fn run(now: &Path, before: &Path) -> Result<Value> {
    let mut cases: BTreeMap<Case, Series> = BTreeMap::new();
    for round in 1..=ROUNDS {
        eprintln!("  round {round} of {ROUNDS}");
        let (before, now, again, late) = (costs(before)?, costs(now)?, costs(now)?, costs(before)?);
        for (case, [to_calibrator, nanoseconds]) in now {
            let series = cases.entry(case.clone()).or_default();
            series.nanoseconds.push(nanoseconds);
            series.control.extend(again.get(&case).map(|again| again[0] / to_calibrator));
            let all = [before.get(&case), again.get(&case), late.get(&case)];
            if let [Some(before), Some(again), Some(late)] = all {
                series.ratios.push((to_calibrator + again[0]) / (before[0] + late[0]));
                series.before.push(before[1]);
            }
        }
    }
    Ok(cases.into_iter().map(|(case, series)| row(case, &series)).collect())
}

fn row((program, packet, services): Case, series: &Series) -> Value {
    let shown = |samples: &[f64]| {
        let Some(Estimate { median, low, high }) = Estimate::of(samples) else { return "-".to_owned() };
        format!("{median:.3} ({low:.3} to {high:.3})")
    };
    let median =
        |samples: &[f64]| Estimate::of(samples).map_or_else(|| "-".to_owned(), |it| format!("{:.0}", it.median));
    json!({
        "program": program,
        "packet": packet,
        "services": services,
        "before ns": median(&series.before),
        "now ns": median(&series.nanoseconds),
        "now / before": shown(&series.ratios),
        "now / now": shown(&series.control),
    })
}

/// The ratio to the calibrator and nanoseconds of each case.
fn costs(program: &Path) -> Result<BTreeMap<Case, [f64; 2]>> {
    let report: Report = serde_json::from_value(measured_by(program)?)
        .with_context(|| format!("what {} printed is no report of packets", program.display()))?;
    let costs = report.costs.into_iter();
    Ok(costs.map(|it| ((it.program, it.packet, it.services), [it.to_calibrator, it.nanoseconds])).collect())
}
