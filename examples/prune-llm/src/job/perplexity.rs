//! How well a model predicts a text.

use crate::{
    calibrate::{HiddenStates, Sequences},
    model::{Block, Model, Output, Unobserved, max, sum_exp},
    util::{Progress, matrix},
};
use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use indicatif::ProgressBar;
use rayon::prelude::*;

/// Tokens whose logits are held at a time: a vocabulary's worth of floats each.
const ROWS: usize = 256;
/// What the hidden states of windows that go through the model together may take.
const HIDDEN_BYTES: usize = 1 << 28;

/// exp of the mean negative log likelihood of every token but the first of each window.
///
/// Reads the model once for as many windows as fit into a fixed amount of memory.
pub(crate) fn perplexity(model: &Model, windows: &Sequences, progress: Progress) -> Result<f64> {
    let batch = windows.tokens_per_batch() * model.config().hidden_size * size_of::<f32>();
    let batches = windows.batches().count();
    let bar = progress.bar("evaluating", batches * model.blocks() + windows.count());
    let mut loss = 0.0;
    for group in windows.groups((HIDDEN_BYTES / batch).max(1)) {
        let mut evaluation = Evaluation::begin(model, &group)?;
        for index in 0..model.blocks() {
            evaluation.advance(&model.block(index)?.widened()?, &bar)?;
        }
        loss += evaluation.loss(model, &bar)?;
    }
    Ok(from_loss(loss, windows))
}

/// The perplexity when `loss` is the negative log likelihood of all that is predicted.
fn from_loss(loss: f64, windows: &Sequences) -> f64 {
    let predicted = windows.count() * (windows.length() - 1);
    (loss / predicted as f64).exp()
}

/// Windows on their way through a model whose blocks are seen one at a time.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    windows: &'a Sequences,
    hidden: HiddenStates,
}

impl<'a> Evaluation<'a> {
    /// Before the first block.
    pub(crate) fn begin(model: &Model, windows: &'a Sequences) -> Result<Self> {
        Ok(Self {
            windows,
            hidden: HiddenStates::embed(model, windows, DType::F32)?,
        })
    }

    /// Runs the next block.
    pub(crate) fn advance(&mut self, block: &Block, bar: &ProgressBar) -> Result<()> {
        self.hidden.advance(block, &mut Unobserved, bar)
    }

    /// The perplexity, after the last block.
    pub(crate) fn perplexity(&self, model: &Model) -> Result<f64> {
        let loss = self.loss(model, &ProgressBar::hidden())?;
        Ok(from_loss(loss, self.windows))
    }

    fn loss(&self, model: &Model, bar: &ProgressBar) -> Result<f64> {
        let output = model.output()?;
        let mut total = 0.0;
        for (x, text) in self.hidden.texts().zip(self.windows.iter()) {
            total += negative_log_likelihood(&output, &x?, text)?;
            bar.inc(1);
        }
        Ok(total)
    }
}

/// Refuses a perplexity that is none, when all that was pruned is known to be sound.
///
/// # Errors
/// The model's predictions are no numbers.
pub(crate) fn check_finite(perplexity: f64) -> Result<f64> {
    ensure!(
        perplexity.is_finite(),
        "the model's predictions are not finite numbers: its embedding, norms or output head are \
         damaged, or weights are far too large"
    );
    Ok(perplexity)
}

/// The sum over all tokens of `text` but the first, `x` being the last block's output for it.
fn negative_log_likelihood(output: &Output, x: &Tensor, text: &[u32]) -> Result<f64> {
    let targets = text.get(1..).unwrap_or_default();
    let mut total = 0.0;
    for (chunk, targets) in targets.chunks(ROWS).enumerate() {
        let logits = output.logits(&x.narrow(1, chunk * ROWS, targets.len())?)?;
        total += matrix::with_rows(&logits, |logits| {
            // Summed in order, so that the result does not depend on the number of threads.
            let losses: Vec<f64> = logits
                .outer_iter()
                .into_par_iter()
                .zip(targets)
                .map(|(row, &target)| {
                    let logit = row.get(target as usize).copied().unwrap_or(f32::NAN);
                    let row = row.to_slice().unwrap_or_default();
                    let max = max(row);
                    f64::from(max) - f64::from(logit) + sum_exp(row, max).ln()
                })
                .collect();
            Ok(losses.iter().sum::<f64>())
        })?;
    }
    Ok(total)
}
