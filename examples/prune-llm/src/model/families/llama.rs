//! Llama and its close relatives: one forward pass, and a table of what differs.

use crate::model::{
    block::{Flow, ForwardPass, Pass},
    compute::{Rope, RopeConfig, SwiGlu, attend},
    config::{Config, check_sizes},
    family::{Architecture, Family, SUPPORTED},
    gguf::{self, Container},
    spec::{BlockSpec, LayerSpec, NormSpec},
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Tensor};
use candle_nn::ops::{rms_norm, sigmoid};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// A relative of Llama: its names, and in what it differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    model_type: &'static str,
    class: &'static str,
    gguf: Option<&'static str>,
    /// What transformers takes for the fields that `config.json` leaves out. Sizes are not among
    /// them: every file states those.
    defaults: &'static str,
    attention_bias: AttentionBias,
    /// Whether the MLP may have biases.
    mlp_bias: bool,
    /// Whether the heads of queries and keys are normed before they are rotated.
    head_norms: bool,
    window: Window,
    /// One block in so many has no rotary embeddings, unless the configuration says otherwise.
    no_rope_interval: Option<usize>,
    /// Whether GGUF files interleave the rows of queries and keys.
    interleaved: bool,
}

/// Which attention projections have biases.
#[derive(Debug, PartialEq, Eq)]
enum AttentionBias {
    Never,
    /// All four, if the configuration says so.
    Configured,
    /// Always those of queries, keys and values.
    QueriesKeysValues,
}

/// Which blocks attend to so many tokens only, where the configuration does not list them.
#[derive(Debug, PartialEq, Eq)]
enum Window {
    NoBlock,
    EveryBlock,
    /// If `use_sliding_window`, those from `max_window_layers` on.
    UpperBlocks,
    /// If `use_sliding_window`, those without rotary embeddings.
    BlocksWithoutRope,
}

pub(super) static VARIANTS: [Variant; 5] = [LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3];

const LLAMA: Variant = Variant {
    model_type: "llama",
    class: "LlamaForCausalLM",
    gguf: Some("llama"),
    defaults: r#"{ "max_position_embeddings": 2048 }"#,
    attention_bias: AttentionBias::Configured,
    mlp_bias: true,
    head_norms: false,
    window: Window::NoBlock,
    no_rope_interval: None,
    interleaved: true,
};

const MISTRAL: Variant = Variant {
    model_type: "mistral",
    class: "MistralForCausalLM",
    // Goes by the name of Llama.
    gguf: None,
    defaults: r#"{
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096
    }"#,
    attention_bias: AttentionBias::Never,
    mlp_bias: false,
    window: Window::EveryBlock,
    ..LLAMA
};

/// Qwen2.5 too.
const QWEN2: Variant = Variant {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    gguf: Some("qwen2"),
    defaults: r#"{
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "max_window_layers": 28
    }"#,
    attention_bias: AttentionBias::QueriesKeysValues,
    mlp_bias: false,
    window: Window::UpperBlocks,
    interleaved: false,
    ..LLAMA
};

const QWEN3: Variant = Variant {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    gguf: Some("qwen3"),
    defaults: r#"{
        "max_position_embeddings": 32768,
        "head_dim": 128,
        "sliding_window": 4096,
        "max_window_layers": 28
    }"#,
    attention_bias: AttentionBias::Configured,
    head_norms: true,
    ..QWEN2
};

const SMOLLM3: Variant = Variant {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    gguf: Some("smollm3"),
    defaults: r#"{
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": true,
        "no_rope_layer_interval": 4
    }"#,
    window: Window::BlocksWithoutRope,
    no_rope_interval: Some(4),
    ..LLAMA
};

/// The linear layers: their names here and in GGUF files, and the input that each reads.
const LAYERS: [(&str, &str, usize); 7] = [
    ("self_attn.q_proj", "attn_q", ATTENTION_INPUT),
    ("self_attn.k_proj", "attn_k", ATTENTION_INPUT),
    ("self_attn.v_proj", "attn_v", ATTENTION_INPUT),
    ("self_attn.o_proj", "attn_output", ATTENTION_OUTPUT),
    ("mlp.gate_proj", "ffn_gate", MLP_INPUT),
    ("mlp.up_proj", "ffn_up", MLP_INPUT),
    ("mlp.down_proj", "ffn_down", MLP_HIDDEN),
];

