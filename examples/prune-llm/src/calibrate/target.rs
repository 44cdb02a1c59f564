//! What the dense model wants from the layers of a pruned one: products of two streams of hidden
//! states that flow through a block side by side.

use super::{hidden::HiddenStates, inputs::InputStats};
use crate::{
    model::{Block, Flow},
    plan::TargetStrength,
    util::matrix,
};
use anyhow::Result;
use candle_core::{D, DType, Tensor};
use wanda::{CrossProducts, Target};

/// The hidden states of the calibration texts in the pruned model and, for a target, in the dense
/// one.
#[derive(Debug)]
pub struct Streams {
    pub pruned: HiddenStates,
    pub dense: Option<HiddenStates>,
}

/// Products of what is wanted with the input of layers.
#[derive(Debug)]
pub enum TargetProducts {
    /// Of the dense model's inputs.
    Inputs(CrossProducts),
    /// Of the outputs that are wanted, what the hidden states lack included.
    Outputs(CrossProducts),
    /// Of what the hidden states lack alone.
    Differences(CrossProducts),
}

impl TargetProducts {
    /// The target of a layer.
    pub fn target(&self, strength: TargetStrength) -> Target<'_> {
        match self {
            Self::Inputs(products) => Target::inputs(products, strength.outputs),
            Self::Outputs(products) => Target::outputs(products, strength.outputs),
            Self::Differences(products) => {
                Target::default().and_differences(products, strength.hidden)
            }
        }
    }
}

/// Adds what layers read in the pruned model to the statistics, and multiplies it with what the
/// dense model wants from them.
///
/// `dense` is the dense stream before and after this stage, if there is a target. Layers that add
/// to the hidden states should add what the dense ones do, and a part of what the hidden states
/// lack; there a token counts by the inverse mean square of the dense hidden states after the
/// layer, which is what the next norm divides by. Other layers should make of their inputs what
/// they make of the dense model's.
///
/// # Errors
/// What flows is not finite, or there is no memory for the products.
pub fn gather_input(
    input: usize,
    block: &Block,
    stats: &mut InputStats<'_>,
    pruned: &[Flow],
    dense: Option<(&[Flow], &[Flow])>,
    strength: TargetStrength,
) -> Result<Option<TargetProducts>> {
    let Some((before, after)) = dense else {
        for flow in pruned {
            stats.add(input, &flow.input, None)?;
        }
        return Ok(None);
    };
    let Some((layer, spec)) = stats.spec().residual(input) else {
        let features = stats.spec().features(input);
        let mut products = CrossProducts::new(features, features);
        for (flow, dense) in pruned.iter().zip(before) {
            stats.add(input, &flow.input, None)?;
            update(&mut products, &dense.input, &flow.input, None)?;
        }
        return Ok((strength.outputs != 0.0).then_some(TargetProducts::Inputs(products)));
    };
    let (rows, columns) = spec.shape;
    let mut products = CrossProducts::new(rows, columns);
    let bias = block.bias(layer)?;
    let weights = token_weights(after)?;
    for (((flow, before), after), weights) in pruned.iter().zip(before).zip(after).zip(&weights) {
        stats.add(input, &flow.input, Some(weights))?;
        let lacking = (&before.hidden - &flow.hidden)?;
        let wanted = if strength.outputs == 0.0 {
            lacking
        } else {
            // Both parts in one product, the second relative to the strength of the first.
            let mut added = (&after.hidden - &before.hidden)?;
            if let Some(bias) = &bias {
                added = added.broadcast_sub(bias)?;
            }
            (added + (lacking * (strength.hidden / strength.outputs))?)?
        };
        update(&mut products, &wanted, &flow.input, Some(weights))?;
    }
    Ok(Some(match strength.outputs {
        0.0 => TargetProducts::Differences(products),
        _ => TargetProducts::Outputs(products),
    }))
}

fn update(
    products: &mut CrossProducts,
    wanted: &Tensor,
    x: &Tensor,
    token_weights: Option<&[f32]>,
) -> Result<()> {
    matrix::with_rows(&wanted.contiguous()?, |wanted| {
        matrix::with_rows(x, |x| {
            match token_weights {
                Some(weights) => products.update_weighted(&*wanted, &*x, weights)?,
                None => products.update(&*wanted, &*x)?,
            }
            Ok(())
        })
    })
}

/// The inverse mean square of each token's hidden states, relative to the mean of all tokens, batch
/// by batch.
fn token_weights(flows: &[Flow]) -> Result<Vec<Vec<f32>>> {
    let inverse = |flow: &Flow| {
        let squares = flow.hidden.sqr()?.mean(D::Minus1)?.flatten_all()?;
        let squares: Vec<f64> = squares.to_dtype(DType::F64)?.to_vec1()?;
        // A token of nothing but zeros stays so after the norm, and counts like one of tiny values.
        let inverse = squares.iter().map(|&square| 1.0 / square.max(1e-12));
        anyhow::Ok(inverse.collect::<Vec<_>>())
    };
    let weights: Vec<_> = flows.iter().map(inverse).collect::<Result<_>>()?;
    let count: usize = weights.iter().map(Vec::len).sum();
    let mean = weights.iter().flatten().sum::<f64>() / count.max(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "statistics take weights in f32"
    )]
    let relative = |weight: &f64| (weight / mean) as f32;
    let batches = weights.iter();
    Ok(batches
        .map(|weights| weights.iter().map(relative).collect())
        .collect())
}
