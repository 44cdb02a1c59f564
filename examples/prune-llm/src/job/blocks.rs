//! Calibrating and pruning, block by block.

use crate::{
    calibrate::{Files, HiddenStates, InputNorms, InputStats, Sequences, norms_of_block},
    model::{Block, Model, Unobserved},
    plan::Plan,
    util::{Progress, matrix},
};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};
use wanda::{ActivationStats, LayerReport, NoStats, Pruner};

/// What pruning a model gave.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Every pruned layer, in the order of the model.
    pub layers: Vec<(String, LayerReport)>,
    /// How the norms of their inputs are spread, if there was calibration.
    pub inputs: Vec<InputNorms>,
    /// Time in forward passes and statistics.
    pub calibrate: Duration,
    /// Time in the pruner.
    pub prune: Duration,
}

impl Outcome {
    /// The fraction of weights that are zero, over all layers.
    pub(crate) fn sparsity(&self) -> f64 {
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

/// How far pruning has come.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Blocks that are finished.
    pub blocks: usize,
    /// What the last of them puts out for the calibration texts, or what the first block reads.
    /// `None` without calibration texts.
    pub hidden: Option<HiddenStates>,
    /// What pruning them gave.
    pub outcome: Outcome,
}

impl Done {
    /// Nothing yet.
    pub(crate) fn nothing(model: &Model, calibration: Option<&Sequences>) -> Result<Self> {
        let hidden = calibration.map(|texts| HiddenStates::embed(model, texts, model.dtype()?));
        Ok(Self {
            hidden: hidden.transpose()?,
            ..Self::default()
        })
    }
}

/// Is handed every block that is finished.
pub(crate) trait Sink {
    /// `done.blocks` counts this block too, and `done.hidden` is what it puts out.
    fn finished(&mut self, block: &Block, done: &Done) -> Result<()>;
}

/// Prunes the linear layers in the blocks of `model` as planned, and hands them to `sink`. One
/// block is in memory at a time.
///
/// With calibration texts: all statistics of a block come from the block while it is dense, fed
/// with what the already pruned blocks before it put out; then its layers are pruned, and the block
/// runs again for the next one's input. Without them no forward pass is made, and statistics are
/// those in `files`, if there are any.
///
/// # Errors
/// A recipe that needs statistics is given none, the weights or the files cannot be read, the
/// weights cannot be pruned, or what the sink returns.
pub(crate) fn prune_blocks(
    model: &Model,
    plan: &Plan,
    mut done: Done,
    mut files: Option<&mut Files>,
    sink: &mut dyn Sink,
    progress: Progress,
) -> Result<Outcome> {
    let passes = done
        .hidden
        .as_ref()
        .map_or(1, |hidden| 2 * hidden.batches());
    let bar = progress.bar("pruning", passes * (model.blocks() - done.blocks));
    while done.blocks < model.blocks() {
        let index = done.blocks;
        let clock = Instant::now();
        let block = model.block(index)?;
        let stats = match (&done.hidden, &mut files) {
            (Some(hidden), _) => Some(observe(&block, index, plan, hidden, &bar)?),
            (None, Some(files)) => Some(files.block(index, plan)?),
            (None, None) => None,
        };
        if let Some(stats) = &stats {
            done.outcome.inputs.extend(norms_of_block(index, stats));
        }
        done.outcome.calibrate += clock.elapsed();

        let clock = Instant::now();
        let layers = prune_block(&block, index, plan, stats.as_ref())?;
        done.outcome.layers.extend(layers);
        // Gram matrices are large; the forward pass gets their memory.
        drop(stats);
        done.outcome.prune += clock.elapsed();

        let clock = Instant::now();
        done.blocks += 1;
        if let Some(hidden) = &mut done.hidden
            && done.blocks < model.blocks()
        {
            hidden.advance(&block.widened()?, &mut Unobserved, &bar)?;
        }
        done.outcome.calibrate += clock.elapsed();
        sink.finished(&block, &done)?;
    }
    Ok(done.outcome)
}

/// The statistics of a dense block's inputs.
fn observe<'a>(
    block: &Block,
    index: usize,
    plan: &'a Plan,
    hidden: &HiddenStates,
    bar: &ProgressBar,
) -> Result<InputStats<'a>> {
    let needs = |input| plan.needs(index, input);
    let mut stats = InputStats::new(&plan.spec, plan.recipe.needs_gram(), needs);
    if plan.inputs(index).next().is_some() {
        hidden
            .observe(&block.widened()?, &mut stats, bar)
            .with_context(|| format!("calibration failed in block {index}"))?;
    }
    Ok(stats)
}

/// Prunes the layers of a block where they are.
fn prune_block(
    block: &Block,
    index: usize,
    plan: &Plan,
    stats: Option<&InputStats<'_>>,
) -> Result<Vec<(String, LayerReport)>> {
    let layers = plan.block(index).map(|(place, layer, pattern)| {
        let name = layer.full_name(index);
        let stats = stats.and_then(|stats| stats.at(layer.input));
        let stats = stats.map_or(&NoStats as &dyn ActivationStats, |stats| stats);
        let pruner = Pruner::new(plan.recipe.method.metric(), pattern).update(plan.recipe.update);
        let report = matrix::prune_in_place(block.weight(place), &pruner, stats)
            .with_context(|| format!("cannot prune `{name}`"))?;
        Ok((name, report))
    });
    layers.collect()
}
