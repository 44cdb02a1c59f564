//! Calibrating and pruning, block by block.

use crate::{
    calibrate::{
        Files, HiddenStates, InputNorms, InputStats, Sequences, Streams, TargetProducts,
        gather_input, norms_of_block, output_weights,
    },
    model::{Block, Flow, ForwardPass, Model, Unobserved},
    plan::{Order, Plan, Recipe},
    util::{Progress, matrix},
};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};
use wanda::{
    ActivationStats, ImportanceMetric, LayerReport, NoStats, Pattern, Pruner, Retarget,
    WeightUpdate,
};

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
    pub streams: Option<Streams>,
    /// What pruning them gave.
    pub outcome: Outcome,
}

impl Done {
    /// Nothing yet.
    pub(crate) fn nothing(
        model: &Model,
        plan: &Plan,
        calibration: Option<&Sequences>,
    ) -> Result<Self> {
        let embed = |texts| HiddenStates::embed(model, texts, model.dtype()?);
        let streams = calibration.map(|texts| {
            let with_dense = plan.recipe.target.is_on();
            anyhow::Ok(Streams {
                pruned: embed(texts)?,
                dense: with_dense.then(|| embed(texts)).transpose()?,
            })
        });
        Ok(Self {
            streams: streams.transpose()?,
            ..Self::default()
        })
    }
}

/// Is handed every block that is finished.
pub(crate) trait Sink {
    /// `done.blocks` counts this block too, and `done.streams` are what it puts out.
    fn finished(&mut self, block: &Block, done: &Done) -> Result<()>;
}

/// Prunes the linear layers in the blocks of `model` as planned, and hands them to `sink`. One
/// block is in memory at a time.
///
/// With calibration texts, statistics are those of the texts in the model as far as it is pruned:
/// [in block order](Order::Block) all of a block come from the block while it is dense, fed with
/// what the already pruned blocks before it put out; then its layers are pruned, and the block runs
/// again for the next one's input. [In sequential order](Order::Sequential) the layers that read one
/// input are pruned before the next input is computed. With a target the dense model runs beside.
///
/// Without texts no forward pass is made, and statistics are those in `files`, if there are any.
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
        .streams
        .as_ref()
        .map_or(1, |streams| passes(plan, streams));
    let bar = progress.bar("pruning", passes * (model.blocks() - done.blocks));
    while done.blocks < model.blocks() {
        let index = done.blocks;
        let clock = Instant::now();
        let block = model.block(index)?;
        done.blocks += 1;
        let mut work = BlockWork {
            block: &block,
            index,
            plan,
            last: done.blocks == model.blocks(),
            bar: &bar,
            outcome: &mut done.outcome,
        };
        work.outcome.calibrate += clock.elapsed();
        match (&mut done.streams, &mut files) {
            (Some(streams), _) if is_staged(plan) => work
                .prune_by_stages(streams)
                .with_context(|| format!("pruning failed in block {index}"))?,
            (Some(streams), _) => work.prune_whole(&mut streams.pruned)?,
            (None, Some(files)) => {
                let clock = Instant::now();
                let stats = BlockStats::of(files.block(index, plan)?);
                work.outcome.calibrate += clock.elapsed();
                work.prune(Some(stats))?;
            }
            (None, None) => work.prune(None)?,
        }
        sink.finished(&block, &done)?;
    }
    Ok(done.outcome)
}

/// Whether blocks are run stage by stage.
fn is_staged(plan: &Plan) -> bool {
    plan.recipe.order == Order::Sequential || plan.recipe.needs_streams().is_some()
}

/// Steps of the progress bar a block.
fn passes(plan: &Plan, streams: &Streams) -> usize {
    let stages = if is_staged(plan) {
        let pruned_again = plan.recipe.order == Order::Block;
        let streams = 1 + usize::from(streams.dense.is_some());
        streams * plan.spec.inputs() + usize::from(pruned_again)
    } else {
        2
    };
    stages * streams.pruned.batches()
}

/// What is known of the inputs of a block's layers.
struct BlockStats<'a> {
    inputs: InputStats<'a>,
    /// What is wanted from the layers that read each input.
    targets: Vec<Option<TargetProducts>>,
    /// How much the outputs of a layer matter, by its place.
    output_weights: Vec<(usize, Vec<f64>)>,
}

impl<'a> BlockStats<'a> {
    fn of(inputs: InputStats<'a>) -> Self {
        let targets = inputs.spec().inputs();
        Self {
            inputs,
            targets: (0..targets).map(|_| None).collect(),
            output_weights: Vec::new(),
        }
    }
}

/// One block, on its way from dense to pruned.
struct BlockWork<'a> {
    block: &'a Block,
    index: usize,
    plan: &'a Plan,
    /// Whether nothing follows that reads what the block puts out.
    last: bool,
    bar: &'a ProgressBar,
    outcome: &'a mut Outcome,
}

impl<'a> BlockWork<'a> {
    /// Statistics from the dense block, then all layers, then the block again.
    fn prune_whole(&mut self, hidden: &mut HiddenStates) -> Result<()> {
        let clock = Instant::now();
        let mut stats = self.no_stats(None);
        if self.plan.inputs(self.index).next().is_some() {
            hidden
                .observe(&self.block.widened()?, &mut stats.inputs, self.bar)
                .with_context(|| format!("calibration failed in block {}", self.index))?;
        }
        self.outcome.calibrate += clock.elapsed();
        self.prune(Some(stats))?;
        self.advance(hidden)
    }

