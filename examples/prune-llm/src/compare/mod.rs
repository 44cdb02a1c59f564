//! Several methods on one model and the same texts, side by side.

mod table;

use crate::{
    cli::CompareArgs,
    input::Location,
    json,
    perplexity::perplexity,
    progress::Progress,
    prune::{self, Calibration},
    recipe::{Method, Recipe, Update},
    report::{self, Text},
    setup::{Needs, Setup},
    staging,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Instant};
use wanda::Pattern;

/// The sparsities that every method is asked for. `None`: the method's own way to 50 %.
const SPARSITIES: [(&str, Option<Pattern>); 3] = [
    ("50 %", None),
    ("4:8", Some(Pattern::NOfM { keep: 4, of: 8 })),
    ("2:4", Some(Pattern::NOfM { keep: 2, of: 4 })),
];

/// The methods in the order of the table, each with the pattern it was published with for 50 %.
const CONTENDERS: [(Method, Update, Pattern); 4] = [
    (Method::Magnitude, Update::None, Pattern::PerLayer(0.5)),
    (Method::Wanda, Update::None, Pattern::PerOutput(0.5)),
    (Method::SparseGpt, Update::Obs, Pattern::PerLayer(0.5)),
    (Method::Wanda, Update::Obs, Pattern::PerOutput(0.5)),
];

/// Every method at every one of the [`SPARSITIES`], method by method.
fn recipes() -> Vec<Recipe> {
    CONTENDERS
        .iter()
        .flat_map(|&(method, update, half)| {
            SPARSITIES.map(|(_, pattern)| Recipe {
                method,
                update,
                pattern: pattern.unwrap_or(half),
            })
        })
        .collect()
}

/// What the methods gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub model: String,
    pub seed: u64,
    pub calibration: Text,
    pub evaluation: Text,
    pub dense_perplexity: f64,
    /// Method by method, each at 50 %, 4:8 and 2:4.
    pub runs: Vec<Run>,
    pub seconds: f64,
    /// `None` where the operating system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

/// One pruned model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    #[serde(flatten)]
    pub recipe: Recipe,
    pub perplexity: f64,
    /// The fraction of zeros in the pruned layers.
    pub sparsity: f64,
    pub seconds: RunSeconds,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunSeconds {
    /// Forward passes and statistics.
    pub calibrate: f64,
    pub prune: f64,
    pub evaluate: f64,
}

impl Comparison {
    /// Writes the results as JSON, complete or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        staging::write(path, &json::pretty(self)?).context("cannot write the results")
    }

    /// Writes the table with what belongs to it as Markdown, complete or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_markdown(&self, path: &Path) -> Result<()> {
        staging::write(path, table::document(self).as_bytes()).context("cannot write the table")
    }
}

/// Prunes one model by every method and measures what is left of it; tells of it on standard
/// output.
///
/// # Errors
/// Whatever keeps it from finishing, with what to do about it.
pub fn compare(args: &CompareArgs, progress: Progress) -> Result<Comparison> {
    let start = Instant::now();
    for file in [&args.json, &args.markdown].into_iter().flatten() {
        staging::check_file(file)?;
    }
    let input = &args.input;
    let data = &input.data;
    let location = Location::find(data.model.as_deref(), progress)?;
    let setup = Setup::new(location, input, Needs::Texts, progress)?;
    let runs = run_all(&setup, progress)?;
    let comparison = Comparison {
        calibration: Text::new(
            data.calibration.as_deref(),
            data.calibration_samples,
            data.sequence_length,
        ),
        evaluation: Text::new(input.eval.as_deref(), input.eval_windows, input.eval_length),
        model: data.model.clone().unwrap_or(setup.input.name),
        seed: data.seed,
        dense_perplexity: setup.dense_perplexity,
        runs,
        seconds: start.elapsed().as_secs_f64(),
        peak_memory_bytes: report::peak_memory_bytes(),
    };
    println!("\n{}", table::table(&comparison));
    if let Some(path) = &args.json {
        comparison.write_json(path)?;
    }
    if let Some(path) = &args.markdown {
        comparison.write_markdown(path)?;
    }
    Ok(comparison)
}

fn run_all(setup: &Setup, progress: Progress) -> Result<Vec<Run>> {
    let recipes = recipes();
    let mut runs = Vec::with_capacity(recipes.len());
    for (index, recipe) in recipes.iter().enumerate() {
        progress.note(format_args!(
            "run {} of {}: {recipe}",
            index + 1,
            recipes.len()
        ));
        runs.push(run(setup, recipe, progress).with_context(|| format!("in the run `{recipe}`"))?);
    }
    Ok(runs)
}

/// Prunes a copy of the dense model and measures it.
fn run(setup: &Setup, recipe: &Recipe, progress: Progress) -> Result<Run> {
    let mut model = setup.input.model.prunable_copy()?;
    // Where it is not needed it would do no more than tell the errors of layers.
    let calibration = setup
        .calibration
        .as_ref()
        .filter(|_| recipe.needs_calibration())
        .map(Calibration::Texts);
    let outcome = prune::prune(&mut model, recipe, calibration, progress)?;
    let start = Instant::now();
    let perplexity = perplexity(&model, &setup.evaluation, progress)?;
    let evaluate = start.elapsed();
    println!("{recipe}: perplexity {perplexity:.3}; {outcome}");
    Ok(Run {
        recipe: *recipe,
        perplexity,
        sparsity: outcome.sparsity(),
        seconds: RunSeconds {
            calibrate: outcome.calibrate.as_secs_f64(),
            prune: outcome.prune.as_secs_f64(),
            evaluate: evaluate.as_secs_f64(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_at_every_sparsity() {
        let recipes: Vec<String> = recipes().iter().map(Recipe::to_string).collect();
        assert_eq!(
            recipes,
            [
                "magnitude, per-layer:0.5",
                "magnitude, 4:8",
                "magnitude, 2:4",
                "wanda, 0.5",
                "wanda, 4:8",
                "wanda, 2:4",
                "sparsegpt, per-layer:0.5",
                "sparsegpt, 4:8",
                "sparsegpt, 2:4",
                "wanda-obs, 0.5",
                "wanda-obs, 4:8",
                "wanda-obs, 2:4",
            ]
        );
    }
}
