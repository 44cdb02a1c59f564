//! One transformer block: its weights, and a batch on its way through it.

use super::{
    compute::{KvCache, linear},
    files::{TensorSource, load},
    spec::{BlockSpec, bias_name, tensor_name},
};
use anyhow::{Error, Result};
use candle_core::{DType, Tensor};
use std::fmt;

/// How the blocks of a family compute, prepared for texts of some length.
pub trait ForwardPass: fmt::Debug {
    /// The output of `pass`'s block for `x`, both `[sequences, tokens, hidden]` in f32. Before
    /// the layers that read an input run, it goes to [`Pass::observe`].
    fn block(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor>;
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
        forward.block(x, &mut self.pass(observer))
    }

    /// Runs the block on the tokens that follow those in the cache.
    pub fn extend(
        &self,
        x: &Tensor,
        forward: &dyn ForwardPass,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let mut observer = Unobserved;
        let mut pass = self.pass(&mut observer);
        pass.cache = Some(cache);
        forward.block(x, &mut pass)
    }

    /// Shows `observer` the same as [`forward`](Self::forward), without the output of the last
    /// layers, which nothing in the block reads.
    pub fn observe(
        &self,
        x: &Tensor,
        forward: &dyn ForwardPass,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut pass = self.pass(observer);
        pass.end = Some(self.inputs - 1);
        match forward.block(x, &mut pass) {
            Err(error) if error.is::<Ended>() => Ok(()),
            result => result.map(drop),
        }
    }

    fn pass<'a>(&'a self, observer: &'a mut dyn Observer) -> Pass<'a> {
        Pass {
            block: self,
            cache: None,
            observer,
            end: None,
        }
    }
}

/// A batch on its way through a block.
#[derive(Debug)]
pub struct Pass<'a> {
    block: &'a Block,
    cache: Option<&'a mut KvCache>,
    observer: &'a mut dyn Observer,
    /// The input after which nothing more is wanted.
    end: Option<usize>,
}

/// Ends a pass in which all that was wanted has been observed: `?` takes it out of the family's
/// code, which does not have to know.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pass has ended")
    }
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

    /// Shows what the layers that read `input` are about to read.
    pub(super) fn observe(&mut self, input: usize, x: &Tensor) -> Result<()> {
        self.observer.input(input, x)?;
        if self.end == Some(input) {
            return Err(Error::msg(Ended));
        }
        Ok(())
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
