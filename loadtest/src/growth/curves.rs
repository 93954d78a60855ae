//! core: the points of a growth measurement as curves to be drawn, and as a table.

use super::Point;
use super::axis::Axis;
use crate::plot::{Line, Panel};
use std::fmt::{self, Write};

/// A figure of one point.
type Figure = fn(&Point) -> Option<f64>;

const CPU_US: Figure = |point| point.sample.cpu_us;
const P50_MS: Figure = |point| answered(point).map(|p| p.sample.summary.p50_us as f64 / 1e3);
const P99_MS: Figure = |point| answered(point).map(|p| p.sample.summary.p99_us as f64 / 1e3);
const FIRST_BYTE_MS: Figure = |point| answered(point).map(|p| p.sample.summary.first_byte_p50_us as f64 / 1e3);
const PEAK_MIB: Figure = |point| (point.sample.peak_kib > 0).then_some(point.sample.peak_kib as f64 / 1024.0);
const IDLE_PERCENT: Figure = |point| (!point.sample.processes.is_empty()).then_some(point.idle_cpu * 100.0);

fn answered(point: &Point) -> Option<&Point> {
    (point.sample.summary.answered > 0).then_some(point)
}

/// What is drawn of an axis.
pub fn panels(points: &[Point], axis: Axis) -> Vec<Panel> {
    let panel =
        |title: &str, figures: &[(&str, Figure)], log_y| Panel { title: title.to_owned(), lines: lines(points, axis, figures), log_y };
    // A stream's own time says little: it is the backend's. Its first byte is the gateway's.
    let latency = match axis {
        Axis::Streams => panel("time to the first byte, ms", &[("p50", FIRST_BYTE_MS)], true),
        Axis::Callers | Axis::Rate | Axis::Tenants | Axis::Models => panel("latency, ms", &[("p50", P50_MS), ("p99", P99_MS)], true),
    };
    let mut panels =
        vec![latency, panel("CPU per request, µs", &[("", CPU_US)], false), panel("peak resident memory, MiB", &[("", PEAK_MIB)], false)];
    if matches!(axis, Axis::Tenants | Axis::Models) {
        panels.push(panel("idle CPU, % of a core", &[("", IDLE_PERCENT)], false));
    }
    panels
}

fn lines(points: &[Point], axis: Axis, figures: &[(&str, Figure)]) -> Vec<Line> {
    let points: Vec<&Point> = points.iter().filter(|point| point.axis == axis).collect();
    let mut names: Vec<&str> = Vec::new();
    for point in &points {
        if !names.contains(&point.sample.contender) {
            names.push(point.sample.contender);
        }
    }
    let line = |color: usize, name: &str, what: &str, figure: Figure| Line {
        label: format!("{name} {what}").trim_end().to_owned(),
        color,
        is_faint: what == "p99",
        points: points.iter().filter(|p| p.sample.contender == name).filter_map(|p| Some((p.at as f64, figure(p)?))).collect(),
    };
    names
        .iter()
        .enumerate()
        .flat_map(|(color, name)| figures.iter().map(move |(what, figure)| (color, *name, *what, *figure)))
        .map(|(color, name, what, figure)| line(color, name, what, figure))
        .collect()
}

/// All points as Markdown.
pub fn table(points: &[Point]) -> String {
    let mut text = String::from(
        "| axis | at | | req/s | p50 / p99 ms | first byte p50 ms | CPU µs/req | peak MiB | idle CPU % | failed |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for point in points {
        let _ = writeln!(text, "{}", Row(point));
    }
    text
}

struct Row<'a>(&'a Point);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.0;
        let Point { axis, at, sample, .. } = point;
        let figure = |figure: Figure| figure(point).map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        write!(f, "| {axis} | {at} | {} | {:.0} | {} / {} |", sample.contender, sample.summary.per_second, figure(P50_MS), figure(P99_MS))?;
        write!(
            f,
            " {} | {} | {} | {} | {} |",
            figure(FIRST_BYTE_MS),
            figure(CPU_US),
            figure(PEAK_MIB),
            figure(IDLE_PERCENT),
            sample.summary.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::figures::tests::sample;

    fn points() -> Vec<Point> {
        let point = |at, contender, us| Point { axis: Axis::Models, at, sample: sample("s", contender, 0, us, Some(7.0)), idle_cpu: 0.01 };
        vec![point(1, "a", 1_000), point(1, "b", 1_500), point(10, "a", 2_000)]
    }

    #[test]
    fn each_contender_has_its_curve() {
        let panels = panels(&points(), Axis::Models);
        let latency = &panels[0].lines;
        let labels: Vec<(&str, usize)> = latency.iter().map(|line| (line.label.as_str(), line.color)).collect();
        assert_eq!(labels, [("a p50", 0), ("a p99", 0), ("b p50", 1), ("b p99", 1)]);
        assert_eq!(latency[0].points, [(1.0, 1.0), (10.0, 2.0)]);
        assert_eq!(panels.len(), 4, "idle CPU is drawn where processes idle at many of something");
    }

    #[test]
    fn each_point_is_a_row() {
        let table = table(&points());
        assert_eq!(table.lines().count(), 2 + 3);
        assert!(table.contains("| models | 10 | a | 1 | 2.00 / 2.00 | 2.00 | 7.00 |"), "{table}");
    }
}
