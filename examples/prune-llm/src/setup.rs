//! What every job begins with: a model in memory, texts, and the perplexity of the dense model.

use crate::{
    cli::InputArgs,
    input::{Input, Location},
    model::Model,
    perplexity::perplexity,
    progress::Progress,
    report::Seconds,
    sample,
    text::Sequences,
};
use anyhow::Result;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;

/// A model ready to be pruned.
#[derive(Debug)]
pub struct Setup {
    pub input: Input,
    /// `None` if no data is looked at and none was given.
    pub calibration: Option<Sequences>,
    pub evaluation: Sequences,
    pub dense_perplexity: f64,
    /// What all this took.
    pub seconds: Seconds,
}

impl Setup {
    /// Loads and measures the model that was found; tells of it on standard output.
    ///
    /// # Errors
    /// The model or a text cannot be read, or they do not fit each other.
    pub fn new(
        location: Location,
        args: &InputArgs,
        needs_calibration: bool,
        progress: Progress,
    ) -> Result<Self> {
        let start = Instant::now();
        let input = location.load(progress)?;
        let load = start.elapsed();
        println!("{}: {} blocks", input.name, input.model.blocks().len());

        let texts = Texts::gather(
            args,
            needs_calibration,
            &input.model,
            &input.tokenizer,
            progress,
        )?;
        if let Some(calibration) = &texts.calibration {
            println!(
                "calibration: {} x {} tokens",
                calibration.count(),
                calibration.length()
            );
        }

        let start = Instant::now();
        let dense_perplexity = perplexity(&input.model, &texts.evaluation, progress)?;
        let evaluate = texts.evaluation_time + start.elapsed();
        println!(
            "dense perplexity: {dense_perplexity:.3} on {} x {} tokens",
            texts.evaluation.count(),
            texts.evaluation.length()
        );
        Ok(Self {
            input,
            calibration: texts.calibration,
            evaluation: texts.evaluation,
            dense_perplexity,
            seconds: Seconds {
                load: load.as_secs_f64(),
                calibrate: texts.calibration_time.as_secs_f64(),
                prune: 0.0,
                evaluate: evaluate.as_secs_f64(),
            },
        })
    }
}

/// What to calibrate and to measure on.
struct Texts {
    calibration: Option<Sequences>,
    calibration_time: Duration,
    evaluation: Sequences,
    evaluation_time: Duration,
}

impl Texts {
    /// Reads the files, and samples what there is no file for.
    fn gather(
        args: &InputArgs,
        needs_calibration: bool,
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
        let to_calibrate = if calibration.is_none() && needs_calibration {
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
