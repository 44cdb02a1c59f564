//! Several methods on one model and the same texts, side by side.

mod table;

use crate::{
    cli::CompareArgs,
    input::Location,
    json,
    model::{Block, Model},
    perplexity::{Evaluation, check_finite},
    plan::Plan,
    progress::Progress,
    prune::{self, Done, Sink},
    recipe::{Method, Recipe, Update},
    report::{self, Seconds, Text},
    setup::{self, Needs, Texts},
    staging,
};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    time::{Duration, Instant},
};
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
    let source = &args.input;
    let data = &source.data;
    let input = Location::find(data.model.as_deref(), progress)?.open()?;
    let mut seconds = Seconds::default();
    let given = Texts::read(source, &input.tokenizer)?;
    let sampled = given.sample(source, Needs::Texts, &input.model, &mut seconds, progress)?;
    let texts = given.or(&sampled);
    setup::announce(&input, texts.calibration.as_ref());
    let evaluation = texts.evaluation()?;
    let dense_perplexity =
        setup::dense_perplexity(&input.model, evaluation, &mut seconds, progress)?;
    let runs = run_all(&input.model, &texts, progress)?;

    let comparison = Comparison {
        calibration: Text::new(
            data.calibration.as_deref(),
            data.calibration_samples,
            data.sequence_length,
        ),
        evaluation: Text::new(
            source.eval.as_deref(),
            source.eval_windows,
            source.eval_length,
        ),
        model: data.model.clone().unwrap_or(input.name),
        seed: data.seed,
        dense_perplexity,
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

fn run_all(model: &Model, texts: &Texts, progress: Progress) -> Result<Vec<Run>> {
    let recipes = recipes();
    let mut runs = Vec::with_capacity(recipes.len());
    for (index, recipe) in recipes.iter().enumerate() {
        progress.note(format_args!(
            "run {} of {}: {recipe}",
            index + 1,
            recipes.len()
        ));
        let run = run(model, texts, recipe, progress);
        runs.push(run.with_context(|| format!("in the run `{recipe}`"))?);
    }
    Ok(runs)
}

/// Prunes the dense model and measures what comes of it, block by block.
fn run(model: &Model, texts: &Texts, recipe: &Recipe, progress: Progress) -> Result<Run> {
    // Where it is not needed it would do no more than tell the errors of layers.
    let calibration = texts
        .calibration
        .as_ref()
        .filter(|_| recipe.needs_calibration());
    let mut pruned = Pruned {
        evaluation: Evaluation::begin(model, texts.evaluation()?)?,
        time: Duration::ZERO,
    };
    let plan = Plan::uniform(&model.config, *recipe);
    let nothing = Done::nothing(model, calibration)?;
    let outcome = prune::prune(model, &plan, nothing, None, &mut pruned, progress)?;
    let start = Instant::now();
    let perplexity = check_finite(pruned.evaluation.perplexity(model)?)?;
    let evaluate = pruned.time + start.elapsed();
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

/// Runs the evaluation through every block as soon as it is pruned.
struct Pruned<'a> {
    evaluation: Evaluation<'a>,
    time: Duration,
}

impl Sink for Pruned<'_> {
    fn finished(&mut self, block: &Block, _: &Done) -> Result<()> {
        let start = Instant::now();
        self.evaluation
            .advance(&block.widened()?, &ProgressBar::hidden())?;
        self.time += start.elapsed();
        Ok(())
    }
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
