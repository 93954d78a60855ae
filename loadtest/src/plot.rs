//! edge: curves as an SVG file: panels side by side, over one logarithmic axis.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// One diagram of a figure.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
    pub log_y: bool,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Line {
    pub label: String,
    /// Which colour of the palette.
    pub color: usize,
    pub is_faint: bool,
    /// In the order of their x.
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, thiserror::Error)]
#[error("{file} cannot be drawn: {reason}")]
pub struct PlotError {
    file: String,
    reason: String,
}

const PANEL_WIDTH: u32 = 420;
const HEIGHT: u32 = 340;
const FONT: (&str, u32) = ("sans-serif", 13);
/// Told apart also by those who see few colours (Okabe and Ito).
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];

type Drawn<T> = Result<T, Box<dyn std::error::Error>>;

/// Draws the panels into a file.
pub fn draw(file: &Path, x_label: &str, panels: &[Panel]) -> Result<(), PlotError> {
    let failed = |error: Box<dyn std::error::Error>| PlotError { file: file.display().to_string(), reason: error.to_string() };
    draw_all(file, x_label, panels).map_err(failed)
}

fn draw_all(file: &Path, x_label: &str, panels: &[Panel]) -> Drawn<()> {
    let count = panels.len().max(1);
    let root = SVGBackend::new(file, (PANEL_WIDTH * u32::try_from(count)?, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((1, count)).iter().zip(panels) {
        let Some((x, y)) = ranges(panel) else { continue };
        if panel.log_y { draw_panel(area, panel, x_label, x, y.log_scale())? } else { draw_panel(area, panel, x_label, x, 0.0..y.end)? }
    }
    Ok(root.present()?)
}

fn draw_panel<Y>(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel, x_label: &str, x: Range<f64>, y: Y) -> Drawn<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.caption(&panel.title, ("sans-serif", 16)).margin(10).x_label_area_size(40).y_label_area_size(55);
    let mut chart = builder.build_cartesian_2d(x.log_scale(), y)?;
    let label = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x_label)
        .label_style(FONT)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()?;
    for line in &panel.lines {
        let color = PALETTE[line.color % PALETTE.len()].mix(if line.is_faint { 0.4 } else { 1.0 });
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).label_font(FONT).background_style(WHITE.mix(0.7)).draw()?;
    Ok(())
}

/// What the panel spans; `None` if there is nothing to draw.
fn ranges(panel: &Panel) -> Option<(Range<f64>, Range<f64>)> {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |ends: Option<(f64, f64)>, value| {
            Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        })
    };
    let (left, right) = ends(&mut points().map(|(x, _)| *x))?;
    let (low, high) = ends(&mut points().map(|(_, y)| *y))?;
    // A margin, and room for the legend above the curves.
    Some((left * 0.9..right.max(left * 1.1) * 1.1, low.max(1e-3) * 0.7..high.max(1e-2) * if panel.log_y { 6.0 } else { 1.5 }))
}

/// `0.5`, `20`, `12k`.
fn short(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{}k", trimmed(value / 1_000.0)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_holds_its_panels_and_labels() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.svg");
        let line = Line { label: "mine".into(), color: 0, is_faint: false, points: vec![(1.0, 2.0), (100.0, 30.0)] };
        let panel = |title: &str, log_y| Panel { title: title.into(), lines: vec![line.clone()], log_y };
        draw(
            &file,
            "callers",
            &[panel("latency", true), panel("memory", false), Panel { title: "none".into(), lines: vec![], log_y: true }],
        )
        .unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(["latency", "memory", "callers", "mine"].iter().all(|text| svg.contains(text)));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.5, 20.0, 12_000.0, 1_500.0].map(short), ["0.5", "20", "12k", "1.5k"]);
    }
}
