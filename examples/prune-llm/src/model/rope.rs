//! Rotary position embeddings: the tables of cosines and sines.

use super::{Config, Llama3Scaling, RopeScaling};
use candle_core::{Device, Result, Tensor};
use std::f64::consts::TAU;

/// Cosines and sines, `[positions, head_dim / 2]`, for the rotate-half convention of Hugging Face.
#[derive(Debug, Clone)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for the first `positions` positions.
    ///
    /// # Errors
    /// When candle cannot build a tensor.
    pub fn new(config: &Config, positions: usize) -> Result<Self> {
        let frequencies = frequencies(config);
        // Rounded to f32 where the reference implementations do, so that far positions agree too.
        let angles: Vec<f32> = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (positions, frequencies.len()), &Device::Cpu)?;
        Ok(Self {
            cos: angles.cos()?,
            sin: angles.sin()?,
        })
    }

    /// Rotates `[sequences, tokens, heads, head_dim]`, the first token being at `position`.
    ///
    /// # Errors
    /// When a position lies beyond the tables.
    pub fn rotate(&self, x: &Tensor, position: usize) -> Result<Tensor> {
        let tokens = x.dim(1)?;
        let cos = self.cos.narrow(0, position, tokens)?;
        let sin = self.sin.narrow(0, position, tokens)?;
        candle_nn::rotary_emb::rope_thd(x, &cos, &sin)
    }
}

/// One angular frequency for every pair of features.
pub(super) fn frequencies(config: &Config) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the tables are f32")]
    (0..config.head_dim / 2)
        .map(|pair| {
            let exponent = 2.0 * pair as f64 / config.head_dim as f64;
            let frequency = config.rope_theta.powf(-exponent);
            (frequency / divisor(config, frequency)) as f32
        })
        .collect()
}

/// By how much a frequency is slowed down.
pub(super) fn divisor(config: &Config, frequency: f64) -> f64 {
    match config.rope_scaling {
        None => 1.0,
        Some(RopeScaling::Linear { factor }) => factor,
        Some(RopeScaling::Llama3(scaling)) => llama3_divisor(scaling, frequency),
    }
}

/// Llama 3.1 slows short waves not at all, waves longer than the original context by the whole
/// factor, and those in between by something in between.
fn llama3_divisor(scaling: Llama3Scaling, frequency: f64) -> f64 {
    let waves = scaling.original_max_position_embeddings as f64 * frequency / TAU;
    let smooth =
        (waves - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    let kept = smooth.clamp(0.0, 1.0);
    1.0 / (kept + (1.0 - kept) / scaling.factor)
}
