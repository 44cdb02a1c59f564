//! What calibration gathers as texts flow through a block.

use crate::{
    model::{BlockSpec, Observer},
    util::matrix,
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use wanda::{ColumnNorms, Gram, LayerStats, ndarray::ArrayRef2};

/// Statistics of what flows into a block's linear layers. Layers that read the same input share
/// them.
#[derive(Debug)]
pub struct InputStats<'a> {
    spec: &'a BlockSpec,
    /// `None` where they are not needed.
    inputs: Vec<Option<LayerStats>>,
}

impl<'a> InputStats<'a> {
    /// Of inputs to come, where they are needed: their Gram matrices, or their norms alone.
    pub fn new(spec: &'a BlockSpec, gram: bool, needs: impl Fn(usize) -> bool) -> Self {
        let empty = |input| match spec.features(input) {
            features if gram => Gram::new(features).into(),
            features => ColumnNorms::new(features).into(),
        };
        let inputs = 0..spec.inputs();
        Self {
            spec,
            inputs: inputs
                .map(|input| needs(input).then(|| empty(input)))
                .collect(),
        }
    }

    /// Statistics of each input that were gathered before.
    pub fn gathered(spec: &'a BlockSpec, inputs: Vec<Option<LayerStats>>) -> Self {
        Self { spec, inputs }
    }

    /// What the block consists of.
    pub fn spec(&self) -> &'a BlockSpec {
        self.spec
    }

    /// Adds a batch of an input, if it is needed, of whose tokens each counts so many times.
    pub fn add(&mut self, input: usize, x: &Tensor, token_weights: Option<&[f32]>) -> Result<()> {
        let Some(Some(stats)) = self.inputs.get_mut(input) else {
            return Ok(());
        };
        // All tokens of the batch in one matrix: a Gram matrix takes one large product far faster
        // than many small ones.
        matrix::with_rows(x, |rows| {
            let rows: &ArrayRef2<f32> = &rows;
            let added = match token_weights {
                Some(weights) => stats.update_weighted(rows, weights),
                None => stats.update(rows),
            };
            added.with_context(|| {
                let readers = self.spec.reader_names(input).join(", ");
                format!("at the input of {readers}")
            })
        })
    }

    /// What the layers that read an input saw, if it is known.
    pub fn at(&self, input: usize) -> Option<&LayerStats> {
        self.inputs.get(input)?.as_ref()
    }

    /// Every input that is known, with the names of the layers that read it.
    pub fn known(&self) -> impl Iterator<Item = (Vec<&'static str>, &LayerStats)> {
        (0..self.inputs.len())
            .filter_map(|input| Some((self.spec.reader_names(input), self.at(input)?)))
    }
}

impl Observer for InputStats<'_> {
    fn input(&mut self, input: usize, x: &Tensor) -> Result<()> {
        self.add(input, x, None)
    }
}
