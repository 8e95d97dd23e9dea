use serde_json::Value;

use super::paths::{Metric, Placement};
use super::rounds::Comparison;

/// A line for each comparison, under a heading.
pub fn comparisons(all: &[Comparison]) -> String {
    let heading = ["metric", "placement", "services", "direct", "ClusterIP / direct", "control", "rounds", "verdict"];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(all.iter().map(|it| {
        [
            metric(it.metric).to_owned(),
            match it.placement {
                Placement::SameNode => "same node",
                Placement::AcrossNodes => "across nodes",
            }
            .to_owned(),
            it.services.to_string(),
            match it.metric {
                Metric::Stream => format!("{:.2} Gbit/s", it.direct / 1e9),
                Metric::Requests | Metric::Connections => format!("{:.0} /s", it.direct),
            },
            format!("{:.3} [{:.3}, {:.3}]", it.ratio.median, it.ratio.low, it.ratio.high),
            format!("{:.3} [{:.3}, {:.3}]", it.control.median, it.control.low, it.control.high),
            format!("{} (-{})", it.rounds, it.disturbed),
            it.judgement.map_or_else(|| "-".to_owned(), |judgement| format!("{judgement:?}").to_uppercase()),
        ]
    }));
    table(&rows)
}

fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::Stream => "TCP stream",
        Metric::Requests => "requests on a connection",
        Metric::Connections => "connections",
    }
}

/// Every leaf of a JSON value as a line: its path and what it is.
pub fn figures(value: &Value) -> String {
    let mut rows = Vec::new();
    collect(value, "", &mut rows);
    table(&rows)
}

fn collect(value: &Value, path: &str, rows: &mut Vec<[String; 2]>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| collect(value, &below(key), rows)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| collect(value, &below(&at.to_string()), rows));
        }
        Value::Number(number) if number.is_f64() => {
            rows.push([path.to_owned(), format!("{:.2}", number.as_f64().unwrap_or_default())]);
        }
        Value::String(text) => rows.push([path.to_owned(), text.clone()]),
        other => rows.push([path.to_owned(), other.to_string()]),
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_by_their_path() {
        let value = serde_json::json!({"tcp": {"v4": 101.5}, "counts": [1, "two"]});
        assert_eq!(figures(&value), "counts.0  1\ncounts.1  two\ntcp.v4    101.50\n");
    }
}