const ATTENTION_INPUT: usize = 0;
const ATTENTION_OUTPUT: usize = 1;
const MLP_INPUT: usize = 2;
const MLP_HIDDEN: usize = 3;

// Places among `LAYERS`.
const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;
const OUTPUT: usize = 3;
const GATE: usize = 4;
const UP: usize = 5;
const DOWN: usize = 6;

/// The norms of hidden states, and last those of the heads of queries and keys.
const NORMS: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

// Places among `NORMS`.
const ATTENTION_NORM: usize = 0;
const MLP_NORM: usize = 1;
const QUERY_NORM: usize = 2;
const KEY_NORM: usize = 3;

/// A model of this family.
#[derive(Debug)]
pub struct Llama {
    pub variant: &'static Variant,
    config: Config,
    sizes: Sizes,
    rms_norm_eps: f64,
    pub rope: RopeConfig,
    attention_bias: bool,
    mlp_bias: bool,
    /// The attention of each block.
    pub attention: Vec<Attention>,
    spec: BlockSpec,
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// What the attention of one block may have that of another has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Whether queries and keys are rotated by their positions.
    pub rotary: bool,
    /// How many tokens each token sees, itself the last of them; all before it if `None`.
    pub window: Option<usize>,
}

impl Llama {
    /// Fills in what follows from the rest once that is known to be possible.
    fn complete(
        mut self,
        attention: impl Fn(usize) -> Result<Attention>,
    ) -> Result<Rc<dyn Family>> {
        self.check()?;
        self.attention = (0..self.config.num_hidden_layers)
            .map(attention)
            .collect::<Result<_>>()?;
        self.spec = self.spec();
        Ok(Rc::new(self))
    }

    fn check(&self) -> Result<()> {
        let (heads, kv_heads) = (self.sizes.heads, self.sizes.kv_heads);
        self.config.check()?;
        check_sizes(&[
            ("intermediate_size", self.sizes.intermediate),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", self.sizes.head_dim),
        ])?;
        ensure!(
            heads.is_multiple_of(kv_heads),
            "`num_attention_heads` ({heads}) is not a multiple of `num_key_value_heads` ({kv_heads})"
        );
        ensure!(
            self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0,
            "`rms_norm_eps` is {}, which no model has",
            self.rms_norm_eps
        );
        self.rope.check()
    }

    fn spec(&self) -> BlockSpec {
        let hidden = self.config.hidden_size;
        let intermediate = self.sizes.intermediate;
        let queries = self.sizes.heads * self.sizes.head_dim;
        let keys = self.sizes.kv_heads * self.sizes.head_dim;
        let (q, k, o) = ((queries, hidden), (keys, hidden), (hidden, queries));
        let (up, down) = ((intermediate, hidden), (hidden, intermediate));
        let shapes = [q, k, k, o, up, up, down];
        let mut layers: Vec<_> = LAYERS
            .iter()
            .zip(shapes)
            .map(|(&(name, gguf, input), shape)| LayerSpec {
                name,
                gguf,
                shape,
                input,
                residual: matches!(input, ATTENTION_OUTPUT | MLP_HIDDEN),
                bias: match input {
                    MLP_INPUT | MLP_HIDDEN => self.mlp_bias,
                    ATTENTION_OUTPUT => self.attention_bias && self.variant.output_bias(),
                    _ => self.attention_bias,
                },
                interleaved_heads: None,
            })
            .collect();
        if self.variant.interleaved {
            layers[QUERY].interleaved_heads = Some(self.sizes.heads);
            layers[KEY].interleaved_heads = Some(self.sizes.kv_heads);
        }
        let norms = NORMS.into_iter().enumerate();
        let norms = norms.filter(|(place, _)| *place < QUERY_NORM || self.variant.head_norms);
        let norms = norms.map(|(place, (name, gguf))| NormSpec {
            name,
            gguf,
            features: match place {
                QUERY_NORM | KEY_NORM => self.sizes.head_dim,
                _ => hidden,
            },
        });
        BlockSpec {
            layers,
            norms: norms.collect(),
        }
    }

