//! Reading a GGUF file of the `llama` architecture, as llama.cpp's tools write them.

use super::{Config, LinearKind, Llama3Scaling, SUPPORTED, TensorSource, rope, tensor_name};
use crate::tokenizer::{self, Companions};
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{
    DType, Device, Shape, Tensor,
    quantized::gguf_file::{Content, Value},
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufReader, Read, Seek},
    path::Path,
};
use tokenizers::Tokenizer;

/// Holds Llama 3.1's frequency divisors in place of the parameters they come from.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A file opened: the configuration, the tensors to come, the tokenizer, and the files that a
/// Hugging Face folder of the model needs.
///
/// # Errors
/// It is damaged, or of a model or tokenizer that is not supported.
pub fn open(path: &Path) -> Result<(Config, Gguf<BufReader<File>>, Tokenizer, Companions)> {
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader)
        .with_context(|| format!("`{}` cannot be read as a GGUF file", path.display()))?;
    let place = || format!("in `{}`", path.display());
    check_size(&content, path)?;
    let mut gguf = Gguf::new(reader, content);
    let config = gguf.config().with_context(place)?;
    gguf.config = Some(config.clone());
    let metadata = Metadata(&gguf.content.metadata);
    let tokenizer = tokenizer::from_gguf(metadata).with_context(place)?;
    let companions = tokenizer::companions(&tokenizer, &config, metadata).with_context(place)?;
    Ok((config, gguf, tokenizer, companions))
}

/// Refuses a file that ends before its last tensor does.
fn check_size(content: &Content, path: &Path) -> Result<()> {
    let size = fs::metadata(path)?.len();
    for (name, info) in &content.tensor_infos {
        let mut dims = info.shape.dims().iter();
        let elements = dims.try_fold(1usize, |all, &dim| all.checked_mul(dim));
        let bytes = elements
            .map(|elements| elements / info.ggml_dtype.block_size())
            .and_then(|blocks| blocks.checked_mul(info.ggml_dtype.type_size()));
        let end = bytes
            .and_then(|bytes| info.offset.checked_add(bytes as u64))
            .and_then(|end| end.checked_add(content.tensor_data_offset));
        ensure!(
            end.is_some_and(|end| end <= size),
            "`{}` ends before tensor `{name}` does: it is damaged or incomplete",
            path.display()
        );
    }
    Ok(())
}

/// The tensors of a GGUF file, dequantized to f32 one at a time.
#[derive(Debug)]
pub struct Gguf<R> {
    reader: R,
    content: Content,
    /// From Hugging Face names to the file's.
    names: HashMap<String, String>,
    /// Known once the metadata is read; needed for the order of rows.
    config: Option<Config>,
}

impl<R: Read + Seek> Gguf<R> {
    fn new(reader: R, content: Content) -> Self {
        let names = content
            .tensor_infos
            .keys()
            .filter(|name| *name != ROPE_FACTORS)
            .map(|name| (hugging_face_name(name), name.clone()))
            .collect();
        Self {
            reader,
            content,
            names,
            config: None,
        }
    }

