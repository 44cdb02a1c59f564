//! The configuration of a model from the metadata and the tensors of its GGUF file.

use super::Container;
use crate::model::{Architecture, Attention, Config, Llama3Scaling, RopeScaling, SUPPORTED, rope};
use anyhow::{Context, Result, bail, ensure};

/// Holds Llama 3.1's frequency divisors in place of the parameters they come from.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// # Errors
/// Something is missing or impossible, or the model is not supported.
pub(super) fn config(file: &Container) -> Result<Config> {
    let metadata = &file.metadata;
    let name = metadata.text("general.architecture")?;
    let key = |part: &str| format!("{name}.{part}");
    let window = metadata
        .optional_size(&key("attention.sliding_window"))?
        .filter(|&window| window > 0);
    let architecture = architecture(file, window)?;
    let vocab_size = file
        .get("token_embd.weight")
        .and_then(|tensor| tensor.shape.dims().first().copied())
        .context("the file has no tensor `token_embd.weight`")?;
    let hidden_size = metadata.size(&key("embedding_length"))?;
    let heads = metadata.size(&key("attention.head_count"))?;
    let mut config = Config {
        architecture,
        hidden_size,
        intermediate_size: metadata.size(&key("feed_forward_length"))?,
        vocab_size,
        num_hidden_layers: metadata.size(&key("block_count"))?,
        num_attention_heads: heads,
        num_key_value_heads: metadata
            .optional_size(&key("attention.head_count_kv"))?
            .unwrap_or(heads),
        head_dim: match metadata.optional_size(&key("attention.key_length"))? {
            Some(head_dim) => head_dim,
            None => hidden_size
                .checked_div(heads)
                .with_context(|| format!("`{}` is 0", key("attention.head_count")))?,
        },
        rms_norm_eps: metadata.float(&key("attention.layer_norm_rms_epsilon"))?,
        rope_theta: metadata
            .optional_float(&key("rope.freq_base"))?
            .unwrap_or(10_000.0),
        rope_scaling: None,
        attention: Vec::new(),
        attention_bias: file.get("blk.0.attn_q.bias").is_some(),
        mlp_bias: file.get("blk.0.ffn_up.bias").is_some(),
        max_position_embeddings: metadata.size(&key("context_length"))?,
        tie_word_embeddings: file.get("output.weight").is_none(),
        bos_token_id: metadata.optional_token("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: metadata
            .optional_token("tokenizer.ggml.eos_token_id")?
            .into_iter()
            .collect(),
    };
    config.check()?;
    for key in ["rope.dimension_count", "attention.value_length"].map(key) {
        let size = metadata.optional_size(&key)?.unwrap_or(config.head_dim);
        ensure!(
            size == config.head_dim,
            "`{key}` is {size} and heads have {} features; only equal sizes are supported",
            config.head_dim
        );
    }
    config.attention = (1..=config.num_hidden_layers)
        .map(|layer| Attention {
            // No key tells of these.
            rotary: architecture != Architecture::SmolLm3
                || !layer.is_multiple_of(Architecture::SMOLLM3_NO_ROPE_INTERVAL),
            window,
        })
        .collect();
    config.rope_scaling = rope_scaling(file, &config)?;
    config.check()?;
    Ok(config)
}

fn architecture(file: &Container, window: Option<usize>) -> Result<Architecture> {
    let metadata = &file.metadata;
    let name = metadata.text("general.architecture")?;
    // Mistral goes by the name of Llama.
    let architecture = Architecture::ALL
        .into_iter()
        .find(|known| name == known.model_type() && *known != Architecture::Mistral)
        .with_context(|| format!("the architecture `{name}` is not supported; {SUPPORTED}"))?;
    let key = format!("{name}.expert_count");
    let experts = metadata.optional_size(&key)?.unwrap_or(0);
    ensure!(
        experts == 0,
        "this `{name}` is a mixture of experts (`{key}` is {experts}), which is not supported; \
         {SUPPORTED}"
    );
    match (architecture, window) {
        (Architecture::Llama, Some(_)) => Ok(Architecture::Mistral),
        (_, Some(window)) => bail!(
            "`{name}.attention.sliding_window` is {window}, which is not supported for this \
             architecture in GGUF files; use the model's Hugging Face folder"
        ),
        (architecture, None) => Ok(architecture),
    }
}

fn rope_scaling(file: &Container, config: &Config) -> Result<Option<RopeScaling>> {
    let name = file.metadata.text("general.architecture")?;
    match file
        .metadata
        .optional_text(&format!("{name}.rope.scaling.type"))
    {
        None | Some("none") => {}
        Some("linear") => {
            let factor = file
                .metadata
                .float(&format!("{name}.rope.scaling.factor"))?;
            return Ok(Some(RopeScaling::Linear { factor }));
        }
        Some(kind) => bail!("the rotary scaling `{kind}` is not supported in GGUF files"),
    }
    if file.get(ROPE_FACTORS).is_none() {
        return Ok(None);
    }
    llama3_scaling(file, config).map(|scaling| Some(RopeScaling::Llama3(scaling)))
}

/// The parameters behind the frequency divisors: what Llama 3.1 and later were released with, if
/// they give exactly the divisors in the file.
fn llama3_scaling(file: &Container, config: &Config) -> Result<Llama3Scaling> {
    let divisors = file.read(ROPE_FACTORS)?.flatten_all()?.to_vec1::<f32>()?;
    let scaling = Llama3Scaling {
        factor: f64::from(divisors.iter().copied().fold(1.0, f32::max)),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let plain = rope::frequencies(config);
    let scaled = Config {
        rope_scaling: Some(RopeScaling::Llama3(scaling)),
        ..config.clone()
    };
    let explained = plain.len() == divisors.len()
        && plain.iter().zip(&divisors).all(|(&frequency, &divisor)| {
            let expected = rope::divisor(&scaled, f64::from(frequency));
            (f64::from(divisor) - expected).abs() <= 1e-3 * expected
        });
    ensure!(
        explained,
        "`{ROPE_FACTORS}` holds frequencies other than those of Llama 3.1 to 3.3; use the model's \
         Hugging Face folder"
    );
    Ok(scaling)
}
