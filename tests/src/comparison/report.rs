use serde_json::Value;

use super::paths::{Metric, Placement};
use super::rounds::Comparison;

/// A line for each comparison, under a heading.
pub fn comparisons(all: &[Comparison]) -> String {
    let heading = ["metric", "placement", "services", "direct", "ClusterIP / direct", "control", "rounds", "verdict"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|it| {
        vec![
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

/// A JSON value for people: each leaf as a line with its path, each list of alike objects as a table.
pub fn figures(value: &Value) -> String {
    let (mut leaves, mut tables) = (Vec::new(), String::new());
    collect(value, "", &mut leaves, &mut tables);
    format!("{}{tables}", table(&leaves))
}

fn collect(value: &Value, path: &str, leaves: &mut Vec<Vec<String>>, tables: &mut String) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| collect(value, &below(key), leaves, tables)),
        Value::Array(items) => match rows(items) {
            Some(rows) => *tables += &table(&rows),
            None => {
                items.iter().enumerate().for_each(|(at, item)| collect(item, &below(&at.to_string()), leaves, tables));
            }
        },
        leaf => leaves.push(vec![path.to_owned(), scalar(leaf)]),
    }
}

/// A heading and a row for each object, if they are objects with the same fields.
fn rows(items: &[Value]) -> Option<Vec<Vec<String>>> {
    let heading: Vec<String> = items.first()?.as_object()?.keys().cloned().collect();
    let mut rows = vec![heading.clone()];
    for item in items {
        rows.push(heading.iter().map(|key| item.get(key).map(scalar)).collect::<Option<_>>()?);
    }
    Some(rows)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_by_their_path() {
        let value = serde_json::json!({"tcp": {"v4": 101.5}, "counts": [1, "two"], "costs": [{"a": 1, "b": "x"}]});
        assert_eq!(figures(&value), "counts.0  1\ncounts.1  two\ntcp.v4    101.50\na  b\n1  x\n");
    }
}
