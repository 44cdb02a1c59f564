//! The report as a page to look at: one file that needs no other.

mod charts;

use super::run::{Continuation, Layer, Report};
use crate::{
    calibrate::{InputNorms, OUTLIER_FACTOR},
    model::place,
};
use anyhow::Result;
use charts::{Axis, bars, colour, hex};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::path::MAIN_SEPARATOR;
use wanda::ErrorBasis;

/// The page.
pub fn page(report: &Report) -> Result<String> {
    let title = format!("{} pruned with {}", name(report), report.recipe);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                h1 { (title) }
                (cards(report))
                @if let Some(continuation) = &report.continuation {
                    (continuations(continuation))
                }
                (layers(report)?)
                (inputs(report)?)
                div.columns {
                    section { (timings(report)) }
                    section { (settings(report)) }
                }
                (table(report))
            }
        }
    };
    Ok(page.into_string())
}

/// What the model is called, without where it is.
fn name(report: &Report) -> &str {
    let parts = report.model.rsplit(['/', MAIN_SEPARATOR]);
    parts
        .into_iter()
        .find(|part| !part.is_empty())
        .unwrap_or(&report.model)
}

/// The results that matter most.
fn cards(report: &Report) -> Markup {
    let ratio = report.perplexity / report.dense_perplexity;
    let card = |value: String, label: &str| {
        html! { div { strong { (value) } span.quiet { (label) } } }
    };
    html! {
        div.cards {
            (card(format!("{:.3}", report.dense_perplexity), "dense perplexity"))
            (card(format!("{:.3}", report.perplexity), &format!("pruned perplexity, {ratio:.2} times the dense")))
            (card(percent(report.sparsity), "of the weights are zero"))
            (card(report.layers.len().to_string(), "layers pruned"))
        }
    }
}

/// The same beginning, continued by both models.
fn continuations(continuation: &Continuation) -> Markup {
    let text = |model: &str, text: &str| {
        html! {
            div {
                div.quiet { (model) }
                (continuation.prompt) strong { (text) }
            }
        }
    };
    html! {
        h2 { "Continuations of a prompt" }
        div.texts {
            (text("Dense", &continuation.dense))
            (text("Pruned", &continuation.pruned))
        }
    }
}

/// Sparsity and error of every layer, a chart for each kind.
fn layers(report: &Report) -> Result<Markup> {
    let sparsity = |layer: &Layer| Some(layer.sparsity);
    let error = |layer: &Layer| layer.relative_error;
    let of_target = |layer: &Layer| layer.target_error;
    let has_target = report.layers.iter().any(|layer| of_target(layer).is_some());
    let has_errors = report.layers.iter().any(|layer| error(layer).is_some());
    let from_norms = |layer: &Layer| layer.error_basis == Some(ErrorBasis::InputNorms);
    let from_norms = report.layers.iter().any(from_norms);
    Ok(html! {
        h2 { "Sparsity" }
        p.quiet { "The part of each layer's weights that is zero. From left to right: from the first block to the last." }
        (kinds(report, 1.0, percent, sparsity)?)
        @if has_errors {
            h2 { "Relative error" }
            p.quiet {
                "What pruning changes in each layer's output: the sum of squares of the difference \
                 over that of the output, on the calibration data"
                @if from_norms { ", computed from the norms of the inputs as if these were uncorrelated" }
                ". All charts have the same scale."
            }
            (kinds(report, top(report.layers.iter().filter_map(error)), short, error)?)
        }
        @if has_target {
            h2 { "Error against the target" }
            p.quiet {
                "The same for the weights that best give what the dense model wants from the layer, \
                 which were pruned in place of the dense ones."
            }
            (kinds(report, top(report.layers.iter().filter_map(of_target)), short, of_target)?)
        }
    })
}

/// A chart of a value for each kind of layer that was pruned.
fn kinds(
    report: &Report,
    top: f64,
    label: fn(f64) -> String,
    value: impl Fn(&Layer) -> Option<f64>,
) -> Result<Markup> {
    let axis = Axis {
        blocks: blocks(report),
        top,
        label,
    };
    let mut panels = Vec::new();
    for (kind, module) in modules(report).into_iter().enumerate() {
        let values: Vec<(usize, f64)> = report
            .layers
            .iter()
            .filter_map(|layer| {
                let (block, found) = place(&layer.name)?;
                let value = value(layer).filter(|value| value.is_finite())?;
                (found == module).then_some((block, value))
            })
            .collect();
        if values.is_empty() {
            continue;
        }
        let count = values.len() as f64;
        let mean = values.iter().map(|(_, value)| value).sum::<f64>() / count;
        panels.push(html! {
            figure {
                figcaption {
                    span.key style={ "background:" (hex(colour(kind))) } {}
                    (module)
                    span.quiet { "mean " (label(mean)) }
                }
                (PreEscaped(bars(&values, axis, colour(kind))?))
            }
        });
    }
    Ok(html! { div.panels { @for panel in &panels { (panel) } } })
}

