//! What every job begins with: texts, and the perplexity of the dense model.

use super::perplexity::perplexity;
use crate::{
    calibrate::{Sequences, sample},
    cli::{CalibrationArgs, InputArgs},
    model::{Input, Model},
    report::Seconds,
    util::Progress,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Instant};
use tokenizers::Tokenizer;

/// Where pruning takes its statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Texts,
    /// Files of what was gathered before.
    Files,
}

/// What to calibrate and to measure on, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    pub calibration: Option<Sequences>,
    pub evaluation: Option<Sequences>,
}

impl Texts {
    /// Reads those that are given as files.
    pub fn read(args: &InputArgs, tokenizer: &Tokenizer) -> Result<Self> {
        let (count, length) = (args.eval_windows, args.eval_length);
        let read = |file: &PathBuf| Sequences::from_file(file, tokenizer, count, length);
        Ok(Self {
            calibration: calibration_text(&args.data, tokenizer)?,
            evaluation: args.eval.as_ref().map(read).transpose()?,
        })
    }

    /// Samples those that there is no file for and that are needed.
    pub fn sample(
        &self,
        args: &InputArgs,
        needs: Needs,
        model: &Model,
        seconds: &mut Seconds,
        progress: Progress,
    ) -> Result<Self> {
        let data = &args.data;
        let if_needed = |needed: bool, size| if needed { size } else { 0 };
        let to_calibrate = if_needed(
            self.calibration.is_none() && needs == Needs::Texts,
            data.calibration_samples,
        );
        let to_evaluate = if_needed(self.evaluation.is_none(), args.eval_windows);
        // Sampled in one go, since a step for more texts at once costs little more. Different
        // texts for the two purposes: what is measured on was held out of calibration.
        let longest = [
            if_needed(to_calibrate > 0, data.sequence_length),
            if_needed(to_evaluate > 0, args.eval_length),
        ];
        let longest = longest.into_iter().max().unwrap_or(0);
        // Statistics from files may be those of the texts that would be sampled now.
        let skip = if_needed(needs == Needs::Files, data.calibration_samples);
        let places = skip..skip + to_calibrate + to_evaluate;
        let start = Instant::now();
        let sampled = sample::texts(model, places.clone(), longest, data.seed, progress)?;
        let per_text = start.elapsed().as_secs_f64() / places.len().max(1) as f64;
        seconds.calibrate += per_text * to_calibrate as f64;
        seconds.evaluate += per_text * to_evaluate as f64;

        let (for_calibration, for_evaluation) = sampled.split_at(to_calibrate);
        let cut =
            |texts: &[Vec<u32>], length| (!texts.is_empty()).then(|| Sequences::cut(texts, length));
        Ok(Self {
            calibration: cut(for_calibration, data.sequence_length),
            evaluation: cut(for_evaluation, args.eval_length),
        })
    }

    /// These, and of the others what is missing here.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let or = |a: &Option<Sequences>, b: &Option<Sequences>| a.as_ref().or(b.as_ref()).cloned();
        Self {
            calibration: or(&self.calibration, &others.calibration),
            evaluation: or(&self.evaluation, &others.evaluation),
        }
    }

    /// What to measure on.
    pub fn evaluation(&self) -> Result<&Sequences> {
        self.evaluation
            .as_ref()
            .context("there is no text to measure on")
    }
}

/// The text to calibrate on, where a file is given.
pub(crate) fn calibration_text(
    data: &CalibrationArgs,
    tokenizer: &Tokenizer,
) -> Result<Option<Sequences>> {
    let (count, length) = (data.calibration_samples, data.sequence_length);
    let file = data.calibration.as_ref();
    let read = if data.spread {
        Sequences::spread_over_file
    } else {
        Sequences::from_file
    };
    file.map(|file| read(file, tokenizer, count, length))
        .transpose()
}

/// Prints a model's name and what it is calibrated on.
pub(crate) fn announce(input: &Input, calibration: Option<&Sequences>) {
    println!("{}: {} blocks", input.name, input.model.blocks());
    if let Some(calibration) = calibration {
        println!(
            "calibration: {} x {} tokens",
            calibration.count(),
            calibration.length()
        );
    }
}

/// Measures the dense model; prints the result on standard output.
pub(crate) fn dense_perplexity(
    model: &Model,
    evaluation: &Sequences,
    seconds: &mut Seconds,
    progress: Progress,
) -> Result<f64> {
    let start = Instant::now();
    let perplexity = perplexity(model, evaluation, progress)?;
    seconds.evaluate += start.elapsed().as_secs_f64();
    println!(
        "dense perplexity: {perplexity:.3} on {} x {} tokens",
        evaluation.count(),
        evaluation.length()
    );
    Ok(perplexity)
}
