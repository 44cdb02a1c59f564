//! Calibrating and pruning, block by block.

use crate::{
    matrix,
    model::{Model, Tap},
    progress::Progress,
    recipe::Recipe,
    statistics::{
        Files,
        outliers::{self, InputNorms},
    },
    stats::InputStats,
    text::Sequences,
};
use anyhow::{Context, Result};
use std::{
    fmt,
    time::{Duration, Instant},
};
use wanda::{ActivationStats, LayerReport, NoStats, Pruner};

/// Where the statistics come from.
#[derive(Debug)]
pub enum Calibration<'a> {
    /// They are gathered as these texts flow through the model.
    Texts(&'a Sequences),
    /// They were gathered before, from the dense model.
    Files(&'a mut Files),
}

/// What pruning a model gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every pruned layer, in the order of the model.
    pub layers: Vec<(String, LayerReport)>,
    /// How the norms of the inputs are spread, if there was calibration.
    pub inputs: Vec<InputNorms>,
    /// Time in forward passes and statistics.
    pub calibrate: Duration,
    /// Time in the pruner.
    pub prune: Duration,
}

impl Outcome {
    /// The fraction of weights that are zero, over all layers.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        let weights: usize = self.reports().map(|r| r.rows() * r.columns()).sum();
        let zeros: usize = self.reports().map(LayerReport::zeros).sum();
        zeros as f64 / weights.max(1) as f64
    }

    fn reports(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().map(|(_, report)| report)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} % of the weights in {} layers are zero ({:.1} s of calibration, {:.1} s of \
             pruning)",
            100.0 * self.sparsity(),
            self.layers.len(),
            self.calibrate.as_secs_f64(),
            self.prune.as_secs_f64(),
        )
    }
}

/// Prunes all linear layers in the blocks of `model`.
///
/// With calibration texts: all statistics of a block come from the block while it is dense,
/// fed with what the already pruned blocks before it put out; then all of its layers are pruned,
/// and the block runs again for the next one's input. Otherwise no forward
/// pass is made.
///
/// # Errors
/// A recipe that needs statistics is given none, or the weights cannot be pruned.
pub fn prune(
    model: &mut Model,
    recipe: &Recipe,
    mut calibration: Option<Calibration<'_>>,
    progress: Progress,
) -> Result<Outcome> {
    let pruner = Pruner::new(recipe.method.metric(), recipe.pattern).update(recipe.update);
    let mut outcome = Outcome::default();
    let blocks = model.blocks().len();
    let mut hidden = match &calibration {
        Some(Calibration::Texts(sequences)) => {
            Some((model.rope(sequences.length())?, sequences.embed(model)?))
        }
        Some(Calibration::Files(_)) | None => None,
    };
    let passes = hidden.as_ref().map_or(1, |(_, batches)| 2 * batches.len());
    let bar = progress.bar("pruning", passes * blocks);
    for (index, block) in model.blocks().iter().enumerate() {
        let start = Instant::now();
        let stats = match (&hidden, &mut calibration) {
            (Some((rope, batches)), _) => {
                let dense = block.widened()?;
                let mut stats = InputStats::new(&model.config, recipe.needs_gram());
                for x in batches {
                    dense
                        .observe(x, rope, &mut stats)
                        .with_context(|| format!("calibration failed in block {index}"))?;
                    bar.inc(1);
                }
                Some(stats)
            }
            (None, Some(Calibration::Files(files))) => {
                Some(files.block(index, recipe.needs_gram())?)
            }
            (None, _) => None,
        };
        if let Some(stats) = &stats {
            outcome.inputs.extend(outliers::of_block(index, stats));
        }
        outcome.calibrate += start.elapsed();

        let start = Instant::now();
        for tap in Tap::ALL {
            let stats = stats
                .as_ref()
                .map_or(&NoStats as &dyn ActivationStats, |stats| stats.at(tap));
            for &layer in tap.layers() {
                let name = format!("model.layers.{index}.{}", layer.module());
                let report = matrix::prune_in_place(block.linear(layer), &pruner, stats)
                    .with_context(|| format!("cannot prune `{name}`"))?;
                outcome.layers.push((name, report));
            }
        }
        // Gram matrices are large; the forward pass gets their memory.
        drop(stats);
        outcome.prune += start.elapsed();

        let start = Instant::now();
        if let Some((rope, batches)) = &mut hidden
            && index + 1 < blocks
        {
            let sparse = block.widened()?;
            for x in batches {
                *x = sparse.forward(x, rope)?;
                bar.inc(1);
            }
        }
        outcome.calibrate += start.elapsed();
    }
    Ok(outcome)
}