/// How far the largest input of each block stands out, a chart for each place.
fn inputs(report: &Report) -> Result<Markup> {
    if report.inputs.is_empty() {
        return Ok(html! {});
    }
    // Equal factors are equal steps: a few inputs are larger than others by orders of magnitude.
    let height = |input: &InputNorms| input.ratio().map(f64::log10);
    let axis = Axis {
        blocks: blocks(report),
        top: top(report.inputs.iter().filter_map(height)).max(1.0),
        label: power_of_ten,
    };
    let mut panels = Vec::new();
    let kinds = modules(report);
    for readers in distinct(report.inputs.iter().map(|input| &input.readers)) {
        let here: Vec<(usize, &InputNorms)> = report
            .inputs
            .iter()
            .filter(|input| input.readers == *readers)
            .filter_map(|input| Some((place(&input.name)?.0, input)))
            .collect();
        let kind = kinds
            .iter()
            .position(|kind| readers.iter().any(|name| name == kind));
        let heights: Vec<(usize, f64)> = here
            .iter()
            .filter_map(|&(block, input)| Some((block, height(input)?)))
            .collect();
        let outliers: usize = here.iter().map(|(_, input)| input.outliers).sum();
        panels.push(html! {
            figure {
                figcaption {
                    (captions(readers))
                    span.quiet { (outliers) " stand out" }
                }
                (PreEscaped(bars(&heights, axis, colour(kind.unwrap_or(0)))?))
            }
        });
    }
    Ok(html! {
        h2 { "Inputs that stand out" }
        p.quiet {
            "The largest norm of an input's features, in multiples of the median norm. A feature \
             stands out whose norm is more than " (OUTLIER_FACTOR) " times the median."
        }
        div.panels { @for panel in &panels { (panel) } }
        (largest(report))
    })
}

/// The kinds of layers that were pruned, in the order they first appear in.
fn modules(report: &Report) -> Vec<&str> {
    let layers = report.layers.iter();
    distinct(layers.filter_map(|layer| Some(place(&layer.name)?.1)))
}

/// Each of some values once, in the order they first appear in.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// Modules without the part of the block they are in.
fn captions(modules: &[String]) -> String {
    let modules = modules.iter();
    let names = modules.map(|module| module.rsplit('.').next().unwrap_or(module));
    names.collect::<Vec<_>>().join(", ")
}

/// The inputs with the largest outliers.
fn largest(report: &Report) -> Markup {
    const ROWS: usize = 10;
    let mut ranked: Vec<(f64, &InputNorms)> = report
        .inputs
        .iter()
        .filter_map(|input| Some((input.ratio()?, input)))
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    html! {
        details {
            summary { "The largest" }
            div.scroll {
                table {
                    tr {
                        th { "input of" }
                        th.number { "feature" }
                        th.number { "norm / median" }
                        th.number { "that stand out" }
                        th.number { "features" }
                    }
                    @for (ratio, input) in ranked.into_iter().take(ROWS) {
                        tr {
                            td { (input.name) }
                            td.number { (input.largest_feature) }
                            td.number { (format!("{ratio:.1}")) }
                            td.number { (input.outliers) }
                            td.number { (input.features) }
                        }
                    }
                }
            }
        }
    }
}

/// Where the time went.
fn timings(report: &Report) -> Markup {
    let seconds = &report.seconds;
    let total = seconds.load + seconds.calibrate + seconds.prune + seconds.evaluate;
    let memory = report.peak_memory_bytes;
    let memory = memory.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6));
    let rows = [
        ("load", duration(seconds.load)),
        ("calibrate", duration(seconds.calibrate)),
        ("prune", duration(seconds.prune)),
        ("evaluate", duration(seconds.evaluate)),
        ("all", duration(total)),
        ("peak memory", memory.unwrap_or_default()),
    ];
    html! {
        h2 { "Time and memory" }
        (list(&rows))
    }
}

