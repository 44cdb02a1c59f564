//! Calibrating and pruning, block by block.

use crate::{
    matrix,
    model::{Model, Observer, Tap},
    progress::Progress,
    text::Sequences,
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use std::time::{Duration, Instant};
use wanda::{
    ActivationStats, ColumnNorms, ImportanceMetric, LayerReport, NoStats, Pattern,
    ndarray::ArrayRef2,
};

/// What pruning a model gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every pruned layer, in the order of the model.
    pub layers: Vec<(String, LayerReport)>,
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

/// Prunes all linear layers in the blocks of `model`.
///
/// With calibration sequences: all statistics of a block come from the block while it is dense,
/// fed with what the already pruned blocks before it put out; then all of its layers are pruned,
/// and the block runs again for the next one's input. Without them no forward pass is made.
///
/// # Errors
/// A metric that needs statistics is given none, or the weights cannot be pruned.
pub fn prune(
    model: &mut Model,
    metric: &dyn ImportanceMetric,
    pattern: Pattern,
    calibration: Option<&Sequences>,
    progress: Progress,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let blocks = model.blocks().len();
    let mut hidden = match calibration {
        Some(sequences) => Some((model.rope(sequences.length())?, sequences.embed(model)?)),
        None => None,
    };
    let passes = hidden.as_ref().map_or(1, |(_, batches)| 2 * batches.len());
    let bar = progress.bar("pruning", passes * blocks);
    for (index, block) in model.blocks().iter().enumerate() {
        let start = Instant::now();
        let stats = match &hidden {
            Some((rope, batches)) => {
                let dense = block.widened()?;
                let mut norms = InputNorms::new(model);
                for x in batches {
                    dense
                        .observe(x, rope, &mut norms)
                        .with_context(|| format!("calibration failed in block {index}"))?;
                    bar.inc(1);
                }
                Some(norms)
            }
            None => None,
        };
        outcome.calibrate += start.elapsed();

        let start = Instant::now();
        for tap in Tap::ALL {
            let stats = stats
                .as_ref()
                .map_or(&NoStats as &dyn ActivationStats, |norms| norms.at(tap));
            for &layer in tap.layers() {
                let name = format!("model.layers.{index}.{}", layer.module());
                let report = matrix::prune_in_place(block.linear(layer), metric, pattern, stats)
                    .with_context(|| format!("cannot prune `{name}`"))?;
                outcome.layers.push((name, report));
            }
        }
        outcome.prune += start.elapsed();

        let start = Instant::now();
        if let Some((rope, batches)) = &mut hidden
            && index + 1 < blocks
        {
            let pruned = block.widened()?;
            for x in batches {
                *x = pruned.forward(x, rope)?;
                bar.inc(1);
            }
        }
        outcome.calibrate += start.elapsed();
    }
    Ok(outcome)
}

/// The norms of everything that flows into a block's linear layers.
struct InputNorms {
    taps: [ColumnNorms; Tap::ALL.len()],
}

impl InputNorms {
    fn new(model: &Model) -> Self {
        Self {
            taps: Tap::ALL.map(|tap| ColumnNorms::new(tap.features(&model.config))),
        }
    }

    fn at(&self, tap: Tap) -> &ColumnNorms {
        &self.taps[tap as usize]
    }
}

impl Observer for InputNorms {
    fn input(&mut self, tap: Tap, input: &Tensor) -> Result<()> {
        let norms = &mut self.taps[tap as usize];
        matrix::with_rows(input, |rows| {
            let rows: &ArrayRef2<f32> = &rows;
            norms
                .update(rows)
                .with_context(|| format!("at the input of {}", tap.readers()))
        })
    }
}