    /// Statistics of one input after the other; in sequential order its layers are pruned before
    /// the next.
    fn prune_by_stages(&mut self, streams: &mut Streams) -> Result<()> {
        let sequential = self.plan.recipe.order == Order::Sequential;
        let stages = self.plan.spec.inputs();
        let clock = Instant::now();
        let block = self.block.widened()?;
        let mut pruned = streams.pruned.enter(&block)?;
        let dense = streams.dense.as_ref();
        let mut dense = dense.map(|hidden| hidden.enter(&block)).transpose()?;
        let mut all = (!sequential).then(|| self.no_stats(None));
        self.outcome.calibrate += clock.elapsed();
        for stage in 0..stages {
            let clock = Instant::now();
            // Weights in f32 are pruned where they are: the dense stream goes first.
            let before = dense.clone();
            if let (Some(flows), Some(hidden)) = (&mut dense, &streams.dense) {
                hidden.stage(stage, &block, flows, self.bar)?;
            }
            let dense_stage = before.as_deref().zip(dense.as_deref());
            let mut of_stage = sequential.then(|| self.no_stats(Some(stage)));
            if let Some(stats) = of_stage.as_mut().or(all.as_mut())
                && self.plan.needs(self.index, stage)
            {
                let forward = streams.pruned.forward();
                self.gather(stage, &block, stats, &pruned, dense_stage, forward)?;
            }
            drop(before);
            self.outcome.calibrate += clock.elapsed();
            if let Some(stats) = of_stage {
                self.prune(Some(stats))?;
            }
            let clock = Instant::now();
            // Nobody reads what the dense block makes of its last input, nor the last block's.
            let wanted = stage + 1 < stages || sequential && !self.last;
            if wanted {
                let block = if sequential {
                    &self.block.widened()?
                } else {
                    &block
                };
                streams.pruned.stage(stage, block, &mut pruned, self.bar)?;
            }
            self.outcome.calibrate += clock.elapsed();
        }
        if let (Some(flows), Some(hidden)) = (dense, &mut streams.dense) {
            hidden.leave(flows)?;
        }
        if let Some(stats) = all {
            drop(pruned);
            self.prune(Some(stats))?;
            self.advance(&mut streams.pruned)
        } else {
            streams.pruned.leave(pruned)
        }
    }

    /// Statistics to come, of one input or of all, where a layer to prune reads it.
    fn no_stats(&self, only: Option<usize>) -> BlockStats<'a> {
        let needs =
            |input| only.is_none_or(|only| only == input) && self.plan.needs(self.index, input);
        let needs_gram = self.plan.recipe.needs_gram();
        BlockStats::of(InputStats::new(&self.plan.spec, needs_gram, needs))
    }

    /// All that pruning the layers that read an input looks at.
    fn gather(
        &self,
        input: usize,
        block: &Block,
        stats: &mut BlockStats<'_>,
        pruned: &[Flow],
        dense: Option<(&[Flow], &[Flow])>,
        forward: &dyn ForwardPass,
    ) -> Result<()> {
        let recipe = &self.plan.recipe;
        let inputs = &mut stats.inputs;
        stats.targets[input] = gather_input(input, block, inputs, pruned, dense, recipe.target)?;
        if recipe.output_weights {
            let weights = output_weights(input, block, pruned, forward)?;
            stats.output_weights.extend(weights);
        }
        Ok(())
    }

    /// Prunes layers where they are: those whose input there are statistics of, or all without any
    /// statistics.
    fn prune(&mut self, stats: Option<BlockStats<'_>>) -> Result<()> {
        if let Some(stats) = &stats {
            let norms = norms_of_block(self.index, &stats.inputs);
            self.outcome.inputs.extend(norms);
        }
        let clock = Instant::now();
        for (place, layer, pattern) in self.plan.block(self.index) {
            let known = stats.as_ref();
            let inputs = known.map(|stats| stats.inputs.at(layer.input));
            let inputs: &dyn ActivationStats = match inputs {
                Some(None) => continue,
                Some(Some(inputs)) => inputs,
                None => &NoStats,
            };
            let name = layer.full_name(self.index);
            let target = known.and_then(|stats| stats.targets[layer.input].as_ref());
            let weights = known.map_or(&[][..], |stats| &stats.output_weights[..]);
            let weights = weights.iter().find(|(of, _)| *of == place);
            let weights = weights.map(|(_, weights)| weights.as_slice());
            let pruner = pruner(&self.plan.recipe, pattern, target, weights);
            let report = matrix::prune_in_place(self.block.weight(place), &pruner, inputs)
                .with_context(|| format!("cannot prune `{name}`"))?;
            self.outcome.layers.push((name, report));
        }
        // Gram matrices are large; the forward pass gets their memory.
        drop(stats);
        self.outcome.prune += clock.elapsed();
        Ok(())
    }

    /// Runs the pruned block for the next one.
    fn advance(&mut self, hidden: &mut HiddenStates) -> Result<()> {
        let clock = Instant::now();
        if !self.last {
            hidden.advance(&self.block.widened()?, &mut Unobserved, self.bar)?;
        }
        self.outcome.calibrate += clock.elapsed();
        Ok(())
    }
}

/// What prunes a layer.
fn pruner<'a>(
    recipe: &Recipe,
    pattern: Pattern,
    target: Option<&'a TargetProducts>,
    output_weights: Option<&[f64]>,
) -> Pruner<Box<dyn ImportanceMetric>, Pattern, Box<dyn WeightUpdate + 'a>> {
    let update = recipe.update.with(recipe.damping.0);
    let update: Box<dyn WeightUpdate + 'a> = match target {
        None => update,
        Some(products) => {
            let retarget = Retarget::to(products.target(recipe.target));
            Box::new(retarget.damping(recipe.damping.0).then(update))
        }
    };
    let pruner = Pruner::new(recipe.metric(), pattern).update(update);
    match output_weights {
        Some(weights) => pruner.output_weights(weights.to_vec()),
        None => pruner,
    }
}