    fn eps(&self) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "the norms run in f32")]
        let eps = self.rms_norm_eps as f32;
        eps
    }
}

impl Family for Llama {
    fn config(&self) -> &Config {
        &self.config
    }

    fn block(&self) -> &BlockSpec {
        &self.spec
    }

    fn to_json(&self, dtype: DType) -> Value {
        let config = &self.config;
        let mut value = json!({
            "architectures": [self.variant.class],
            "model_type": self.variant.model_type,
            "hidden_act": "silu",
            "hidden_size": config.hidden_size,
            "intermediate_size": self.sizes.intermediate,
            "vocab_size": config.vocab_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": self.sizes.heads,
            "num_key_value_heads": self.sizes.kv_heads,
            "head_dim": self.sizes.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope.theta,
            "rope_scaling": self.rope.scaling,
            "max_position_embeddings": config.max_position_embeddings,
            "tie_word_embeddings": config.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_json(),
            "torch_dtype": match dtype {
                DType::F16 => "float16",
                DType::BF16 => "bfloat16",
                _ => "float32",
            },
        });
        if self.variant.window == Window::EveryBlock {
            value["sliding_window"] = json!(self.attention.first().and_then(|a| a.window));
        }
        if self.variant.no_rope_interval.is_some() {
            let rotary = self.attention.iter().map(|a| u8::from(a.rotary));
            value["no_rope_layers"] = rotary.collect();
        }
        value
    }

    fn forward_pass(&self, positions: usize) -> candle_core::Result<Box<dyn ForwardPass>> {
        Ok(Box::new(LlamaPass {
            rope: Rope::new(&self.rope, positions)?,
            attention: self.attention.clone(),
            sizes: self.sizes,
            head_norms: self.variant.head_norms,
            eps: self.eps(),
        }))
    }

    fn final_norm(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        rms_norm(x, weight, self.eps())
    }

    fn cache_bytes_per_token(&self) -> usize {
        2 * self.sizes.kv_heads * self.sizes.head_dim * size_of::<f32>()
    }
}

/// The forward pass of a block.
#[derive(Debug)]
struct LlamaPass {
    rope: Rope,
    attention: Vec<Attention>,
    sizes: Sizes,
    head_norms: bool,
    eps: f32,
}

