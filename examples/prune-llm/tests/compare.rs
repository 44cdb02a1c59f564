//! All methods side by side.

mod common;

use candle_core::DType;
use clap::Parser;
use common::{Fixture, assert_says, config, tensors};
use prune_llm::{
    Progress,
    cli::{Cli, Job},
    job::compare,
    report::Comparison,
};
use serde_json::{Value, json};
use std::fs;

/// Every run starts from the dense model, so each gives what it gives alone.
#[test]
fn runs_are_those_of_the_single_job() {
    for dtype in [DType::F32, DType::BF16] {
        let fixture = Fixture::new(&config(), &tensors(dtype));
        let comparison = fixture.compare(&[]).unwrap();
        assert_eq!(comparison.runs.len(), 12);
        for run in &comparison.runs {
            let recipe = run.recipe;
            let alone = fixture
                .run(&[
                    "--method",
                    &recipe.method.to_string(),
                    "--update",
                    &recipe.update.to_string(),
                    "--pattern",
                    &recipe.pattern.to_string(),
                ])
                .unwrap();
            assert_eq!(
                alone.dense_perplexity.to_bits(),
                comparison.dense_perplexity.to_bits()
            );
            assert_eq!(
                alone.perplexity.to_bits(),
                run.perplexity.to_bits(),
                "{recipe}"
            );
            assert!((run.sparsity - 0.5).abs() < 1e-9, "{recipe}");
        }
    }
}

#[test]
fn the_results_as_files() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let json = fixture.path("table.json");
    let markdown = fixture.path("table.md");
    let comparison = fixture
        .compare(&[
            "--json",
            json.to_str().unwrap(),
            "--markdown",
            markdown.to_str().unwrap(),
        ])
        .unwrap();

    let written = fs::read(&json).unwrap();
    let read: Comparison = serde_json::from_slice(&written).unwrap();
    assert_eq!(read.runs.len(), comparison.runs.len());
    let value: Value = serde_json::from_slice(&written).unwrap();
    let first = &value["runs"][6];
    assert_eq!(
        (&first["method"], &first["update"], &first["pattern"]),
        (&json!("sparsegpt"), &json!("obs"), &json!("per-layer:0.5"))
    );
    assert_eq!(value["evaluation"]["sequences"], json!(3));
    for phase in ["calibrate", "prune", "evaluate"] {
        assert!(first["seconds"][phase].as_f64().unwrap() > 0.0, "{phase}");
    }

    let text = fs::read_to_string(&markdown).unwrap();
    let dense = format!("{:.2}", comparison.dense_perplexity);
    let parts = ["| Dense ", "| SparseGPT | yes ", "3 x 32 tokens", &dense];
    assert_says(&text, &parts);
    assert_eq!(
        fixture.entries(),
        ["model", "table.json", "table.md", "text"]
    );
}

/// Without any text it is sampled, for calibration and measurement alike.
#[test]
fn no_text_is_needed() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let model = fixture.model();
    let line = [
        "prune-llm",
        "compare",
        "--model",
        model.to_str().unwrap(),
        "--calibration-samples=2",
        "--sequence-length=24",
        "--eval-windows=2",
        "--eval-length=16",
    ];
    let Job::Compare(args) = Cli::try_parse_from(line).unwrap().job() else {
        panic!("another job than `compare`");
    };
    let comparison = compare(&args, Progress::Hidden).unwrap();
    assert_eq!(comparison.calibration.file, None);
    assert!(
        comparison
            .runs
            .iter()
            .all(|run| run.perplexity.is_finite() && run.perplexity > 1.0)
    );
    assert_eq!(fixture.entries(), ["model", "text"]);
}
