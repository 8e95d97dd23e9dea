use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::cell::{Cell, Way};
use crate::comparison::{Estimate, Estimates, Judgement, Samples, judge};
use crate::kind::cluster::Proxy;

/// The least that a way is to reach of the direct one, to be said not to be slower.
const BAR: f64 = 0.95;
/// With fewer rounds the interval of a median is wider than all samples (order statistics: 1 - 2 / 2^6 = 97 %).
const FEWEST: usize = 6;

/// What one cell came to by one way, with both proxies.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    #[serde(flatten)]
    pub cell: Cell,
    pub way: Way,
    pub proxies: BTreeMap<Proxy, Measured>,
    pub difference: Difference,
}

#[derive(Clone, Serialize)]
pub struct Measured {
    /// Median of the direct path, in bits or connections a second.
    pub direct: f64,
    /// Over the mean of two visits of the direct path.
    pub ratio: Estimate,
    /// One of those visits over the other: what noise alone makes of 1.
    pub control: Estimate,
    pub rounds: usize,
    /// Rounds that were left out, since the hypervisor took processor time away.
    pub disturbed: usize,
    /// Whether it reaches 0.95 of the direct path.
    pub judgement: Judgement,
}

/// What the two proxies' ratios say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    SheaveFaster,
    KubeProxyFaster,
    /// The intervals overlap, or the machine is too noisy to say.
    Inconclusive,
}

/// Those of which each proxy has at least a round.
pub fn rows(cells: &[Cell], measured: &BTreeMap<Proxy, Vec<Samples>>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        for (number, way) in Way::COMPARED.into_iter().enumerate() {
            let of = |(proxy, samples): (&Proxy, &Vec<Samples>)| {
                let samples = samples.get(at)?;
                Some((*proxy, of_way(&samples.estimates().ok()?, number, samples)?))
            };
            let proxies: BTreeMap<Proxy, Measured> = measured.iter().filter_map(of).collect();
            if let (Some(sheave), Some(other)) = (proxies.get(&Proxy::Sheave), proxies.get(&Proxy::KubeProxy)) {
                let difference = compare(sheave, other);
                rows.push(Row { name: format!("{cell}"), cell: *cell, way, proxies, difference });
            }
        }
    }
    rows
}

fn of_way(estimates: &Estimates, number: usize, samples: &Samples) -> Option<Measured> {
    let (ratio, control) = (*estimates.ratios.get(number)?, estimates.control);
    let judgement = match samples.rounds() < FEWEST {
        true => Judgement::Inconclusive,
        false => judge(&ratio, &control, BAR),
    };
    let direct = estimates.direct.median;
    Some(Measured { direct, ratio, control, rounds: samples.rounds(), disturbed: samples.disturbed(), judgement })
}

/// By intervals that do not meet, of enough rounds.
fn compare(sheave: &Measured, other: &Measured) -> Difference {
    match () {
        () if sheave.rounds.min(other.rounds) < FEWEST => Difference::Inconclusive,
        () if sheave.ratio.low > other.ratio.high => Difference::SheaveFaster,
        () if sheave.ratio.high < other.ratio.low => Difference::KubeProxyFaster,
        () => Difference::Inconclusive,
    }
}

/// In Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "",
        "way",
        "direct",
        "Sheave",
        "kube-proxy",
        "control, Sheave",
        "control, kube-proxy",
        "difference",
    ]);
    for row in rows {
        let of = |proxy| row.proxies.get(&proxy);
        let shown = |estimate: &Estimate| format!("{:.2} [{:.2}, {:.2}]", estimate.median, estimate.low, estimate.high);
        let ratio = |proxy| of(proxy).map(|it| format!("{} {}", shown(&it.ratio), verdict(it.judgement)));
        let control = |proxy| of(proxy).map(|it| shown(&it.control));
        let direct = of(Proxy::Sheave).map(|it| row.cell.amount(it.direct));
        let difference = match row.difference {
            Difference::SheaveFaster => "Sheave is faster",
            Difference::KubeProxyFaster => "kube-proxy is faster",
            Difference::Inconclusive => "inconclusive",
        };
        let cells = [
            Some(row.name.clone()),
            Some(row.way.to_string()),
            direct,
            ratio(Proxy::Sheave),
            ratio(Proxy::KubeProxy),
            control(Proxy::Sheave),
            control(Proxy::KubeProxy),
            Some(difference.to_owned()),
        ];
        table.add_row(cells.map(Option::unwrap_or_default));
    }
    table.to_string()
}

/// Of a ratio against the bar.
fn verdict(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Pass => "≥ 0.95",
        Judgement::Fail => "< 0.95",
        Judgement::Inconclusive => "?",
    }
}

/// How many of the rows say what.
pub fn summary(rows: &[Row]) -> String {
    let with = |difference| rows.iter().filter(|row| row.difference == difference).count();
    let judged = |proxy, judgement| {
        let is_it = |row: &&Row| row.proxies.get(&proxy).is_some_and(|it| it.judgement == judgement);
        rows.iter().filter(is_it).count()
    };
    let of = |proxy: Proxy| {
        let [pass, fail, open] =
            [Judgement::Pass, Judgement::Fail, Judgement::Inconclusive].map(|judgement| judged(proxy, judgement));
        format!("{proxy}: {pass} reach 0.95 of the direct way, {fail} do not, {open} inconclusive.")
    };
    format!(
        "Of {} rows: {} {} Sheave over kube-proxy: faster in {}, slower in {}, inconclusive in {}.",
        rows.len(),
        of(Proxy::Sheave),
        of(Proxy::KubeProxy),
        with(Difference::SheaveFaster),
        with(Difference::KubeProxyFaster),
        with(Difference::Inconclusive)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(low: f64, high: f64, rounds: usize) -> Measured {
        let ratio = Estimate { median: (low + high) / 2.0, low, high };
        let control = Estimate { median: 1.0, low: 0.99, high: 1.01 };
        Measured { direct: 1.0, ratio, control, rounds, disturbed: 0, judgement: Judgement::Inconclusive }
    }

    #[test]
    fn only_intervals_that_do_not_meet_differ() {
        let slow = measured(0.8, 0.9, FEWEST);
        assert_eq!(compare(&measured(0.91, 0.95, FEWEST), &slow), Difference::SheaveFaster);
        assert_eq!(compare(&slow, &measured(0.91, 0.95, FEWEST)), Difference::KubeProxyFaster);
        assert_eq!(compare(&measured(0.89, 0.95, FEWEST), &slow), Difference::Inconclusive);
        assert_eq!(compare(&measured(0.91, 0.95, FEWEST - 1), &slow), Difference::Inconclusive);
    }
}
