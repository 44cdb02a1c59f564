//! The page is one file that needs no other, and shows every layer.

mod common;

use candle_core::DType;
use common::{Fixture, LAYERS, config, tensors};
use prune_llm::report::{Report, html::page};
use scraper::{Html, Selector};
use std::fs;

fn report(more: &[&str]) -> Report {
    Fixture::new(&config(), &tensors(DType::F32))
        .run(more)
        .unwrap()
}

fn parsed(page: &str) -> Html {
    let html = Html::parse_document(page);
    assert!(html.errors.is_empty(), "{:?}", html.errors);
    html
}

fn select<'a>(html: &'a Html, selector: &str) -> Vec<scraper::ElementRef<'a>> {
    html.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(html: &Html) -> String {
    html.root_element().text().collect()
}

/// The colours of the bars of each chart.
fn charts(html: &Html) -> Vec<Vec<String>> {
    let bars = Selector::parse("rect").unwrap();
    select(html, "figure")
        .iter()
        .map(|chart| {
            let fills = chart.select(&bars).filter_map(|bar| bar.attr("fill"));
            fills.map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn a_bar_for_each_layer_in_the_colour_of_its_kind() {
    let html = parsed(&page(&report(&[])).unwrap());
    let charts = charts(&html);
    // Sparsity and error of seven kinds, and four inputs.
    assert_eq!(charts.len(), 7 + 7 + 4);
    for bars in &charts {
        assert_eq!(bars.len(), LAYERS);
        assert!(bars.iter().all(|fill| *fill == bars[0]), "{bars:?}");
    }
    let colours = |charts: &[Vec<String>]| {
        charts
            .iter()
            .map(|bars| bars[0].clone())
            .collect::<Vec<_>>()
    };
    let kinds = colours(&charts[..7]);
    assert_eq!(kinds, colours(&charts[7..14]));
    let different: std::collections::BTreeSet<_> = kinds.iter().collect();
    assert_eq!(different.len(), 7);
}

/// Labels end beside the bars and are not cut off on the left, in wide fonts either.
#[test]
fn labels_fit_beside_the_bars() {
    const WIDTH: f64 = 0.68;
    let mut report = report(&[]);
    for (scale, error) in [(300.0, 0.9), (3e3, 0.009), (3e6, 9e-4), (3.0, 9e-7)] {
        for input in &mut report.inputs {
            input.largest = scale * input.median;
        }
        for layer in &mut report.layers {
            layer.relative_error = Some(error);
        }
        let html = parsed(&page(&report).unwrap());
        let labels = select(&html, "text[text-anchor=end]");
        assert!(labels.len() > 18 * 2);
        for label in labels {
            let number = |name| label.attr(name).unwrap().parse::<f64>().unwrap();
            let text: String = label.text().collect();
            let width = WIDTH * number("font-size") * text.trim().chars().count() as f64;
            assert!(width <= number("x"), "`{text}` takes {width}");
        }
    }
}

#[test]
fn a_model_is_named_without_its_folder() {
    let mut report = report(&[]);
    for (model, name) in [
        ("some/folder/m.gguf", "m.gguf"),
        ("some/folder/", "folder"),
        ("m", "m"),
        ("/", "/"),
    ] {
        report.model = model.to_owned();
        let html = parsed(&page(&report).unwrap());
        let title: String = select(&html, "h1")[0].text().collect();
        assert_eq!(title, format!("{name} pruned with wanda, 0.5"));
    }
}

/// Without calibration there are no errors and no inputs to show.
#[test]
fn what_there_is_no_data_for_is_left_out() {
    let report = report(&["--method", "magnitude"]);
    let calibrated = parsed(&page(&report).unwrap());
    assert_eq!(charts(&calibrated).len(), 18);
    let mut report = report;
    report.inputs.clear();
    for layer in &mut report.layers {
        layer.relative_error = None;
    }
    let html = parsed(&page(&report).unwrap());
    assert_eq!(charts(&html).len(), 7);
    assert!(!text(&html).contains("Relative error"));
}

#[test]
fn what_was_not_done_is_left_out() {
    let report = report(&[
        "--continuation=0",
        "--include=mlp.down",
        "--sparsity-of=s.0=0.7",
    ]);
    assert_eq!(report.continuation, None);
    let html = parsed(&page(&report).unwrap());
    // Sparsity and error of one kind, and one input.
    assert_eq!(charts(&html).len(), 3);
    let text = text(&html);
    assert!(!text.contains("Continuation") && !text.contains("exclude"));
    assert!(text.contains("mlp.down") && text.contains("s.0=0.7"));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = page(&report(&[])).unwrap();
    let html = parsed(&page);
    for selector in [
        "script", "link", "img", "iframe", "object", "[src]", "[href]", "image",
    ] {
        assert!(select(&html, selector).is_empty(), "{selector}");
    }
    for part in ["url(", "@import", "@font-face"] {
        assert!(!page.contains(part), "{part}");
    }
    // The name of SVG's vocabulary is no address that anything is loaded from.
    let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!rest.contains("http:") && !rest.contains("https:"));
}

#[test]
fn text_is_escaped() {
    let mut report = report(&[]);
    let evil = "<script>alert('1')</script> & \"<b>\"";
    report.model = evil.to_owned();
    let continuation = report.continuation.as_mut().unwrap();
    continuation.prompt = evil.to_owned();
    continuation.pruned = evil.to_owned();
    report.layers[0].name = evil.to_owned();
    let html = parsed(&page(&report).unwrap());
    assert!(select(&html, "script, b").is_empty());
    assert!(text(&html).matches(evil).count() >= 4);
}

#[test]
fn all_results_are_on_the_page() {
    let report = report(&["--pattern", "2:4"]);
    let continuation = report.continuation.clone().unwrap();
    let text = text(&parsed(&page(&report).unwrap()));
    for part in [
        format!("{:.3}", report.dense_perplexity),
        format!("{:.3}", report.perplexity),
        "2:4".to_owned(),
        "4 x 40 tokens of".to_owned(),
        "3 x 32 tokens of".to_owned(),
        continuation.prompt.clone() + &continuation.dense,
        continuation.prompt + &continuation.pruned,
        "peak memory".to_owned(),
    ] {
        assert!(text.contains(&part), "`{part}` is not in: {text}");
    }
    for layer in &report.layers {
        assert!(text.contains(&layer.name), "{}", layer.name);
    }
}

/// A report is enough for a page: one that was read from its JSON gives the same.
#[test]
fn a_page_is_made_of_the_report_alone() {
    let report = report(&[]);
    let read: Report = serde_json::from_slice(&report.to_json().unwrap()).unwrap();
    assert_eq!(page(&read).unwrap(), page(&report).unwrap());
}

#[test]
fn the_page_is_written_where_it_was_asked_for() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let path = fixture.path("page.html");
    let report = fixture.run(&["--html", path.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), page(&report).unwrap());
    assert_eq!(fixture.entries(), ["model", "page.html", "pruned", "text"]);
    let error = fixture.error(&["--html", fixture.model().to_str().unwrap()]);
    assert!(error.contains("is a folder"), "{error}");
}