impl ForwardPass for LlamaPass {
    fn enter(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Flow> {
        Ok(Flow {
            hidden: x.clone(),
            input: rms_norm(x, pass.norm(ATTENTION_NORM), self.eps)?,
        })
    }

    fn stage(&self, input: usize, flow: &Flow, pass: &mut Pass<'_>) -> Result<Flow> {
        let Flow { hidden, input: x } = flow;
        let (hidden, input) = match input {
            ATTENTION_INPUT => (hidden.clone(), self.attention(x, pass)?),
            ATTENTION_OUTPUT => {
                let hidden = (hidden + pass.linear(OUTPUT, x)?)?;
                let input = rms_norm(&hidden, pass.norm(MLP_NORM), self.eps)?;
                (hidden, input)
            }
            MLP_INPUT => {
                let gated = pass.linear(GATE, x)?;
                gated.inplace_op2(&pass.linear(UP, x)?, &SwiGlu)?;
                (hidden.clone(), gated)
            }
            _ => {
                let hidden = (hidden + pass.linear(DOWN, x)?)?;
                (hidden.clone(), hidden)
            }
        };
        Ok(Flow { hidden, input })
    }

    fn output_effects(
        &self,
        input: usize,
        x: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Vec<(usize, Vec<f64>)>> {
        match input {
            ATTENTION_INPUT => self.attention_effects(x, pass),
            MLP_INPUT => mlp_effects(x, pass),
            _ => Ok(Vec::new()),
        }
    }
}

impl LlamaPass {
    /// What the heads attend to, side by side.
    fn attention(&self, input: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let Sizes {
            heads, kv_heads, ..
        } = self.sizes;
        let attention = self.attention[pass.index()];
        let position = pass.position();
        let mut q = self.heads(heads, &pass.linear(QUERY, input)?)?;
        let mut k = self.heads(kv_heads, &pass.linear(KEY, input)?)?;
        let v = self.heads(kv_heads, &pass.linear(VALUE, input)?)?;
        if self.head_norms {
            q = rms_norm(&q, pass.norm(QUERY_NORM), self.eps)?;
            k = rms_norm(&k, pass.norm(KEY_NORM), self.eps)?;
        }
        if attention.rotary {
            q = self.rope.rotate(&q, position)?;
            k = self.rope.rotate(&k, position)?;
        }
        let q = q.transpose(1, 2)?;
        let k = k.transpose(1, 2)?.contiguous()?;
        let v = v.transpose(1, 2)?.contiguous()?;
        let (k, v) = pass.with_cached(k, v)?;
        Ok(attend(&q, &k, &v, position, attention.window)?)
    }

    /// A query changes the scores of attention by the keys it meets and a key by the queries, both
    /// as far as rotation mixes them: by pairs of features. A value changes the output by the
    /// columns of the output projection that read it.
    ///
    /// ```text
    /// effect of q(head, i)   mean square of the pair of i in the head's keys / head_dim
    /// effect of k(head, i)   the same of queries, summed over the heads that share it
    /// effect of v(head, i)   squared norm of the columns of W_o, summed over the heads
    /// ```
    fn attention_effects(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Vec<(usize, Vec<f64>)>> {
        let Sizes {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.sizes;
        let group = heads / kv_heads;
        let (mut q, mut k) = (pass.linear(QUERY, x)?, pass.linear(KEY, x)?);
        let mut gains = [1.0; 2].map(|one| vec![one; head_dim]);
        if self.head_norms {
            let norms = [(&mut q, QUERY_NORM, heads), (&mut k, KEY_NORM, kv_heads)];
            for ((x, norm, heads), gains) in norms.into_iter().zip(&mut gains) {
                let normed = rms_norm(&self.heads(heads, x)?, pass.norm(norm), self.eps)?;
                // A norm divides changes too, by what it divides the head by.
                let divided = mean(&mean_squares(x)?).max(f64::MIN_POSITIVE);
                let weights: Vec<f32> = pass.norm(norm).to_vec1()?;
                for (gain, weight) in gains.iter_mut().zip(weights) {
                    *gain = f64::from(weight).powi(2) / divided;
                }
                *x = normed.reshape(x.shape())?;
            }
        }
        let rotary = self.attention[pass.index()].rotary;
        let of_pairs = |x: &Tensor| {
            let squares = mean_squares(x)?;
            let other = |i: usize| match i % head_dim {
                place if place < head_dim / 2 => i + head_dim / 2,
                _ => i - head_dim / 2,
            };
            let sum = |i| squares[i] + if rotary { squares[other(i)] } else { 0.0 };
            anyhow::Ok((0..squares.len()).map(sum).collect::<Vec<_>>())
        };
        let (of_queries, of_keys) = (of_pairs(&q)?, of_pairs(&k)?);
        let of_columns = column_squares(pass.weight(OUTPUT))?;
        let scale = 1.0 / head_dim as f64;
        let over_group = |values: &[f64], i: usize| -> f64 {
            let (head, place) = (i / head_dim, i % head_dim);
            let heads = head * group..(head + 1) * group;
            heads.map(|head| values[head * head_dim + place]).sum()
        };
        let [query_gains, key_gains] = gains;
        let queries = (0..heads * head_dim).map(|i| {
            let (head, place) = (i / head_dim, i % head_dim);
            of_keys[head / group * head_dim + place] * scale * query_gains[place]
        });
        let keys = 0..kv_heads * head_dim;
        let values = keys.clone().map(|i| over_group(&of_columns, i));
        let keys = keys.map(|i| over_group(&of_queries, i) * scale * key_gains[i % head_dim]);
        Ok(vec![
            (QUERY, queries.collect()),
            (KEY, keys.collect()),
            (VALUE, values.collect()),
        ])
    }

    /// A projection as `[sequences, tokens, heads, head_dim]`.
    fn heads(&self, heads: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let (sequences, tokens, _) = x.dims3()?;
        x.reshape((sequences, tokens, heads, self.sizes.head_dim))
    }
}

/// A gate and an up projection change their product, which the column of the down projection that
/// reads it spreads.
///
/// ```text
/// effect of up(i)     ‖W_down[:, i]‖² mean(silu(g)²)
/// effect of gate(i)   ‖W_down[:, i]‖² mean((u silu'(g))²)
/// ```
fn mlp_effects(x: &Tensor, pass: &Pass<'_>) -> Result<Vec<(usize, Vec<f64>)>> {
    let (gate, up) = (pass.linear(GATE, x)?, pass.linear(UP, x)?);
    let sigmoid = sigmoid(&gate)?;
    let silu = (&gate * &sigmoid)?;
    // σ(g) (1 + g − silu(g)), the derivative.
    let slope = (&sigmoid * ((&gate - &silu)? + 1.0)?)?;
    let columns = column_squares(pass.weight(DOWN))?;
    let spread = |x: &Tensor| {
        let squares = mean_squares(x)?;
        anyhow::Ok(squares.iter().zip(&columns).map(|(a, b)| a * b).collect())
    };
    Ok(vec![(GATE, spread(&(up * slope)?)?), (UP, spread(&silu)?)])
}

/// The mean square of every feature over all tokens.
fn mean_squares(x: &Tensor) -> Result<Vec<f64>> {
    let squares = x.flatten_to(1)?.sqr()?.mean(0)?;
    Ok(squares.to_dtype(DType::F64)?.to_vec1()?)
}

/// The squared norm of every column of a matrix.
fn column_squares(weights: &Tensor) -> Result<Vec<f64>> {
    Ok(weights.to_dtype(DType::F64)?.sqr()?.sum(0)?.to_vec1()?)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The fields of `config.json` that matter to this family.
#[derive(Deserialize)]
struct Fields {
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    /// For each block, 1 if it has rotary embeddings and 0 if not.
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: Option<usize>,
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
}

fn default_eps() -> f64 {
    1e-6
}

impl Architecture for Variant {
    fn model_type(&self) -> &'static str {
        self.model_type
    }

    fn class(&self) -> &'static str {
        self.class
    }

    fn gguf(&self) -> Option<&'static str> {
        self.gguf
    }

    fn read_json(&'static self, mut value: Value) -> Result<Rc<dyn Family>> {
        let defaults: Map<String, Value> = serde_json::from_str(self.defaults)?;
        if let Some(fields) = value.as_object_mut() {
            // A field that is null is there.
            for (name, default) in defaults {
                fields.entry(name).or_insert(default);
            }
        }
        let malformed = "a field is missing or malformed";
        let config = Config::deserialize(&value).context(malformed)?;
        let fields = Fields::deserialize(&value).context(malformed)?;
        if let Some(activation) = fields.hidden_act.as_deref() {
            ensure!(
                activation == "silu",
                "this `{}` has the activation `{activation}`; only `silu` is supported",
                self.class
            );
        }
        let heads = fields.num_attention_heads;
        let head_dim = match fields.head_dim {
            Some(head_dim) => head_dim,
            None => config
                .hidden_size
                .checked_div(heads)
                .context("`num_attention_heads` is 0")?,
        };
        let llama = Llama {
            variant: self,
            config,
            sizes: Sizes {
                intermediate: fields.intermediate_size,
                heads,
                kv_heads: fields.num_key_value_heads.unwrap_or(heads),
                head_dim,
            },
            rms_norm_eps: fields.rms_norm_eps,
            rope: RopeConfig::from_json(&value, head_dim)?,
            attention_bias: match self.attention_bias {
                AttentionBias::Never => false,
                AttentionBias::Configured => fields.attention_bias,
                AttentionBias::QueriesKeysValues => true,
            },
            mlp_bias: self.mlp_bias && fields.mlp_bias,
            attention: Vec::new(),
            spec: BlockSpec::default(),
        };
        llama.complete(|block| self.attention(&fields, block))
    }

    fn read_gguf(&'static self, file: &Container) -> Result<Rc<dyn Family>> {
        let metadata = &file.metadata;
        let name = file.architecture()?;
        let experts = file.key("expert_count")?;
        let count = metadata.optional_size(&experts)?.unwrap_or(0);
        ensure!(
            count == 0,
            "this `{name}` is a mixture of experts (`{experts}` is {count}), which is not \
             supported; {SUPPORTED}"
        );
        let window = metadata
            .optional_size(&file.key("attention.sliding_window")?)?
            .filter(|&window| window > 0);
        let variant = match window {
            None => self,
            Some(_) if *self == LLAMA => &MISTRAL,
            Some(window) => bail!(
                "`{name}.attention.sliding_window` is {window}, which is not supported for this \
                 architecture in GGUF files; use the model's Hugging Face folder"
            ),
        };
        let config = Config::from_gguf(file)?;
        let heads_key = file.key("attention.head_count")?;
        let heads = metadata.size(&heads_key)?;
        let head_dim = match metadata.optional_size(&file.key("attention.key_length")?)? {
            Some(head_dim) => head_dim,
            None => config
                .hidden_size
                .checked_div(heads)
                .with_context(|| format!("`{heads_key}` is 0"))?,
        };
        for key in ["rope.dimension_count", "attention.value_length"] {
            let key = file.key(key)?;
            let size = metadata.optional_size(&key)?.unwrap_or(head_dim);
            ensure!(
                size == head_dim,
                "`{key}` is {size} and heads have {head_dim} features; only equal sizes are \
                 supported"
            );
        }
        let llama = Llama {
            variant,
            config,
            sizes: Sizes {
                intermediate: metadata.size(&file.key("feed_forward_length")?)?,
                heads,
                kv_heads: metadata
                    .optional_size(&file.key("attention.head_count_kv")?)?
                    .unwrap_or(heads),
                head_dim,
            },
            rms_norm_eps: metadata.float(&file.key("attention.layer_norm_rms_epsilon")?)?,
            rope: gguf::rope_config(file, head_dim)?,
            attention_bias: file.get("blk.0.attn_q.bias").is_some(),
            mlp_bias: file.get("blk.0.ffn_up.bias").is_some(),
            attention: Vec::new(),
            spec: BlockSpec::default(),
        };
        llama.complete(|block| {
            // No key tells of blocks without rotary embeddings.
            let interval = self.no_rope_interval;
            Ok(Attention {
                rotary: interval.is_none_or(|interval| !(block + 1).is_multiple_of(interval)),
                window,
            })
        })
    }
}

impl Variant {
    /// Whether the output projection has a bias where the others of attention have.
    fn output_bias(&self) -> bool {
        self.attention_bias != AttentionBias::QueriesKeysValues
    }

    fn attention(&self, fields: &Fields, block: usize) -> Result<Attention> {
        let rotary = self.is_rotary(fields, block)?;
        let window = fields.sliding_window.filter(|_| match self.window {
            Window::NoBlock => false,
            Window::EveryBlock => true,
            _ => fields.use_sliding_window,
        });
        ensure!(
            window != Some(0),
            "`sliding_window` is 0: no token would see any other"
        );
        let slides = window.is_some() && self.slides(fields, block, rotary)?;
        let window = window.filter(|_| slides);
        Ok(Attention { rotary, window })
    }

    fn is_rotary(&self, fields: &Fields, block: usize) -> Result<bool> {
        Ok(
            match (&fields.no_rope_layers, fields.no_rope_layer_interval) {
                _ if self.no_rope_interval.is_none() => true,
                (Some(layers), _) => {
                    *layers.get(block).with_context(|| {
                        format!("`no_rope_layers` has no entry for layer {block}")
                    })? != 0
                }
                (None, Some(interval)) => !(block + 1).is_multiple_of(interval),
                (None, None) => true,
            },
        )
    }

    /// Whether the window of a model that has one is that of this block.
    fn slides(&self, fields: &Fields, block: usize, rotary: bool) -> Result<bool> {
        Ok(match (&self.window, &fields.layer_types) {
            (Window::EveryBlock, _) => true,
            (_, Some(types)) => match types.get(block).map(String::as_str) {
                Some("sliding_attention") => true,
                Some("full_attention") => false,
                Some(other) => bail!("the layer type `{other}` is not supported"),
                None => bail!("`layer_types` has no entry for layer {block}"),
            },
            (Window::BlocksWithoutRope, None) => !rotary,
            (_, None) => fields.max_window_layers.is_none_or(|full| block >= full),
        })
    }
}
