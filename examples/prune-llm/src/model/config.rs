//! What the program has to know of every model, whatever its family.

use super::{
    gguf::Container,
    spec::{EMBEDDING, HEAD},
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// The fields of `config.json` that all families share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub vocab_size: usize,
    pub num_hidden_layers: usize,
    pub max_position_embeddings: usize,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    #[serde(default, rename = "eos_token_id", deserialize_with = "one_or_many")]
    pub eos_token_ids: Vec<u32>,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
    })
}

impl Config {
    /// The same fields from a GGUF file.
    pub(super) fn from_gguf(file: &Container) -> Result<Self> {
        let metadata = &file.metadata;
        let vocab_size = file
            .get("token_embd.weight")
            .and_then(|tensor| tensor.shape.dims().first().copied())
            .context("the file has no tensor `token_embd.weight`")?;
        let eos = metadata.optional_token("tokenizer.ggml.eos_token_id")?;
        Ok(Self {
            hidden_size: metadata.size(&file.key("embedding_length")?)?,
            vocab_size,
            num_hidden_layers: metadata.size(&file.key("block_count")?)?,
            max_position_embeddings: metadata.size(&file.key("context_length")?)?,
            tie_word_embeddings: file.get("output.weight").is_none(),
            bos_token_id: metadata.optional_token("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: eos.into_iter().collect(),
        })
    }

    /// Refuses sizes that no model has, before anything is allocated for them.
    pub(super) fn check(&self) -> Result<()> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("vocab_size", self.vocab_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        ensure!(
            self.num_hidden_layers <= 1 << 12,
            "`num_hidden_layers` is {}, which no model has",
            self.num_hidden_layers
        );
        Ok(())
    }

    /// A row for every token.
    pub(super) fn table_shape(&self) -> (usize, usize) {
        (self.vocab_size, self.hidden_size)
    }

    /// The name of the output head's tensor.
    pub(super) fn head_name(&self) -> &'static str {
        if self.tie_word_embeddings {
            EMBEDDING
        } else {
            HEAD
        }
    }

    /// The end-of-text token as transformers writes it: a number, a list or null.
    pub(super) fn eos_json(&self) -> Value {
        match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}

/// Refuses sizes that no model has: products of two are formed further on, and none may overflow.
pub(super) fn check_sizes(sizes: &[(&str, usize)]) -> Result<()> {
    for (name, value) in sizes {
        ensure!(
            (1..=1 << 28).contains(value),
            "`{name}` is {value}, which no model has"
        );
    }
    Ok(())
}
