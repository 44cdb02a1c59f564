//! The whole job, in order.

use crate::{
    cli::Args,
    input::{Input, Location},
    model::{Model, save},
    perplexity::perplexity,
    progress::Progress,
    prune,
    report::{self, Report, Seconds},
    sample,
    text::Sequences,
    tokenizer,
};
use anyhow::{Result, ensure};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;

/// What both models are asked to continue, and by how many tokens.
const PROMPT: &str = "The three most important things to know about the ocean are";
const CONTINUATION: usize = 32;

/// Loads, measures, prunes, measures again, writes; tells of it on standard output.
///
/// # Errors
/// Whatever keeps it from finishing, with what to do about it.
pub fn run(args: &Args, progress: Progress) -> Result<Report> {
    let start = Instant::now();
    let location = Location::find(args.model.as_deref(), progress)?;
    let output = output_folder(args, &location)?;
    let Input {
        name,
        mut model,
        tokenizer,
        companions,
    } = location.load(progress)?;
    let load = start.elapsed();
    println!("{name}: {} blocks", model.blocks().len());

    let texts = Texts::gather(args, &model, &tokenizer, progress)?;
    if let Some(calibration) = &texts.calibration {
        println!(
            "calibration: {} x {} tokens",
            calibration.count(),
            calibration.length()
        );
    }

    let start = Instant::now();
    let dense_perplexity = perplexity(&model, &texts.evaluation, progress)?;
    let evaluate_dense = start.elapsed();
    println!(
        "dense perplexity: {dense_perplexity:.3} on {} x {} tokens",
        texts.evaluation.count(),
        texts.evaluation.length()
    );
    let dense_text = continuation(&model, &tokenizer)?;

    let outcome = prune::prune(
        &mut model,
        args.method.metric(),
        args.pattern,
        texts.calibration.as_ref(),
        progress,
    )?;
    println!(
        "pruned with {}, {}: {:.2} % of the weights in {} layers are zero ({:.1} s of calibration, \
         {:.1} s of pruning)",
        args.method,
        args.pattern,
        100.0 * outcome.sparsity(),
        outcome.layers.len(),
        outcome.calibrate.as_secs_f64(),
        outcome.prune.as_secs_f64(),
    );

    let start = Instant::now();
    let perplexity = perplexity(&model, &texts.evaluation, progress)?;
    let evaluate_pruned = start.elapsed();
    println!("pruned perplexity: {perplexity:.3}");
    println!("\n{PROMPT} ...\n  dense:  {dense_text}");
    println!("  pruned: {}\n", continuation(&model, &tokenizer)?);

    let report = Report {
        model: args.model.clone().unwrap_or(name),
        method: args.method.to_string(),
        pattern: args.pattern.to_string(),
        seed: args.seed,
        dense_perplexity,
        perplexity,
        sparsity: outcome.sparsity(),
        seconds: Seconds {
            load: load.as_secs_f64(),
            calibrate: (texts.calibration_time + outcome.calibrate).as_secs_f64(),
            prune: outcome.prune.as_secs_f64(),
            evaluate: (texts.evaluation_time + evaluate_dense + evaluate_pruned).as_secs_f64(),
        },
        peak_memory_bytes: report::peak_memory_bytes(),
        layers: report::layers(&outcome),
    };
    save::save(&model, &companions, &report.to_json()?, &output)?;
    println!("written to `{}`", output.display());
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    Ok(report)
}

/// Where the result goes, refused now if it cannot go there: before the work and not after.
fn output_folder(args: &Args, location: &Location) -> Result<PathBuf> {
    let output = args.output.clone().unwrap_or_else(|| {
        let pattern = args.pattern.to_string().replace(':', "-");
        PathBuf::from(format!("{}-{}-{pattern}", location.name(), args.method))
    });
    save::check_output(&output)?;
    ensure!(
        output.canonicalize().ok().as_deref() != Some(location.path()),
        "the output folder `{}` is where the model is read from; choose another with `--output`",
        output.display()
    );
    Ok(output)
}

/// What to calibrate and to measure on.
struct Texts {
    /// `None` if the method looks at no data and none was given.
    calibration: Option<Sequences>,
    calibration_time: Duration,
    evaluation: Sequences,
    evaluation_time: Duration,
}

impl Texts {
    /// Reads the files, and samples what there is no file for.
    fn gather(
        args: &Args,
        model: &Model,
        tokenizer: &Tokenizer,
        progress: Progress,
    ) -> Result<Self> {
        let read = |file: &Option<PathBuf>, count, length| {
            let start = Instant::now();
            let sequences = file
                .as_ref()
                .map(|file| Sequences::from_file(file, tokenizer, count, length))
                .transpose()?;
            anyhow::Ok((sequences, start.elapsed()))
        };
        let (calibration, mut calibration_time) = read(
            &args.calibration,
            args.calibration_samples,
            args.sequence_length,
        )?;
        let (evaluation, mut evaluation_time) =
            read(&args.eval, args.eval_windows, args.eval_length)?;

        // Sampled in one go, since a step for more texts at once costs little more. Different
        // texts for the two purposes: what is measured on was held out of calibration.
        let to_calibrate = if calibration.is_none() && args.method.needs_calibration() {
            args.calibration_samples
        } else {
            0
        };
        let to_evaluate = if evaluation.is_none() {
            args.eval_windows
        } else {
            0
        };
        let lengths = [
            (to_calibrate, args.sequence_length),
            (to_evaluate, args.eval_length),
        ];
        let longest = lengths
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|&(_, length)| length)
            .max()
            .unwrap_or(0);
        let start = Instant::now();
        let count = to_calibrate + to_evaluate;
        let sampled = sample::texts(model, count, longest, args.seed, progress)?;
        let per_text = start.elapsed().div_f64(count.max(1) as f64);
        calibration_time += per_text.mul_f64(to_calibrate as f64);
        evaluation_time += per_text.mul_f64(to_evaluate as f64);

        let (for_calibration, for_evaluation) = sampled.split_at(to_calibrate);
        Ok(Self {
            calibration: calibration.or_else(|| {
                (to_calibrate > 0).then(|| Sequences::cut(for_calibration, args.sequence_length))
            }),
            calibration_time,
            evaluation: evaluation
                .unwrap_or_else(|| Sequences::cut(for_evaluation, args.eval_length)),
            evaluation_time,
        })
    }
}

/// How a model goes on, on one line.
fn continuation(model: &Model, tokenizer: &Tokenizer) -> Result<String> {
    let prompt = tokenizer::tokens(tokenizer, PROMPT)?;
    let tokens = sample::continuation(model, &prompt, CONTINUATION)?;
    let text = tokenizer::text(tokenizer, &tokens)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