    fn config(&mut self) -> Result<Config> {
        let metadata = Metadata(&self.content.metadata);
        let architecture = metadata.text("general.architecture")?;
        ensure!(
            architecture == "llama",
            "the architecture `{architecture}` is not supported; {SUPPORTED}"
        );
        ensure!(
            metadata.optional_size("llama.expert_count")?.unwrap_or(0) == 0,
            "the model is a mixture of experts, which is not supported; {SUPPORTED}"
        );
        if let Some(kind) = metadata.optional_text("llama.rope.scaling.type") {
            ensure!(
                kind == "none",
                "the rotary scaling `{kind}` is not supported in GGUF files"
            );
        }
        let vocab_size = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|info| info.shape.dims().first().copied())
            .context("the file has no tensor `token_embd.weight`")?;
        let hidden_size = metadata.size("llama.embedding_length")?;
        let heads = metadata.size("llama.attention.head_count")?;
        let head_dim = match metadata.optional_size("llama.attention.key_length")? {
            Some(head_dim) => head_dim,
            None => hidden_size
                .checked_div(heads)
                .context("`llama.attention.head_count` is 0")?,
        };
        for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
            let size = metadata.optional_size(key)?.unwrap_or(head_dim);
            ensure!(
                size == head_dim,
                "`{key}` is {size} and heads have {head_dim} features; only equal sizes are \
                 supported"
            );
        }
        let mut config = Config {
            hidden_size,
            intermediate_size: metadata.size("llama.feed_forward_length")?,
            vocab_size,
            num_hidden_layers: metadata.size("llama.block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: metadata
                .optional_size("llama.attention.head_count_kv")?
                .unwrap_or(heads),
            head_dim,
            rms_norm_eps: metadata.float("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: metadata
                .optional_float("llama.rope.freq_base")?
                .unwrap_or(10_000.0),
            rope_scaling: None,
            max_position_embeddings: metadata.size("llama.context_length")?,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            bos_token_id: metadata.optional_token("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: metadata
                .optional_token("tokenizer.ggml.eos_token_id")?
                .into_iter()
                .collect(),
        };
        config.check()?;
        if self.content.tensor_infos.contains_key(ROPE_FACTORS) {
            config.rope_scaling = Some(self.llama3_scaling(&config)?);
        }
        Ok(config)
    }

    /// The parameters behind the frequency divisors: what Llama 3.1 and later were released with,
    /// if they give exactly the divisors in the file.
    fn llama3_scaling(&mut self, config: &Config) -> Result<Llama3Scaling> {
        let divisors = self
            .content
            .tensor(&mut self.reader, ROPE_FACTORS, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
            .with_context(|| format!("cannot read `{ROPE_FACTORS}`"))?;
        let scaling = Llama3Scaling {
            factor: f64::from(divisors.iter().copied().fold(1.0, f32::max)),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = rope::frequencies(config);
        let scaled = Config {
            rope_scaling: Some(scaling),
            ..config.clone()
        };
        let explained = plain.len() == divisors.len()
            && plain.iter().zip(&divisors).all(|(&frequency, &divisor)| {
                let expected = rope::divisor(&scaled, f64::from(frequency));
                (f64::from(divisor) - expected).abs() <= 1e-3 * expected
            });
        ensure!(
            explained,
            "`{ROPE_FACTORS}` holds frequencies other than those of Llama 3.1 to 3.3; use the \
             model's Hugging Face folder"
        );
        Ok(scaling)
    }
}

impl<R: Read + Seek + std::fmt::Debug> TensorSource for Gguf<R> {
    fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        let info = self
            .names
            .get(name)
            .and_then(|stored| self.content.tensor_infos.get(stored))
            .ok_or_else(|| anyhow!("the file has no tensor for `{name}`"))?;
        Ok((DType::F32, info.shape.clone()))
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let stored = self
            .names
            .get(name)
            .ok_or_else(|| anyhow!("the file has no tensor for `{name}`"))?;
        let tensor = self
            .content
            .tensor(&mut self.reader, stored, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu))
            .with_context(|| format!("cannot read tensor `{stored}`"))?;
        let Some(config) = &self.config else {
            return Ok(tensor);
        };
        if name.ends_with(&format!("{}.weight", LinearKind::Query.module())) {
            return split_halves(&tensor, config.num_attention_heads);
        }
        if name.ends_with(&format!("{}.weight", LinearKind::Key.module())) {
            return split_halves(&tensor, config.num_key_value_heads);
        }
        Ok(tensor)
    }
}

/// llama.cpp rotates neighbouring rows of a head together, Hugging Face rows half a head apart, so
/// the rows of queries and keys come interleaved. This puts them back.
fn split_halves(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    ensure!(
        heads > 0 && rows % (2 * heads) == 0,
        "{rows} rows cannot be split over {heads} heads"
    );
    Ok(weight
        .reshape((heads, rows / heads / 2, 2, columns))?
        .transpose(1, 2)?
        .reshape((rows, columns))?)
}

/// The Hugging Face name of a tensor, or its own when it has none: reading the model reports it.
fn hugging_face_name(name: &str) -> String {
    match name {
        "token_embd.weight" => return super::EMBEDDING.to_owned(),
        "output_norm.weight" => return super::FINAL_NORM.to_owned(),
        "output.weight" => return super::HEAD.to_owned(),
        _ => {}
    }
    let module = |part| {
        Some(match part {
            "attn_q" => LinearKind::Query.module(),
            "attn_k" => LinearKind::Key.module(),
            "attn_v" => LinearKind::Value.module(),
            "attn_output" => LinearKind::Output.module(),
            "ffn_gate" => LinearKind::Gate.module(),
            "ffn_up" => LinearKind::Up.module(),
            "ffn_down" => LinearKind::Down.module(),
            "attn_norm" => super::block::ATTENTION_NORM,
            "ffn_norm" => super::block::MLP_NORM,
            _ => return None,
        })
    };
    name.strip_prefix("blk.")
        .and_then(|rest| rest.strip_suffix(".weight"))
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(block, part)| Some(tensor_name(block.parse().ok()?, module(part)?)))
        .unwrap_or_else(|| name.to_owned())
}

