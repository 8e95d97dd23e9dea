use serde::Serialize;
use serde_json::Value;

use proxy_tests::comparison::{Comparison, Judgement, STREAM_BAR};

/// What the project holds itself to, and what was measured.
#[derive(Serialize)]
pub struct Bar {
    what: String,
    measured: Option<f64>,
    bar: f64,
    verdict: Judgement,
}

impl Bar {
    pub fn is_missed(&self) -> bool {
        self.verdict == Judgement::Fail
    }

    fn at_most(what: &str, measured: Option<f64>, bar: f64) -> Self {
        let verdict = match measured {
            Some(measured) if measured <= bar => Judgement::Pass,
            // A figure that is not there is a bar that nothing was held to.
            _ => Judgement::Fail,
        };
        Self { what: what.to_owned(), measured, bar, verdict }
    }
}

/// Every bar, beside what the three parts of the benchmark measured.
pub fn all(packets: &Value, control_plane: &Value, connections: &[Comparison]) -> Vec<Bar> {
    let number = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_f64);
    let control_plane = |pointer: &str| number(control_plane, pointer);
    let mut bars = vec![
        Bar::at_most("established packet through tc / minimal DNAT program", established(packets), 1.5),
        Bar::at_most("the same with 20,000 services / with one", number(packets, "/many_to_one"), 1.05),
        Bar::at_most("10,000 services into the maps, ms", control_plane("/kernel/full_sync_ms"), 1500.0),
        Bar::at_most("one endpoint changed, median µs", control_plane("/kernel/change_median_us"), 150.0),
    ];
    bars.extend(connections.iter().filter_map(|it| {
        Some(Bar {
            what: format!("stream through ClusterIP / direct, {:?}, {} services", it.placement, it.services),
            measured: Some(it.ratio.median),
            bar: STREAM_BAR,
            verdict: it.judgement?,
        })
    }));
    bars
}

fn established(packets: &Value) -> Option<f64> {
    let costs = packets.get("costs")?.as_array()?;
    let is_it = |cost: &&Value| {
        cost.get("program") == Some(&"tc".into())
            && cost.get("packet") == Some(&"established, IPv4".into())
            && cost.get("services") == Some(&1.into())
    };
    costs.iter().find(is_it)?.get("to_calibrator")?.as_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_figure_misses_its_bar() {
        let packets = json!({"many_to_one": 1.01, "costs": [
            {"program": "tc", "packet": "established, IPv4", "services": 1, "to_calibrator": 1.2},
        ]});
        let control_plane = json!({"kernel": {"full_sync_ms": 1600.0}});
        let missed: Vec<bool> = all(&packets, &control_plane, &[]).iter().map(Bar::is_missed).collect();
        assert_eq!(missed, [false, false, true, true]);
    }
}
