//! How much the outputs of a layer matter beside each other.

use crate::model::{Block, Flow, ForwardPass};
use anyhow::Result;
use candle_core::Tensor;

/// Of so many tokens one is looked at. Odd, so that all positions of texts of a usual length have
/// their turn: the first ones are like no others.
const TOKENS_PER_SAMPLE: usize = 7;

/// Keeps outputs of no effect from being worth nothing, relative to the mean effect.
const FLOOR: f64 = 1e-3;

/// The numbers to multiply the scores of each layer's rows by, with the place of the layer: the
/// roots of the effects relative to their mean over all layers that read the input.
///
/// ```text
/// r = √(effect / mean effect + 10⁻³)
/// ```
///
/// # Errors
/// The block cannot be run on the inputs.
pub fn output_weights(
    input: usize,
    block: &Block,
    flows: &[Flow],
    forward: &dyn ForwardPass,
) -> Result<Vec<(usize, Vec<f64>)>> {
    let samples = flows.iter().map(|flow| {
        let (tokens, step) = (flow.input.flatten_to(1)?, TOKENS_PER_SAMPLE);
        let count = tokens.dim(0)?.div_ceil(step);
        let places: Vec<u32> = (0..).step_by(step).take(count).collect();
        tokens.index_select(&Tensor::new(places, tokens.device())?, 0)
    });
    let samples: Vec<_> = samples.collect::<candle_core::Result<_>>()?;
    let sample = Tensor::cat(&samples, 0)?.unsqueeze(0)?;
    let effects = block.output_effects(input, &sample, forward)?;
    let all = || effects.iter().flat_map(|(_, effects)| effects);
    let mean = all().sum::<f64>() / all().count().max(1) as f64;
    if !(mean.is_finite() && mean > 0.0) {
        // Nothing has any effect, or there is nothing known.
        return Ok(Vec::new());
    }
    let root = |effect: &f64| (effect / mean + FLOOR).sqrt();
    let weights = effects.iter();
    Ok(weights
        .map(|(layer, effects)| (*layer, effects.iter().map(root).collect()))
        .collect())
}
