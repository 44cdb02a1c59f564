//! Llama and its relatives: reading, running block by block, writing.

mod architecture;
mod attention;
mod block;
pub mod checkpoint;
mod config;
pub mod gguf;
mod layer;
mod layout;
pub mod ops;
mod raw;
mod rope;
pub mod save;
mod source;

pub use architecture::{Architecture, SUPPORTED};
pub use attention::KvCache;
pub use block::{Block, Observer, Unobserved, layer_name, tensor_name};
pub use config::{Attention, Config, Llama3Scaling, RopeScaling};
pub use layer::{LinearKind, Tap};
pub use layout::FileLayout;
pub use rope::Rope;
pub use source::TensorSource;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Shape, Tensor};
use source::Unread;
use std::{cell::RefCell, io::Write};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A model on disk. Its parts are read when they are asked for, in the type they are stored in,
/// and are gone when they are dropped.
#[derive(Debug)]
pub struct Model {
    pub config: Config,
    source: RefCell<Box<dyn TensorSource>>,
}

impl Model {
    /// Checks that everything is there, and reads none of it.
    ///
    /// # Errors
    /// A tensor is missing, of the wrong type or shape, or one that the architecture does not have.
    pub fn open(config: Config, source: Box<dyn TensorSource>) -> Result<Self> {
        refuse_unknown_tensors(&config, &*source)?;
        let model = Self {
            source: RefCell::new(source),
            config,
        };
        model.check()?;
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.config.tie_word_embeddings || self.source.borrow().contains(HEAD),
            "the model has no `{HEAD}`, and its configuration does not tie the output head to \
             the embedding (`tie_word_embeddings`)"
        );
        let source = self.source.borrow();
        let mut unread = Unread(&**source);
        for index in 0..self.config.num_hidden_layers {
            Block::load(index, &self.config, &mut unread)?;
        }
        for table in [EMBEDDING, self.head_name()] {
            source::load(&mut unread, table, self.table_shape())?;
        }
        source::load(&mut unread, FINAL_NORM, self.config.hidden_size)?;
        Ok(())
    }

    /// How many transformer blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.config.num_hidden_layers
    }

    /// Reads a transformer block.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn block(&self, index: usize) -> Result<Block> {
        Block::load(index, &self.config, &mut **self.source.borrow_mut())
    }

    /// Reads what turns tokens into the first block's input.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn embedding(&self) -> Result<Embedding> {
        let table = self.load(EMBEDDING, self.table_shape())?;
        Ok(Embedding { table })
    }

    /// Reads what turns the last block's output into logits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn output(&self) -> Result<Output> {
        self.output_with(&self.load(self.head_name(), self.table_shape())?)
    }

    /// Reads both ends of the model, and what they share once.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ends(&self) -> Result<(Embedding, Output)> {
        let embedding = self.embedding()?;
        let output = if self.config.tie_word_embeddings {
            self.output_with(&embedding.table)?
        } else {
            self.output()?
        };
        Ok((embedding, output))
    }

    /// The type that the model's hidden states have where it was made: that of the embedding.
    ///
    /// # Errors
    /// When the type is not supported.
    pub fn dtype(&self) -> Result<DType> {
        Ok(self.source.borrow().info(EMBEDDING)?.0)
    }

    /// The safetensors files that a pruned copy consists of.
    ///
    /// # Errors
    /// When a tensor is of a type that is not supported.
    pub fn layout(&self) -> Result<Vec<FileLayout>> {
        self.source.borrow().layout()
    }

    /// Writes a tensor's bytes as they are.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn copy(&self, name: &str, to: &mut dyn Write) -> Result<()> {
        self.source.borrow_mut().copy(name, to)
    }

    fn head_name(&self) -> &'static str {
        if self.config.tie_word_embeddings {
            EMBEDDING
        } else {
            HEAD
        }
    }

    /// A row for every token.
    fn table_shape(&self) -> (usize, usize) {
        (self.config.vocab_size, self.config.hidden_size)
    }

    fn load(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        source::load(&mut **self.source.borrow_mut(), name, shape)
    }

    fn output_with(&self, head: &Tensor) -> Result<Output> {
        let norm = self.load(FINAL_NORM, self.config.hidden_size)?;
        #[expect(clippy::cast_possible_truncation, reason = "the norms run in f32")]
        let eps = self.config.rms_norm_eps as f32;
        Ok(Output {
            norm: norm.to_dtype(DType::F32)?,
            head: head.to_dtype(DType::F32)?,
            eps,
        })
    }

    /// The rotary tables for texts of `positions` tokens.
    ///
    /// # Errors
    /// When the model was not made for texts that long.
    pub fn rope(&self, positions: usize) -> Result<Rope> {
        let limit = self.config.max_position_embeddings;
        ensure!(
            positions <= limit,
            "a text of {positions} tokens is longer than the {limit} the model was made for; \
             choose a shorter `--sequence-length` or `--eval-length`"
        );
        Ok(Rope::new(&self.config, positions)?)
    }
}

/// The table of what every token becomes.
#[derive(Debug)]
pub struct Embedding {
    table: Tensor,
}

impl Embedding {
    /// Looks up texts of equal length: `[sequences, tokens, hidden]` in f32.
    ///
    /// # Errors
    /// A token that is not in the model's vocabulary.
    pub fn embed(&self, tokens: &[u32], sequences: usize) -> Result<Tensor> {
        let (vocabulary, width) = self.table.dims2()?;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            bail!(
                "the tokenizer made token {token}, but the model's vocabulary has only \
                 {vocabulary}: tokenizer and model do not belong together"
            );
        }
        let length = tokens.len().checked_div(sequences).unwrap_or(0);
        let ids = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
        self.table
            .index_select(&ids, 0)?
            .to_dtype(DType::F32)?
            .reshape((sequences, length, width))
            .context("texts of unequal length")
    }
}

/// The final norm and the output head, in f32.
#[derive(Debug)]
pub struct Output {
    norm: Tensor,
    head: Tensor,
    eps: f32,
}

impl Output {
    /// Logits `[sequences, tokens, vocabulary]`.
    ///
    /// # Errors
    /// When candle cannot compute.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let x = candle_nn::ops::rms_norm(&x.contiguous()?, &self.norm, self.eps)?;
        Ok(block::linear(&x, &self.head)?)
    }
}

/// A tensor that the forward pass knows nothing of (a bias, an expert, a norm of the queries) would
/// make its results wrong, so it is an error and not ignored.
fn refuse_unknown_tensors(config: &Config, source: &dyn TensorSource) -> Result<()> {
    let known: std::collections::HashSet<String> = (0..config.num_hidden_layers)
        .flat_map(|index| block::tensor_names(index, config))
        .chain([EMBEDDING, FINAL_NORM, HEAD].map(str::to_owned))
        .collect();
    let mut names = source.names();
    names.sort_unstable();
    // Old checkpoints carry the rotary frequencies, which the configuration gives as well.
    names.retain(|name| !known.contains(name) && !name.ends_with("rotary_emb.inv_freq"));
    match names.first() {
        None => Ok(()),
        Some(name) => bail!(
            "the checkpoint has {} this program knows nothing of, `{name}` for one; {SUPPORTED}",
            match names.len() {
                1 => "a tensor".to_owned(),
                count => format!("{count} tensors"),
            }
        ),
    }
}
