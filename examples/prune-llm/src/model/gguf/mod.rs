//! Reading a GGUF file of Llama or a relative of it, as llama.cpp's tools write them.

mod config;
mod container;
mod metadata;
mod tokenizer;

pub use container::{Container, Stored};
pub use metadata::Metadata;

use super::{Architecture, Config, LinearKind, TensorSource, block, tensor_name};
use crate::tokenizer::Companions;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Shape, Tensor};
use std::{collections::HashMap, path::Path};
use tokenizers::Tokenizer;

/// A file opened: the configuration, the tensors to come, the tokenizer, and the files that a
/// Hugging Face folder of the model needs.
///
/// # Errors
/// It is damaged, or of a model or tokenizer that is not supported.
pub fn open(path: &Path) -> Result<(Config, Gguf, Tokenizer, Companions)> {
    let file = Container::open(path)
        .with_context(|| format!("`{}` cannot be read as a GGUF file", path.display()))?;
    parts(file).with_context(|| format!("in `{}`", path.display()))
}

fn parts(file: Container) -> Result<(Config, Gguf, Tokenizer, Companions)> {
    let config = config::config(&file)?;
    let tokenizer = tokenizer::tokenizer(&file.metadata)?;
    let dtype = file
        .get("blk.0.attn_q.weight")
        .map_or(DType::F32, Stored::dtype);
    let companions = tokenizer::companions(&tokenizer, &config, dtype, &file.metadata)?;
    let source = Gguf::new(file, &config);
    Ok((config, source, tokenizer, companions))
}

/// The tensors of a GGUF file, one at a time. Those that are quantized become f32.
#[derive(Debug)]
pub struct Gguf {
    file: Container,
    /// From Hugging Face names to the file's.
    names: HashMap<String, String>,
    /// How many heads share the rows of queries and of keys, where those rows are interleaved.
    interleaved: Option<(usize, usize)>,
}

impl Gguf {
    fn new(file: Container, config: &Config) -> Self {
        let names = file
            .names()
            .filter(|name| *name != config::ROPE_FACTORS)
            .map(|name| (hugging_face_name(name), name.to_owned()))
            .collect();
        let interleaved = match config.architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::SmolLm3 => {
                Some((config.num_attention_heads, config.num_key_value_heads))
            }
            Architecture::Qwen2 | Architecture::Qwen3 => None,
        };
        Self {
            file,
            names,
            interleaved,
        }
    }

    /// The file's name of a tensor.
    fn stored_name(&self, name: &str) -> Result<&str> {
        self.names
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("the file has no tensor for `{name}`"))
    }
}

impl TensorSource for Gguf {
    fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        let stored = self.file.get(self.stored_name(name)?);
        let stored = stored.with_context(|| format!("the file has no tensor for `{name}`"))?;
        Ok((stored.dtype(), stored.shape.clone()))
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.file.read(self.stored_name(name)?)?;
        let Some((heads, kv_heads)) = self.interleaved else {
            return Ok(tensor);
        };
        let is_of = |kind: LinearKind| name.contains(&format!(".{}.", kind.module()));
        if is_of(LinearKind::Query) {
            split_halves(&tensor, heads)
        } else if is_of(LinearKind::Key) {
            split_halves(&tensor, kv_heads)
        } else {
            Ok(tensor)
        }
    }
}

/// llama.cpp rotates neighbouring rows of a head together, Hugging Face rows half a head apart, so
/// in files of some architectures the rows of queries and keys come interleaved. This puts them
/// back, be they of weights or of biases.
fn split_halves(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    ensure!(
        heads > 0 && rows.is_multiple_of(2 * heads),
        "{rows} rows cannot be split over {heads} heads"
    );
    let columns = tensor.elem_count() / rows;
    Ok(tensor
        .reshape((heads, rows / heads / 2, 2, columns))?
        .transpose(1, 2)?
        .reshape(tensor.shape())?)
}

/// The Hugging Face name of a tensor, or its own when it has none: reading the model reports it.
fn hugging_face_name(name: &str) -> String {
    match name {
        "token_embd.weight" => super::EMBEDDING.to_owned(),
        "output_norm.weight" => super::FINAL_NORM.to_owned(),
        "output.weight" => super::HEAD.to_owned(),
        _ => name_in_block(name).unwrap_or_else(|| name.to_owned()),
    }
}

fn name_in_block(name: &str) -> Option<String> {
    let (index, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let index = index.parse().ok()?;
    let (part, kind) = part.rsplit_once('.')?;
    let module = match part {
        "attn_q" => LinearKind::Query.module(),
        "attn_k" => LinearKind::Key.module(),
        "attn_v" => LinearKind::Value.module(),
        "attn_output" => LinearKind::Output.module(),
        "ffn_gate" => LinearKind::Gate.module(),
        "ffn_up" => LinearKind::Up.module(),
        "ffn_down" => LinearKind::Down.module(),
        "attn_norm" => block::ATTENTION_NORM,
        "ffn_norm" => block::MLP_NORM,
        "attn_q_norm" => block::QUERY_NORM,
        "attn_k_norm" => block::KEY_NORM,
        _ => return None,
    };
    match kind {
        "weight" => Some(tensor_name(index, module)),
        "bias" => Some(block::bias_name(index, module)),
        _ => None,
    }
}
