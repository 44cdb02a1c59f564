//! What every job begins with: a model in memory, texts, and the perplexity of the dense model.

use crate::{
    cli::InputArgs,
    input::{Input, Location},
    model::Model,
    perplexity::perplexity,
    progress::Progress,
    report::Seconds,
    sample,
    statistics::Files,
    text::Sequences,
};
use anyhow::Result;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokenizers::Tokenizer;

/// What is asked of calibration.
#[derive(Debug, Clone, Copy)]
pub enum Needs<'a> {
    Nothing,
    Texts,
    /// Statistics from files, of Gram matrices or of norms alone.
    Files {
        paths: &'a [PathBuf],
        gram: bool,
    },
}

/// A model ready to be pruned.
#[derive(Debug)]
pub struct Setup {
    pub input: Input,
    /// `None` if no data is looked at and none was given.
    pub calibration: Option<Sequences>,
    /// Statistics that take their place.
    pub files: Option<Files>,
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
        needs: Needs<'_>,
        progress: Progress,
    ) -> Result<Self> {
        let start = Instant::now();
        let input = location.load(progress)?;
        let load = start.elapsed();
        println!("{}: {} blocks", input.name, input.model.blocks().len());
        let files = match needs {
            Needs::Files { paths, gram } => Some(Files::open(paths, &input.model.config, gram)?),
            Needs::Nothing | Needs::Texts => None,
        };

        let texts = Texts::gather(args, needs, &input.model, &input.tokenizer, progress)?;
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
            files,
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
        needs: Needs<'_>,
        model: &Model,
        tokenizer: &Tokenizer,
        progress: Progress,
    ) -> Result<Self> {
        let data = &args.data;
        let read = |file: &Option<PathBuf>, count, length| {
            let start = Instant::now();
            let sequences = file
                .as_ref()
                .map(|file| Sequences::from_file(file, tokenizer, count, length))
                .transpose()?;
            anyhow::Ok((sequences, start.elapsed()))
        };
        let (calibration, mut calibration_time) = read(
            &data.calibration,
            data.calibration_samples,
            data.sequence_length,
        )?;
        let (evaluation, mut evaluation_time) =
            read(&args.eval, args.eval_windows, args.eval_length)?;

        // Sampled in one go, since a step for more texts at once costs little more. Different
        // texts for the two purposes: what is measured on was held out of calibration.
        let to_calibrate = if calibration.is_none() && matches!(needs, Needs::Texts) {
            data.calibration_samples
        } else {
            0
        };
        let to_evaluate = if evaluation.is_none() {
            args.eval_windows
        } else {
            0
        };
        let lengths = [
            (to_calibrate, data.sequence_length),
            (to_evaluate, args.eval_length),
        ];
        let longest = lengths
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|&(_, length)| length)
            .max()
            .unwrap_or(0);
        // Statistics from files may be those of the texts that would be sampled now.
        let skip = match needs {
            Needs::Files { .. } => data.calibration_samples,
            Needs::Nothing | Needs::Texts => 0,
        };
        let start = Instant::now();
        let count = to_calibrate + to_evaluate;
        let sampled = sample::texts(model, skip..skip + count, longest, data.seed, progress)?;
        let per_text = start.elapsed().div_f64(count.max(1) as f64);
        calibration_time += per_text.mul_f64(to_calibrate as f64);
        evaluation_time += per_text.mul_f64(to_evaluate as f64);

        let (for_calibration, for_evaluation) = sampled.split_at(to_calibrate);
        Ok(Self {
            calibration: calibration.or_else(|| {
                (to_calibrate > 0).then(|| Sequences::cut(for_calibration, data.sequence_length))
            }),
            calibration_time,
            evaluation: evaluation
                .unwrap_or_else(|| Sequences::cut(for_evaluation, args.eval_length)),
            evaluation_time,
        })
    }
}
