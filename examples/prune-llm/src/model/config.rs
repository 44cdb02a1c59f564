//! The shape of a Llama-architecture model, from `config.json` or made for one.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// What this program can run, for the messages that say what it cannot.
pub const SUPPORTED: &str = "prune-llm supports the Llama architecture (model type `llama`, class \
     `LlamaForCausalLM`: Llama 1 to 3, SmolLM and SmolLM2, TinyLlama and the like)";

/// Everything the forward pass and the written `config.json` need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3Scaling>,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
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
struct Raw {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
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
    #[serde(default = "default_positions")]
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

fn default_positions() -> usize {
    2048
}

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Not JSON, a field missing, or a model that this program cannot run, by name.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("it is not JSON")?;
        // The architecture comes first: another one may lack the fields asked for below.
        check_architecture(&value)?;
        let raw: Raw = serde_json::from_value(value).context("a field is missing or malformed")?;
        check_variant(&raw)?;
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let theta = raw
            .rope_parameters
            .as_ref()
            .and_then(|rope| rope.get("rope_theta"))
            .and_then(Value::as_f64)
            .or(raw.rope_theta);
        let config = Self {
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
            max_position_embeddings: raw.max_position_embeddings,
            tie_word_embeddings: raw.tie_word_embeddings,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
        };
        config.check()?;
        Ok(config)
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
            self.rope_theta.is_finite() && self.rope_theta > 0.0,
            "`rope_theta` is {}, which is not a positive number",
            self.rope_theta
        );
        Ok(())
    }

    /// The `config.json` for weights kept in f32.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
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
            "rope_scaling": self.rope_scaling.map(|scaling| json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            })),
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_json(),
            "torch_dtype": "float32",
        })
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

fn check_architecture(value: &Value) -> Result<()> {
    let model_type = value.get("model_type").and_then(Value::as_str);
    let classes: Vec<&str> = value
        .get("architectures")
        .and_then(Value::as_array)
        .map(|classes| classes.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let foreign_class = classes.iter().find(|&&class| class != "LlamaForCausalLM");
    match (model_type, foreign_class) {
        (Some(name), _) if name != "llama" => {
            bail!("the architecture `{name}` is not supported; {SUPPORTED}")
        }
        (_, Some(class)) => bail!("the architecture `{class}` is not supported; {SUPPORTED}"),
        (None, None) if classes.is_empty() => {
            bail!("neither `model_type` nor `architectures` says what model this is; {SUPPORTED}")
        }
        _ => Ok(()),
    }
}

fn check_variant(raw: &Raw) -> Result<()> {
    let name = raw
        .architectures
        .as_ref()
        .and_then(|classes| classes.first())
        .or(raw.model_type.as_ref())
        .map_or("llama", String::as_str);
    for (field, set) in [
        ("attention_bias", raw.attention_bias),
        ("mlp_bias", raw.mlp_bias),
    ] {
        ensure!(
            !set,
            "this `{name}` has `{field}`: true, and linear layers with a bias are not supported; \
             {SUPPORTED}, without biases"
        );
    }
    if let Some(activation) = raw.hidden_act.as_deref() {
        ensure!(
            activation == "silu",
            "this `{name}` has the activation `{activation}`; only `silu` is supported"
        );
    }
    Ok(())
}

/// The rotary scaling, if it asks for any.
fn scaling(rope: &Value) -> Result<Option<Llama3Scaling>> {
    let kind = rope
        .get("rope_type")
        .or_else(|| rope.get("type"))
        .and_then(Value::as_str)
        .unwrap_or("default");
    match kind {
        "default" => Ok(None),
        "llama3" => Llama3Scaling::deserialize(rope)
            .map(Some)
            .context("the `llama3` rotary scaling lacks a field"),
        other => bail!("the rotary scaling `{other}` is not supported, only `llama3` is"),
    }
}
