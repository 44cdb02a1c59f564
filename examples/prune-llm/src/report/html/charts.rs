//! Bars over the depth of a model.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Colours that are told apart on a light and on a dark page.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x4E, 0x79, 0xA7),
    RGBColor(0x2F, 0xA8, 0xA3),
    RGBColor(0x59, 0xA1, 0x4F),
    RGBColor(0xD9, 0xA8, 0x1E),
    RGBColor(0xF2, 0x8E, 0x2B),
    RGBColor(0xE1, 0x57, 0x59),
    RGBColor(0xB0, 0x7A, 0xA1),
];

/// What the style sheet knows as the colours of text and lines on a light page.
const TEXT: RGBColor = RGBColor(0x1D, 0x21, 0x29);
const LINE: RGBColor = RGBColor(0xD5, 0xD9, 0xE0);

/// About three units are a pixel, because the units that are drawn with are whole numbers.
const SIZE: (u32, u32) = (810, 450);
const FONT: u32 = 48;
/// Units that labels take beside and below the bars, with the ticks that keep them at a distance.
const LABELS: (u32, u32) = (188, 72);
const TICK: u32 = 14;

/// The colour of a kind of layer.
pub(super) fn colour(kind: usize) -> RGBColor {
    COLOURS[kind % COLOURS.len()]
}

/// A colour as style sheets write it.
pub(super) fn hex(colour: RGBColor) -> String {
    let RGBColor(red, green, blue) = colour;
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// What bars stand on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Blocks of the model.
    pub(super) blocks: usize,
    /// The value at the top.
    pub(super) top: f64,
    /// How values are written beside the bars.
    pub(super) label: fn(f64) -> String,
}

/// A bar for each of some blocks, as SVG.
pub(super) fn bars(values: &[(usize, f64)], axis: Axis, colour: RGBColor) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, values, axis, colour)
        .map_err(|error| anyhow!("cannot draw a chart: {error}"))?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    values: &[(usize, f64)],
    axis: Axis,
    colour: RGBColor,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(FONT / 2)
        .margin_right(FONT / 4)
        .y_label_area_size(LABELS.0)
        .x_label_area_size(LABELS.1)
        .build_cartesian_2d(-0.5..axis.blocks as f64 - 0.5, 0.0..axis.top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(6)
        .y_labels(5)
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE.stroke_width(3))
        .axis_style(LINE.stroke_width(3))
        .set_all_tick_mark_size(TICK)
        .label_style(("sans-serif", FONT).with_color(TEXT))
        .x_label_formatter(&whole)
        .y_label_formatter(&|&value| (axis.label)(value))
        .draw()?;
    chart.draw_series(values.iter().map(|&(block, value)| {
        let depth = block as f64;
        Rectangle::new([(depth - 0.4, value), (depth + 0.4, 0.0)], colour.filled())
    }))?;
    area.present()
}

/// A block's number; nothing between two blocks.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what plotters hands over"
)]
fn whole(depth: &f64) -> String {
    if depth.fract() == 0.0 {
        depth.to_string()
    } else {
        String::new()
    }
}
