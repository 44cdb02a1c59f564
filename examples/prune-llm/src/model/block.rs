//! One transformer block: its weights, and a batch on its way through it.

use super::{
    compute::{KvCache, linear},
    files::{TensorSource, load},
    spec::{BlockSpec, bias_name, tensor_name},
};
use anyhow::Result;
use candle_core::{DType, Tensor};
use std::fmt;

/// How the blocks of a family compute, prepared for texts of some length.
///
/// A block is a sequence of stages, one for each of the [inputs](super::LayerSpec::input) that its
/// layers read.
pub trait ForwardPass: fmt::Debug {
    /// What comes before the first stage, for hidden states `[sequences, tokens, hidden]` in f32.
    fn enter(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Flow>;

    /// Runs the layers that read this input, and all that follows up to the input of the next
    /// stage.
    fn stage(&self, input: usize, flow: &Flow, pass: &mut Pass<'_>) -> Result<Flow>;

    /// How much the outputs of layers that read this input matter, as far as the family knows: by
    /// layer, the mean square change further on for a change of each output. `x` is some tokens of
    /// that input, `[1, tokens, features]`.
    fn output_effects(
        &self,
        input: usize,
        x: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Vec<(usize, Vec<f64>)>>;
}

/// A batch between two stages of a block, contiguous f32 `[sequences, tokens, features]`.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The hidden states as far as layers have added to them: the residual stream.
    pub hidden: Tensor,
    /// What the layers of the next stage read; the hidden states after the last stage.
    pub input: Tensor,
}

/// Receives the input of every linear layer as a batch flows through a block.
pub trait Observer: fmt::Debug {
    /// The layers of the block's [`readers`](BlockSpec::readers) of `input` are about to read `x`,
    /// contiguous f32 `[sequences, tokens, features]`.
    fn input(&mut self, input: usize, x: &Tensor) -> Result<()>;
}

/// Observes nothing.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn input(&mut self, _: usize, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// A block's weights in the type they are stored in.
#[derive(Debug, Clone)]
pub struct Block {
    index: usize,
    layers: Vec<Linear>,
    norms: Vec<Tensor>,
    inputs: usize,
}

#[derive(Debug, Clone)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Block {
    pub(super) fn load(
        index: usize,
        spec: &BlockSpec,
        source: &mut dyn TensorSource,
    ) -> Result<Self> {
        let layers = spec.layers.iter().map(|layer| {
            let (outputs, _) = layer.shape;
            let weight = load(source, &layer.weight_name(index), layer.shape)?;
            let bias = layer.bias.then(|| bias_name(index, layer));
            let bias = bias.map(|name| load(source, &name, outputs)).transpose()?;
            anyhow::Ok(Linear { weight, bias })
        });
        let layers = layers.collect::<Result<_>>()?;
        let norms = spec.norms.iter().map(|norm| {
            let name = tensor_name(index, norm.name, "weight");
            load(source, &name, norm.features)
        });
        Ok(Self {
            index,
            layers,
            norms: norms.collect::<Result<_>>()?,
            inputs: spec.inputs(),
        })
    }

    /// A linear layer's weights, `[outputs, inputs]`, by its place in the list of layers.
    pub fn weight(&self, layer: usize) -> &Tensor {
        &self.layers[layer].weight
    }

    /// The block to compute with: in f32. Weights stored in f32 are shared, not copied.
    pub fn widened(&self) -> Result<Self> {
        let mut block = self.clone();
        let layers = block.layers.iter_mut();
        for tensor in layers
            .flat_map(|layer| [&mut layer.weight].into_iter().chain(&mut layer.bias))
            .chain(&mut block.norms)
        {
            *tensor = tensor.to_dtype(DType::F32)?;
        }
        Ok(block)
    }

    /// Runs the block on `[sequences, tokens, hidden]` and shows `observer` the input of every
    /// linear layer.
    pub fn forward(
        &self,
        x: &Tensor,
        forward: &dyn ForwardPass,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let mut pass = self.pass(None);
        let mut flow = forward.enter(x, &mut pass)?;
        for input in 0..self.inputs {
            observer.input(input, &flow.input)?;
            flow = forward.stage(input, &flow, &mut pass)?;
        }
        Ok(flow.hidden)
    }

    /// Runs the block on the tokens that follow those in the cache.
    pub fn extend(
        &self,
        x: &Tensor,
        forward: &dyn ForwardPass,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let mut pass = self.pass(Some(cache));
        let mut flow = forward.enter(x, &mut pass)?;
        for input in 0..self.inputs {
            flow = forward.stage(input, &flow, &mut pass)?;
        }
        Ok(flow.hidden)
    }

    /// Shows `observer` the same as [`forward`](Self::forward), without the output of the last
    /// layers, which nothing in the block reads.
    pub fn observe(
        &self,
        x: &Tensor,
        forward: &dyn ForwardPass,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut pass = self.pass(None);
        let mut flow = forward.enter(x, &mut pass)?;
        for input in 0..self.inputs {
            observer.input(input, &flow.input)?;
            if input + 1 < self.inputs {
                flow = forward.stage(input, &flow, &mut pass)?;
            }
        }
        Ok(())
    }

    /// Hidden states before the first stage.
    pub fn enter(&self, x: &Tensor, forward: &dyn ForwardPass) -> Result<Flow> {
        forward.enter(x, &mut self.pass(None))
    }

    /// Runs one stage.
    pub fn stage(&self, input: usize, flow: &Flow, forward: &dyn ForwardPass) -> Result<Flow> {
        forward.stage(input, flow, &mut self.pass(None))
    }

    /// How much the outputs of layers matter, see [`ForwardPass::output_effects`].
    pub fn output_effects(
        &self,
        input: usize,
        x: &Tensor,
        forward: &dyn ForwardPass,
    ) -> Result<Vec<(usize, Vec<f64>)>> {
        forward.output_effects(input, x, &self.pass(None))
    }

    /// A linear layer's bias in f32, if it has one.
    pub fn bias(&self, layer: usize) -> Result<Option<Tensor>> {
        let bias = self.layers[layer].bias.as_ref();
        Ok(bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?)
    }

    fn pass<'a>(&'a self, cache: Option<&'a mut KvCache>) -> Pass<'a> {
        Pass { block: self, cache }
    }
}

/// A batch on its way through a block.
#[derive(Debug)]
pub struct Pass<'a> {
    block: &'a Block,
    cache: Option<&'a mut KvCache>,
}

impl Pass<'_> {
    /// The index of the block in the model.
    pub(super) fn index(&self) -> usize {
        self.block.index
    }

    /// The weights of a norm, by its place in the list of norms.
    pub(super) fn norm(&self, norm: usize) -> &Tensor {
        &self.block.norms[norm]
    }

    /// A linear layer's weights, by its place in the list of layers.
    pub(super) fn weight(&self, layer: usize) -> &Tensor {
        self.block.weight(layer)
    }

    /// The output of a linear layer, by its place in the list of layers.
    pub(super) fn linear(&self, layer: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let layer = &self.block.layers[layer];
        let output = linear(x, &layer.weight)?;
        match &layer.bias {
            Some(bias) => output.broadcast_add(bias),
            None => Ok(output),
        }
    }

    /// The position of the first token of the batch.
    pub(super) fn position(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.position())
    }

    /// These keys and values after those of the tokens before, where there is a cache.
    pub(super) fn with_cached(
        &mut self,
        keys: Tensor,
        values: Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        match &mut self.cache {
            Some(cache) => cache.append(&keys, &values),
            None => Ok((keys, values)),
        }
    }
}