/// Typed access to the metadata, with errors that name the key.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a>(pub &'a HashMap<String, Value>);

impl<'a> Metadata<'a> {
    fn required<T>(key: &str, value: Option<T>) -> Result<T> {
        value.with_context(|| format!("the metadata lacks `{key}`"))
    }

    /// A number of things.
    ///
    /// # Errors
    /// It is something else.
    pub fn optional_size(self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        let size = match *value {
            Value::I8(v) => usize::try_from(v).ok(),
            Value::I16(v) => usize::try_from(v).ok(),
            Value::I32(v) => usize::try_from(v).ok(),
            Value::I64(v) => usize::try_from(v).ok(),
            ref other => other.to_u64().ok().and_then(|v| usize::try_from(v).ok()),
        };
        size.map(Some)
            .with_context(|| format!("`{key}` is {value:?} and not one size for all blocks"))
    }

    fn size(self, key: &str) -> Result<usize> {
        Self::required(key, self.optional_size(key)?)
    }

    /// A token's number.
    ///
    /// # Errors
    /// It is something else.
    pub fn optional_token(self, key: &str) -> Result<Option<u32>> {
        self.optional_size(key)?
            .map(|id| u32::try_from(id).with_context(|| format!("`{key}` is {id}")))
            .transpose()
    }

    fn optional_float(self, key: &str) -> Result<Option<f64>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(shortest(*v))),
            Some(Value::F64(v)) => Ok(Some(*v)),
            Some(other) => bail!("`{key}` is {other:?} and not a number"),
        }
    }

    fn float(self, key: &str) -> Result<f64> {
        Self::required(key, self.optional_float(key)?)
    }

    /// A text, if there is one.
    #[must_use]
    pub fn optional_text(self, key: &str) -> Option<&'a str> {
        self.0.get(key)?.to_string().ok().map(String::as_str)
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn text(self, key: &str) -> Result<&'a str> {
        Self::required(key, self.optional_text(key))
    }

    /// A list of texts that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn texts(self, key: &str) -> Result<Vec<&'a str>> {
        Self::required(key, self.0.get(key).and_then(|list| list.to_vec().ok()))?
            .iter()
            .map(|text| Ok(text.to_string()?.as_str()))
            .collect::<Result<_>>()
            .with_context(|| format!("`{key}` is not a list of texts"))
    }

    /// A list of whole numbers, empty if it is missing.
    #[must_use]
    pub fn integers(self, key: &str) -> Vec<i64> {
        let list = self.0.get(key).and_then(|list| list.to_vec().ok());
        list.into_iter()
            .flatten()
            .map(|value| match value {
                Value::I32(v) => i64::from(*v),
                other => other.to_u64().map_or(-1, u64::cast_signed),
            })
            .collect()
    }

    /// Yes or no; no if it is missing.
    #[must_use]
    pub fn flag(self, key: &str) -> bool {
        matches!(self.0.get(key), Some(Value::Bool(true)))
    }
}

/// The decimal number that was meant by an f32: 1e-5 and not 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
