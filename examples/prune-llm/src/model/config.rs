//! The shape of a model, from `config.json` or made for one.

use super::{Architecture, LinearKind, SUPPORTED};
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::DType;
use serde::Deserialize;
use serde_json::{Value, json};

/// Everything the forward pass and the written `config.json` need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub architecture: Architecture,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<RopeScaling>,
    /// The attention of each block.
    pub attention: Vec<Attention>,
    /// Whether queries, keys and values have biases, and but for Qwen2 the output too.
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
}

/// What the attention of one block may have that of another has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Whether queries and keys are rotated by their positions.
    pub rotary: bool,
    /// How many tokens each token sees, itself the last of them; all before it if `None`.
    pub window: Option<usize>,
}

/// A change of the rotary frequencies, for texts longer than those the model first learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All frequencies divided by one factor.
    Linear {
        factor: f64,
    },
    Llama3(Llama3Scaling),
}

/// Llama 3.1's stretching of the slow rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// `config.json` as written by transformers, the fields that matter here.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the format")]
struct Raw {
    hidden_size: usize,
    intermediate_size: usize,
    vocab_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    /// transformers 5 keeps theta and scaling here.
    rope_parameters: Option<Value>,
    /// For each block, 1 if it has rotary embeddings and 0 if not.
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: Option<usize>,
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

fn default_eps() -> f64 {
    1e-6
}

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Not JSON, a field missing, or a model that this program cannot run, by name.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).context("it is not JSON")?;
        // The architecture comes first: another one may lack the fields asked for below.
        let architecture = architecture(&value)?;
        fill_in(&mut value, architecture.defaults());
        let raw: Raw = serde_json::from_value(value).context("a field is missing or malformed")?;
        if let Some(activation) = raw.hidden_act.as_deref() {
            ensure!(
                activation == "silu",
                "this `{}` has the activation `{activation}`; only `silu` is supported",
                architecture.class()
            );
        }
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let theta = raw
            .rope_parameters
            .as_ref()
            .and_then(|rope| rope.get("rope_theta"))
            .and_then(Value::as_f64)
            .or(raw.rope_theta);
        let mut config = Self {
            architecture,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            vocab_size: raw.vocab_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: match raw.head_dim {
                Some(head_dim) => head_dim,
                None => raw
                    .hidden_size
                    .checked_div(raw.num_attention_heads)
                    .context("`num_attention_heads` is 0")?,
            },
            rms_norm_eps: raw.rms_norm_eps,
            rope_theta: theta.unwrap_or(10_000.0),
            rope_scaling: rope.map(scaling).transpose()?.flatten(),
            attention: Vec::new(),
            attention_bias: match architecture {
                Architecture::Qwen2 => true,
                Architecture::Mistral => false,
                _ => raw.attention_bias,
            },
            mlp_bias: raw.mlp_bias
                && matches!(architecture, Architecture::Llama | Architecture::SmolLm3),
            max_position_embeddings: raw.max_position_embeddings,
            tie_word_embeddings: raw.tie_word_embeddings,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match &raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![*id],
                Some(OneOrMany::Many(ids)) => ids.clone(),
            },
        };
        config.check()?;
        config.attention = (0..config.num_hidden_layers)
            .map(|layer| attention(architecture, &raw, layer))
            .collect::<Result<_>>()?;
        Ok(config)
    }

    /// Whether a linear layer adds a bias.
    #[must_use]
    pub fn has_bias(&self, layer: LinearKind) -> bool {
        match layer {
            LinearKind::Query | LinearKind::Key | LinearKind::Value => self.attention_bias,
            LinearKind::Output => self.attention_bias && self.architecture != Architecture::Qwen2,
            LinearKind::Gate | LinearKind::Up | LinearKind::Down => self.mlp_bias,
        }
    }

    /// Whether the heads of queries and keys are normed before they are rotated.
    #[must_use]
    pub fn has_head_norms(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    /// Refuses sizes no model has, before anything is allocated for them.
    ///
    /// # Errors
    /// Names the field and its value.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            // Products of two sizes are formed further on; none of them may overflow.
            ensure!(
                (1..=1 << 28).contains(&value),
                "`{name}` is {value}, which no model has"
            );
        }
        ensure!(
            self.num_attention_heads
                .is_multiple_of(self.num_key_value_heads),
            "`num_attention_heads` ({}) is not a multiple of `num_key_value_heads` ({})",
            self.num_attention_heads,
            self.num_key_value_heads
        );
        ensure!(
            self.head_dim.is_multiple_of(2),
            "the head dimension is {}, and rotary embeddings need an even one",
            self.head_dim
        );
        ensure!(
            self.num_hidden_layers <= 1 << 12,
            "`num_hidden_layers` is {}, which no model has",
            self.num_hidden_layers
        );
        ensure!(
            self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0,
            "`rms_norm_eps` is {}, which no model has",
            self.rms_norm_eps
        );
        ensure!(
            self.rope_theta.is_finite() && self.rope_theta > 0.0,
            "`rope_theta` is {}, which is not a positive number",
            self.rope_theta
        );
        match self.rope_scaling {
            Some(RopeScaling::Linear { factor }) => {
                ensure!(
                    factor > 0.0 && factor.is_finite(),
                    "the rotary scaling has the factor {factor}, which is not positive"
                );
            }
            Some(RopeScaling::Llama3(scaling)) => ensure!(
                scaling.factor > 0.0 && scaling.low_freq_factor < scaling.high_freq_factor,
                "the rotary scaling {scaling:?} is impossible"
            ),
            None => {}
        }
        Ok(())
    }

    /// The `config.json` of a model that came without one, its matrices being of type `dtype`.
    #[must_use]
    pub fn to_json(&self, dtype: DType) -> Value {
        let mut value = json!({
            "architectures": [self.architecture.class()],
            "model_type": self.architecture.model_type(),
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.map(RopeScaling::to_json),
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_json(),
            "torch_dtype": match dtype {
                DType::F16 => "float16",
                DType::BF16 => "bfloat16",
                _ => "float32",
            },
        });
        match self.architecture {
            Architecture::Mistral => {
                value["sliding_window"] = json!(self.attention.first().and_then(|a| a.window));
            }
            Architecture::SmolLm3 => {
                let rotary = self.attention.iter().map(|a| u8::from(a.rotary));
                value["no_rope_layers"] = rotary.collect();
            }
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => {}
        }
        value
    }

    /// The end-of-text token as transformers writes it: a number, a list or null.
    #[must_use]
    pub fn eos_json(&self) -> Value {
        match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}

