//! The whole job, in order.

use crate::{
    cli::PruneArgs,
    html,
    input::{Input, Location},
    model::{Model, save},
    perplexity::perplexity,
    progress::Progress,
    prune::{self, Calibration},
    recipe::Recipe,
    report::{self, Continuation, Report, Seconds, Text},
    sample,
    setup::{Needs, Setup},
    staging, tokenizer,
};
use anyhow::{Result, ensure};
use std::{path::PathBuf, time::Instant};
use tokenizers::Tokenizer;

/// What both models are asked to continue, and by how many tokens.
const PROMPT: &str = "The three most important things to know about the ocean are";
const CONTINUATION: usize = 32;

/// Loads, measures, prunes, measures again, writes; tells of it on standard output.
///
/// # Errors
/// Whatever keeps it from finishing, with what to do about it.
pub fn run(args: &PruneArgs, progress: Progress) -> Result<Report> {
    let start = Instant::now();
    let recipe = args.recipe();
    let data = &args.input.data;
    let location = Location::find(data.model.as_deref(), progress)?;
    let find = start.elapsed();
    let output = output_folder(args, &location)?;
    for path in [&args.report, &args.html].into_iter().flatten() {
        staging::check_file(path)?;
    }
    let Setup {
        input:
            Input {
                name,
                mut model,
                tokenizer,
                companions,
            },
        calibration,
        mut files,
        evaluation,
        dense_perplexity,
        seconds,
    } = Setup::new(location, &args.input, needs(args), progress)?;
    let calibration = match &mut files {
        Some(files) => Some(Calibration::Files(files)),
        None => calibration.as_ref().map(Calibration::Texts),
    };
    let dense_text = continuation(&model, &tokenizer)?;

    let outcome = prune::prune(&mut model, &recipe, calibration, progress)?;
    println!("pruned with {recipe}: {outcome}");

    let start = Instant::now();
    let perplexity = perplexity(&model, &evaluation, progress)?;
    let evaluate = start.elapsed();
    println!("pruned perplexity: {perplexity:.3}");
    println!("\n{PROMPT} ...\n  dense:  {dense_text}");
    let pruned_text = continuation(&model, &tokenizer)?;
    println!("  pruned: {pruned_text}\n");

    let report = Report {
        model: data.model.clone().unwrap_or(name),
        recipe,
        seed: data.seed,
        calibration: report::calibration(args),
        evaluation: Text::new(
            args.input.eval.as_deref(),
            args.input.eval_windows,
            args.input.eval_length,
        ),
        dense_perplexity,
        perplexity,
        sparsity: outcome.sparsity(),
        seconds: Seconds {
            load: find.as_secs_f64() + seconds.load,
            calibrate: seconds.calibrate + outcome.calibrate.as_secs_f64(),
            prune: outcome.prune.as_secs_f64(),
            evaluate: seconds.evaluate + evaluate.as_secs_f64(),
        },
        peak_memory_bytes: report::peak_memory_bytes(),
        layers: report::layers(&outcome),
        inputs: outcome.inputs,
        continuation: Continuation {
            prompt: PROMPT.to_owned(),
            dense: dense_text,
            pruned: pruned_text,
        },
    };
    save::save(&model, &companions, &report.to_json()?, &output)?;
    println!("written to `{}`", output.display());
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    if let Some(path) = &args.html {
        html::write(&report, path)?;
    }
    Ok(report)
}

fn needs(args: &PruneArgs) -> Needs<'_> {
    let recipe = args.recipe();
    match args.statistics.as_slice() {
        [] if recipe.needs_calibration() => Needs::Texts,
        [] => Needs::Nothing,
        paths => Needs::Files {
            paths,
            gram: recipe.needs_gram(),
        },
    }
}

/// Where the result goes, refused now if it cannot go there: before the work and not after.
fn output_folder(args: &PruneArgs, location: &Location) -> Result<PathBuf> {
    let output = match &args.output {
        Some(folder) => folder.clone(),
        None => default_folder(location.name(), &args.recipe()),
    };
    save::check_output(&output)?;
    ensure!(
        output.canonicalize().ok().as_deref() != Some(location.path()),
        "the output folder `{}` is where the model is read from; choose another with `--output`",
        output.display()
    );
    Ok(output)
}

fn default_folder(model: &str, recipe: &Recipe) -> PathBuf {
    let pattern = recipe.pattern.to_string().replace(':', "-");
    PathBuf::from(format!("{model}-{}-{pattern}", recipe.name()))
}

/// How a model goes on, on one line.
fn continuation(model: &Model, tokenizer: &Tokenizer) -> Result<String> {
    let prompt = tokenizer::tokens(tokenizer, PROMPT)?;
    let tokens = sample::continuation(model, &prompt, CONTINUATION)?;
    let text = tokenizer::text(tokenizer, &tokens)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Method, Update};
    use wanda::Pattern;

    #[test]
    fn the_default_folder_names_what_was_done() {
        for (method, update, pattern, expected) in [
            (
                Method::Wanda,
                Update::None,
                Pattern::PerOutput(0.5),
                "m-wanda-0.5",
            ),
            (
                Method::Wanda,
                Update::Obs,
                Pattern::PerOutput(0.5),
                "m-wanda-obs-0.5",
            ),
            (
                Method::SparseGpt,
                Update::Obs,
                Pattern::PerLayer(0.5),
                "m-sparsegpt-per-layer-0.5",
            ),
        ] {
            let recipe = Recipe {
                method,
                update,
                pattern,
            };
            assert_eq!(default_folder("m", &recipe), PathBuf::from(expected));
        }
    }
}
