//! Rotary position embeddings: how a configuration asks for them, and their tables.

use anyhow::{Context, bail, ensure};
use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::f64::consts::TAU;

/// The frequencies that a model rotates with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    pub head_dim: usize,
    pub theta: f64,
    pub scaling: Option<RopeScaling>,
}

/// A change of the rotary frequencies, for texts longer than those the model first learned from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// All frequencies divided by one factor.
    Linear {
        factor: f64,
    },
    Llama3(Llama3Scaling),
}

/// Llama 3.1's stretching of the slow rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

impl RopeConfig {
    /// The base of the frequencies where a model does not state one.
    pub const DEFAULT_THETA: f64 = 10_000.0;

    /// From the fields of a `config.json`.
    ///
    /// # Errors
    /// A kind of scaling that is not supported, or one that lacks a field.
    pub fn from_json(fields: &Value, head_dim: usize) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(rename = "rope_theta")]
            theta: Option<f64>,
            #[serde(rename = "rope_scaling")]
            scaling: Option<Value>,
            /// transformers 5 keeps theta and scaling here.
            #[serde(rename = "rope_parameters")]
            parameters: Option<Value>,
        }
        let fields = Fields::deserialize(fields).context("a field is missing or malformed")?;
        let parameters = fields.parameters.as_ref();
        let theta = parameters.and_then(|rope| rope.get("rope_theta")?.as_f64());
        let scaling = parameters.or(fields.scaling.as_ref());
        Ok(Self {
            head_dim,
            theta: theta.or(fields.theta).unwrap_or(Self::DEFAULT_THETA),
            scaling: scaling.map(scaling_from_json).transpose()?.flatten(),
        })
    }

    /// Refuses what no model has.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.head_dim.is_multiple_of(2),
            "the head dimension is {}, and rotary embeddings need an even one",
            self.head_dim
        );
        ensure!(
            self.theta.is_finite() && self.theta > 0.0,
            "`rope_theta` is {}, which is not a positive number",
            self.theta
        );
        match self.scaling {
            Some(RopeScaling::Linear { factor }) => ensure!(
                factor > 0.0 && factor.is_finite(),
                "the rotary scaling has the factor {factor}, which is not positive"
            ),
            Some(RopeScaling::Llama3(scaling)) => ensure!(
                scaling.factor > 0.0 && scaling.low_freq_factor < scaling.high_freq_factor,
                "the rotary scaling {scaling:?} is impossible"
            ),
            None => {}
        }
        Ok(())
    }

    /// One angular frequency for every pair of features.
    pub fn frequencies(&self) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "the tables are f32")]
        (0..self.head_dim / 2)
            .map(|pair| {
                let exponent = 2.0 * pair as f64 / self.head_dim as f64;
                let frequency = self.theta.powf(-exponent);
                (frequency / self.divisor(frequency)) as f32
            })
            .collect()
    }

    /// By how much a frequency is slowed down.
    pub fn divisor(&self, frequency: f64) -> f64 {
        match self.scaling {
            None => 1.0,
            Some(RopeScaling::Linear { factor }) => factor,
            Some(RopeScaling::Llama3(scaling)) => llama3_divisor(scaling, frequency),
        }
    }
}

/// The rotary scaling, if it asks for any.
fn scaling_from_json(rope: &Value) -> anyhow::Result<Option<RopeScaling>> {
    if let Some(part) = rope.get("partial_rotary_factor").and_then(Value::as_f64) {
        ensure!(
            part >= 1.0,
            "rotary embeddings of a part of each head (`partial_rotary_factor`: {part}) are not \
             supported"
        );
    }
    let kind = rope
        .get("rope_type")
        .or_else(|| rope.get("type"))
        .and_then(Value::as_str)
        .unwrap_or("default");
    match kind {
        "default" => Ok(None),
        "linear" => {
            let factor = rope.get("factor").and_then(Value::as_f64);
            let factor = factor.context("the `linear` rotary scaling lacks its `factor`")?;
            Ok(Some(RopeScaling::Linear { factor }))
        }
        "llama3" => Llama3Scaling::deserialize(rope)
            .map(|scaling| Some(RopeScaling::Llama3(scaling)))
            .context("the `llama3` rotary scaling lacks a field"),
        other => {
            bail!("the rotary scaling `{other}` is not supported, only `llama3` and `linear` are")
        }
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

/// Cosines and sines, `[positions, head_dim / 2]`, for the rotate-half convention of Hugging Face.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for the first `positions` positions.
    pub(crate) fn new(config: &RopeConfig, positions: usize) -> Result<Self> {
        let frequencies = config.frequencies();
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
    pub(crate) fn rotate(&self, x: &Tensor, position: usize) -> Result<Tensor> {
        let tokens = x.dim(1)?;
        let cos = self.cos.narrow(0, position, tokens)?;
        let sin = self.sin.narrow(0, position, tokens)?;
        candle_nn::rotary_emb::rope_thd(x, &cos, &sin)
    }
}