impl RopeScaling {
    fn to_json(self) -> Value {
        match self {
            Self::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            Self::Llama3(scaling) => json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            }),
        }
    }
}

/// Adds the fields that are missing; one that is null is there.
fn fill_in(value: &mut Value, defaults: Value) {
    if let (Value::Object(fields), Value::Object(defaults)) = (value, defaults) {
        for (name, default) in defaults {
            fields.entry(name).or_insert(default);
        }
    }
}

fn architecture(value: &Value) -> Result<Architecture> {
    let model_type = value.get("model_type").and_then(Value::as_str);
    let classes: Vec<&str> = value
        .get("architectures")
        .and_then(Value::as_array)
        .map(|classes| classes.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let name = model_type.or(classes.first().copied()).with_context(|| {
        format!("neither `model_type` nor `architectures` says what model this is; {SUPPORTED}")
    })?;
    let unsupported = |name| anyhow!("the architecture `{name}` is not supported; {SUPPORTED}");
    let architecture = Architecture::ALL
        .into_iter()
        .find(|known| name == known.model_type() || name == known.class())
        .ok_or_else(|| unsupported(name))?;
    match classes.iter().find(|&&class| class != architecture.class()) {
        Some(class) => Err(unsupported(class)),
        None => Ok(architecture),
    }
}

fn attention(architecture: Architecture, raw: &Raw, layer: usize) -> Result<Attention> {
    let rotary = is_rotary(architecture, raw, layer)?;
    let window = match architecture {
        Architecture::Llama => None,
        Architecture::Mistral => raw.sliding_window,
        _ => raw.sliding_window.filter(|_| raw.use_sliding_window),
    };
    ensure!(
        window != Some(0),
        "`sliding_window` is 0: no token would see any other"
    );
    let window = match window {
        Some(window) if slides(architecture, raw, layer, rotary)? => Some(window),
        _ => None,
    };
    Ok(Attention { rotary, window })
}

fn is_rotary(architecture: Architecture, raw: &Raw, layer: usize) -> Result<bool> {
    Ok(match (&raw.no_rope_layers, raw.no_rope_layer_interval) {
        _ if architecture != Architecture::SmolLm3 => true,
        (Some(layers), _) => {
            *layers
                .get(layer)
                .with_context(|| format!("`no_rope_layers` has no entry for layer {layer}"))?
                != 0
        }
        (None, Some(interval)) => !(layer + 1).is_multiple_of(interval),
        (None, None) => true,
    })
}

/// Whether the window of a model that has one is that of this layer.
fn slides(architecture: Architecture, raw: &Raw, layer: usize, rotary: bool) -> Result<bool> {
    Ok(match (architecture, &raw.layer_types) {
        (Architecture::Mistral, _) => true,
        (_, Some(types)) => match types.get(layer).map(String::as_str) {
            Some("sliding_attention") => true,
            Some("full_attention") => false,
            Some(other) => bail!("the layer type `{other}` is not supported"),
            None => bail!("`layer_types` has no entry for layer {layer}"),
        },
        (Architecture::SmolLm3, None) => !rotary,
        (_, None) => raw.max_window_layers.is_none_or(|full| layer >= full),
    })
}

/// The rotary scaling, if it asks for any.
fn scaling(rope: &Value) -> Result<Option<RopeScaling>> {
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
