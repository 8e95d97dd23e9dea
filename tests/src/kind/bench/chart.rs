use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use super::cell::Way;
use super::report::Row;
use crate::kind::cluster::Proxy;

const WIDTH: u32 = 960;
/// Of a row, and of what is above and below all of them.
const ROW: u32 = 32;
const MARGIN: u32 = 190;
/// What is free for the legend above the first row, in rows.
const LEGEND: f64 = 2.5;
/// Of the direct path: what is beyond is drawn at the edge.
const RANGE: std::ops::Range<f64> = 0.5..1.5;
/// One way with one proxy, and how it is shown.
const SERIES: [(Proxy, Way, RGBColor); 4] = [
    (Proxy::Sheave, Way::ClusterIp, RGBColor(0, 90, 180)),
    (Proxy::Sheave, Way::NodePort, RGBColor(90, 170, 230)),
    (Proxy::KubeProxy, Way::ClusterIp, RGBColor(190, 80, 0)),
    (Proxy::KubeProxy, Way::NodePort, RGBColor(240, 165, 80)),
];

/// Medians and their intervals, as an SVG: a line of four marks for each cell.
///
/// # Errors
/// There are no rows, or the library fails.
pub fn draw(rows: &[Row]) -> Result<String> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.dedup();
    let count = names.len();
    if count == 0 {
        return Err(anyhow!("there is nothing to be drawn: all rounds were disturbed"));
    }
    let mut svg = String::new();
    {
        let height = ROW * count as u32 + MARGIN;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).context("chart")?;
        let mut chart = ChartBuilder::on(&root)
            .caption("A Service's address over the pod's own (median, 95 % interval)", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(230)
            .build_cartesian_2d(RANGE, -0.5..count as f64 + LEGEND - 0.5)
            .context("chart")?;
        // The first is on top. Between two of them there is no name.
        let name = |at: &f64| {
            let is_whole = (at - at.round()).abs() < 1e-6;
            names
                .iter()
                .rev()
                .nth(at.round() as usize)
                .filter(|_| is_whole)
                .map_or_else(String::new, |name| (*name).to_owned())
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(count + 3)
            .y_label_formatter(&name)
            .x_desc("ratio; more is faster")
            .draw()
            .context("chart")?;
        for (number, (proxy, way, color)) in SERIES.into_iter().enumerate() {
            let of_series = rows.iter().filter(|row| row.way == way).filter_map(|row| {
                let at = names.iter().position(|name| *name == row.name)?;
                let y = (count - 1 - at) as f64 + 0.5 - (number as f64 + 1.0) / (SERIES.len() as f64 + 1.0);
                let ratio = row.proxies.get(&proxy)?.ratio;
                let [low, median, high] =
                    [ratio.low, ratio.median, ratio.high].map(|it| it.clamp(RANGE.start, RANGE.end));
                Some((y, low, median, high))
            });
            let marks: Vec<_> = of_series.collect();
            let intervals = marks
                .iter()
                .map(|&(y, low, _, high)| PathElement::new(vec![(low, y), (high, y)], color.stroke_width(2)));
            chart.draw_series(intervals).context("chart")?;
            let medians = marks.iter().map(|&(y, _, median, _)| Circle::new((median, y), 3, color.filled()));
            let series = chart.draw_series(medians).context("chart")?;
            let legend = move |(x, y)| Circle::new((x + 8, y), 4, color.filled());
            series.label(format!("{proxy}, {way}")).legend(legend);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()
            .context("chart")?;
        root.present().context("chart")?;
    }
    Ok(svg)
}
