//! Several methods on one model and the same texts, side by side.

use super::{
    blocks::{Done, Sink, prune_blocks},
    perplexity::{Evaluation, check_finite},
    setup::{self, Needs, Texts},
};
use crate::{
    cli::CompareArgs,
    model::{Block, Location, Model},
    plan::{Choice, Plan, Recipe},
    report::{Comparison, Run, RunSeconds, Seconds, Text, peak_memory_bytes, recipes, table},
    util::{Progress, json, staging},
};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

/// Prunes one model by every method and measures what is left of it; prints results on
/// standard output.
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
        peak_memory_bytes: peak_memory_bytes(),
    };
    println!("\n{}", table::table(&comparison));
    if let Some(path) = &args.json {
        staging::write(path, &json::pretty(&comparison)?).context("cannot write the results")?;
    }
    if let Some(path) = &args.markdown {
        let document = table::document(&comparison);
        staging::write(path, document.as_bytes()).context("cannot write the table")?;
    }
    Ok(comparison)
}

fn run_all(model: &Model, texts: &Texts, progress: Progress) -> Result<Vec<Run>> {
    let recipes = recipes();
    let count = recipes.len();
    let runs = recipes.iter().zip(1..).map(|(recipe, number)| {
        progress.note(format_args!("run {number} of {count}: {recipe}"));
        run(model, texts, recipe, progress).with_context(|| format!("in the run `{recipe}`"))
    });
    runs.collect()
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
    let plan = Plan::new(model.spec(), model.blocks(), *recipe, &Choice::default())?;
    let nothing = Done::nothing(model, &plan, calibration)?;
    let outcome = prune_blocks(model, &plan, nothing, None, &mut pruned, progress)?;
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
