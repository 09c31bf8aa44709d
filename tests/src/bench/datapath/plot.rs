//! Plots: bars with the half of the values around the median.

use anyhow::{Error, Result, anyhow};
use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, IntoDrawingArea as _, IntoSegmentedCoord as _, PathElement, RGBColor,
    Rectangle, SVGBackend, SegmentValue, Text, WHITE,
};

use super::samples::Summary;

/// A bar: its name, what is written beside it, and its values.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: &'static str,
    pub(super) label: String,
    pub(super) summary: Summary,
    /// One of what is measured, not what it is measured against.
    pub(super) ours: bool,
}

const WIDTH: u32 = 800;
const BAR: u32 = 26;
/// Height of everything but the bars.
const FRAME: u32 = 90;
const OURS: RGBColor = RGBColor(0x2b, 0x7a, 0xb8);
const REFERENCE: RGBColor = RGBColor(0xa8, 0xb0, 0xb8);
/// No font is needed where the plot is made; viewers have one of these.
const FONT: &str = "sans-serif";

/// An SVG with bars from top to bottom.
pub(super) fn bars(title: &str, unit: &str, bars: &[Bar]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, unit, bars).map_err(|error| error.context(format!("plot {title}")))?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, unit: &str, bars: &[Bar]) -> Result<()> {
    let count = u32::try_from(bars.len())?;
    let most = bars.iter().map(|bar| bar.summary.high).fold(0.0, f64::max);
    let root = SVGBackend::with_string(svg, (WIDTH, count * BAR + FRAME)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(150)
        // Room for what is written beside the longest bar.
        .build_cartesian_2d(0.0..most * 1.2, (0..bars.len()).into_segmented())
        .map_err(failed)?;
    let last = bars.len().saturating_sub(1);
    // The axis asks for one more than there are.
    let bar = |row: usize| last.checked_sub(row).and_then(|place| bars.get(place));
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(row) => bar(*row).map_or_else(String::new, |bar| bar.name.to_owned()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .max_light_lines(1)
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .x_desc(unit)
        .label_style((FONT, 13))
        .draw()
        .map_err(failed)?;
    for (row, bar) in bars.iter().rev().enumerate() {
        let (bottom, middle, top) =
            (SegmentValue::Exact(row), SegmentValue::CenterOf(row), SegmentValue::Exact(row + 1));
        let Summary { median, low, high } = bar.summary;
        let color = if bar.ours { OURS } else { REFERENCE };
        let mut body = Rectangle::new([(0.0, bottom), (median, top)], color.filled());
        body.set_margin(4, 4, 0, 0);
        chart.draw_series([body]).map_err(failed)?;
        let spread =
            PathElement::new(vec![(low, middle.clone()), (high, middle.clone())], BLACK.stroke_width(2));
        chart.draw_series([spread]).map_err(failed)?;
        let label = Text::new(bar.label.clone(), (high + most * 0.01, middle), (FONT, 12));
        chart.draw_series([label]).map_err(failed)?;
    }
    root.present().map_err(failed)
}

/// The crate's errors are not for sending between threads.
fn failed(error: impl std::fmt::Display) -> Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::super::samples::Summary;
    use super::{Bar, bars};

    #[test]
    fn plot_shows_names_and_values() {
        let summary = Summary { median: 2.0, low: 1.0, high: 3.0 };
        let bar = |name, ours| Bar { name, label: format!("{name} 2.00"), summary, ours };
        let svg = bars("Four streams", "Gbit/s", &[bar("direct", false), bar("vxlan & more", true)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["Four streams", "Gbit/s", "direct 2.00", "vxlan &amp; more 2.00"] {
            assert!(svg.contains(text), "{text} is missing: {svg}");
        }
        assert_eq!(svg.lines().filter(|line| *line == "direct").count(), 1, "{svg}");
    }
}