/// What the run was asked for.
fn settings(report: &Report) -> Markup {
    let calibration = report.calibration.as_ref();
    let calibration = calibration.map_or("none".to_owned(), ToString::to_string);
    let rows = [
        ("model", report.model.clone()),
        ("method", report.recipe.method.to_string()),
        ("update", report.recipe.update.to_string()),
        ("pattern", report.recipe.pattern.to_string()),
        ("order", report.recipe.order.to_string()),
        (
            "target",
            if_any(report.recipe.target.is_on(), &report.recipe.target),
        ),
        (
            "output weights",
            if_any(report.recipe.output_weights, &"yes"),
        ),
        ("damping", report.recipe.damping.to_string()),
        ("include", report.choice.include.join(", ")),
        ("exclude", report.choice.exclude.join(", ")),
        ("sparsity of", report.choice.sparsity_of.join(", ")),
        ("calibration", calibration),
        ("evaluation", report.evaluation.to_string()),
        ("seed", report.seed.to_string()),
    ];
    html! {
        h2 { "Settings" }
        (list(&rows))
    }
}

/// A value, or nothing.
fn if_any(there: bool, value: &dyn std::fmt::Display) -> String {
    if there {
        value.to_string()
    } else {
        String::new()
    }
}

/// Names and values, without those that are empty.
fn list(rows: &[(&str, String)]) -> Markup {
    html! {
        dl {
            @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
                dt { (name) }
                dd { (value) }
            }
        }
    }
}

/// The numbers of every layer.
fn table(report: &Report) -> Markup {
    let optional = |value: Option<f64>| value.map_or("–".to_owned(), short);
    html! {
        h2 { "Layers" }
        details {
            summary { "All " (report.layers.len()) " layers in numbers" }
            div.scroll {
                table {
                    tr {
                        th { "layer" }
                        th.number { "outputs" }
                        th.number { "inputs" }
                        th.number { "sparsity" }
                        th.number { "relative error" }
                        th.number { "error against the target" }
                        th.number { "iterations" }
                        th.number { "damping" }
                        th.number { "time" }
                    }
                    @for layer in &report.layers {
                        tr {
                            td { (layer.name) }
                            td.number { (layer.shape[0]) }
                            td.number { (layer.shape[1]) }
                            td.number { (percent(layer.sparsity)) }
                            td.number { (optional(layer.relative_error)) }
                            td.number { (optional(layer.target_error)) }
                            td.number {
                                (layer.iterations.map_or("–".to_owned(), |count| count.to_string()))
                            }
                            td.number { (optional(layer.damping)) }
                            td.number { (duration(layer.seconds)) }
                        }
                    }
                }
            }
        }
    }
}

/// How many blocks the model has, as far as its layers were pruned.
fn blocks(report: &Report) -> usize {
    let blocks = report.layers.iter().filter_map(|layer| place(&layer.name));
    blocks.map(|(block, _)| block + 1).max().unwrap_or(1)
}

/// A little more than the largest of some values.
fn top(values: impl Iterator<Item = f64>) -> f64 {
    let largest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if largest > 0.0 { 1.05 * largest } else { 1.0 }
}

fn percent(fraction: f64) -> String {
    let percent = format!("{:.1}", 100.0 * fraction);
    format!("{} %", percent.strip_suffix(".0").unwrap_or(&percent))
}

/// With two or three digits that count, where a whole number does not have more.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size > 0.0 && size < 0.001 => return format!("{value:.1e}").replace(".0e", "e"),
        size if size < 0.01 => 4,
        size if size < 0.1 => 3,
        size if size < 100.0 => 2,
        _ => return format!("{value:.0}"),
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a logarithm stands for; nothing between two powers of ten.
fn power_of_ten(exponent: f64) -> String {
    match exponent {
        e if e.fract() != 0.0 => String::new(),
        e if e < 4.0 => format!("{}×", 10f64.powf(e)),
        e => format!("1e{e}×"),
    }
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).floor();
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", 1e3 * s),
        s if s < 60.0 => format!("{s:.2} s"),
        s if s < 3600.0 => format!("{minutes} min {:.0} s", (s - 60.0 * minutes).floor()),
        s => format!("{} h {} min", (s / 3600.0).floor(), minutes % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (3.0, "3"),
            (100.0, "100"),
            (0.0123, "0.012"),
            (0.001_234, "0.0012"),
            (2e-4, "2e-4"),
            (2.46e-4, "2.5e-4"),
            (1234.0, "1234"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(percent(0.5), "50 %");
        assert_eq!(percent(0.4996), "50 %");
        assert_eq!(percent(0.625), "62.5 %");
        assert_eq!(power_of_ten(3.0), "1000×");
        assert_eq!(power_of_ten(4.0), "1e4×");
        assert_eq!(power_of_ten(0.5), "");
        for (seconds, text) in [
            (0.0012, "1.2 ms"),
            (1.5, "1.50 s"),
            (61.0, "1 min 1 s"),
            (3660.0, "1 h 1 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
