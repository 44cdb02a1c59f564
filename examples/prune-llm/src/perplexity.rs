//! How well a model predicts a text.

use crate::{
    matrix,
    model::{Model, Output, ops},
    progress::Progress,
    text::Sequences,
};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use rayon::prelude::*;

/// Tokens whose logits are held at a time: a vocabulary's worth of floats each.
const ROWS: usize = 256;

/// exp of the mean negative log likelihood of every token but the first of each window.
///
/// # Errors
/// The windows are longer than the model allows, or hold tokens it does not know.
pub fn perplexity(model: &Model, windows: &Sequences, progress: Progress) -> Result<f64> {
    let rope = model.rope(windows.length())?;
    let mut batches = windows.embed(model)?;
    let bar = progress.bar(
        "evaluating",
        batches.len() * model.blocks().len() + windows.count(),
    );
    for block in model.blocks() {
        let block = block.widened()?;
        for x in &mut batches {
            *x = block.forward(x, &rope)?;
            bar.inc(1);
        }
    }
    let output = model.output()?;
    let mut texts = windows.iter();
    let mut total = 0.0;
    for batch in &batches {
        for (index, text) in (0..batch.dim(0)?).zip(&mut texts) {
            total += negative_log_likelihood(&output, &batch.narrow(0, index, 1)?, text)?;
            bar.inc(1);
        }
    }
    let predicted = windows.count() * (windows.length() - 1);
    Ok((total / predicted as f64).exp())
}

/// The perplexity of a model of which all that was pruned is known to be sound.
///
/// # Errors
/// Those of [`perplexity`], and a model whose predictions are no numbers.
pub fn finite_perplexity(model: &Model, windows: &Sequences, progress: Progress) -> Result<f64> {
    let perplexity = perplexity(model, windows, progress)?;
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
                    let max = ops::max(row);
                    f64::from(max) - f64::from(logit) + ops::sum_exp(row, max).ln()
                })
                .collect();
            Ok(losses.iter().sum::<f64>())
        })?;
    }
    Ok(total)
}
