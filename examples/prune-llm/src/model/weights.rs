//! A model on disk, read part by part, and both of its ends.

use super::{
    block::{Block, ForwardPass},
    compute::linear,
    config::Config,
    family::{Family, SUPPORTED},
    files::{FileLayout, TensorSource, check, load},
    spec::{BlockSpec, EMBEDDING, FINAL_NORM, HEAD},
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Shape, Tensor};
use std::{cell::RefCell, collections::HashSet, io::Write, rc::Rc};

/// A model on disk. Its parts are read when they are asked for, in the type they are stored in,
/// and are gone when they are dropped.
#[derive(Debug)]
pub struct Model {
    family: Rc<dyn Family>,
    source: RefCell<Box<dyn TensorSource>>,
}

impl Model {
    /// Checks that everything is there, and reads none of it.
    ///
    /// # Errors
    /// A tensor is missing, of the wrong type or shape, or one that the architecture does not have.
    pub(super) fn open(family: Rc<dyn Family>, source: Box<dyn TensorSource>) -> Result<Self> {
        let config = family.config();
        refuse_unknown_tensors(&*family, &*source)?;
        ensure!(
            config.tie_word_embeddings || source.contains(HEAD),
            "the model has no `{HEAD}`, and its configuration does not tie the output head to \
             the embedding (`tie_word_embeddings`)"
        );
        for (name, shape) in tensors(&*family) {
            check(&*source, &name, shape)?;
        }
        Ok(Self {
            source: RefCell::new(source),
            family,
        })
    }

    /// What the model's family knows of it.
    pub fn family(&self) -> &dyn Family {
        &*self.family
    }

    /// What the program has to know of any model.
    pub fn config(&self) -> &Config {
        self.family.config()
    }

    /// What each block consists of.
    pub fn spec(&self) -> &BlockSpec {
        self.family.block()
    }

    /// How many transformer blocks there are.
    pub fn blocks(&self) -> usize {
        self.config().num_hidden_layers
    }

    /// Reads a transformer block.
    pub fn block(&self, index: usize) -> Result<Block> {
        Block::load(index, self.spec(), &mut **self.source.borrow_mut())
    }

    /// Reads what turns tokens into the first block's input.
    pub fn embedding(&self) -> Result<Embedding> {
        let table = self.load(EMBEDDING, self.config().table_shape())?;
        Ok(Embedding { table })
    }

    /// Reads what turns the last block's output into logits.
    pub fn output(&self) -> Result<Output> {
        self.output_with(&self.load(self.config().head_name(), self.config().table_shape())?)
    }

    /// Reads both ends of the model, and what they share once.
    pub fn ends(&self) -> Result<(Embedding, Output)> {
        let embedding = self.embedding()?;
        let output = if self.config().tie_word_embeddings {
            self.output_with(&embedding.table)?
        } else {
            self.output()?
        };
        Ok((embedding, output))
    }

    /// The type that the model's hidden states have where it was made: that of the embedding.
    pub fn dtype(&self) -> Result<DType> {
        Ok(self.source.borrow().info(EMBEDDING)?.0)
    }

    /// The safetensors files that a pruned copy consists of.
    pub fn layout(&self) -> Result<Vec<FileLayout>> {
        self.source.borrow().layout()
    }

    /// Writes a tensor's bytes as they are.
    pub fn copy(&self, name: &str, to: &mut dyn Write) -> Result<()> {
        self.source.borrow_mut().copy(name, to)
    }

    fn load(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        load(&mut **self.source.borrow_mut(), name, shape)
    }

    fn output_with(&self, head: &Tensor) -> Result<Output> {
        let norm = self.load(FINAL_NORM, self.config().hidden_size)?;
        Ok(Output {
            family: Rc::clone(&self.family),
            norm: norm.to_dtype(DType::F32)?,
            head: head.to_dtype(DType::F32)?,
        })
    }

    /// What the blocks compute, for texts of `positions` tokens.
    pub fn forward_pass(&self, positions: usize) -> Result<Box<dyn ForwardPass>> {
        let limit = self.config().max_position_embeddings;
        ensure!(
            positions <= limit,
            "a text of {positions} tokens is longer than the {limit} the model was made for; \
             choose a shorter `--sequence-length` or `--eval-length`"
        );
        Ok(self.family.forward_pass(positions)?)
    }
}

/// The table of what every token becomes.
#[derive(Debug)]
pub struct Embedding {
    table: Tensor,
}

impl Embedding {
    /// Looks up texts of equal length: `[sequences, tokens, hidden]` in f32.
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
    family: Rc<dyn Family>,
    norm: Tensor,
    head: Tensor,
}

impl Output {
    /// Logits `[sequences, tokens, vocabulary]`.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.family.final_norm(&x.contiguous()?, &self.norm)?;
        Ok(linear(&x, &self.head)?)
    }
}

/// Every tensor of a model, with its shape.
pub fn tensors(family: &dyn Family) -> impl Iterator<Item = (String, Vec<usize>)> {
    let config = family.config();
    let (tokens, features) = config.table_shape();
    let table = |name: &str| (name.to_owned(), vec![tokens, features]);
    let ends = [
        table(EMBEDDING),
        table(config.head_name()),
        (FINAL_NORM.to_owned(), vec![features]),
    ];
    let blocks = 0..config.num_hidden_layers;
    let blocks = blocks.flat_map(|index| family.block().tensors(index));
    blocks.chain(ends)
}

/// A tensor that the forward pass knows nothing of (a bias, an expert, a norm of the queries) would
/// make its results wrong, so it is an error and not ignored.
fn refuse_unknown_tensors(family: &dyn Family, source: &dyn TensorSource) -> Result<()> {
    let known: HashSet<String> = tensors(family)
        .map(|(name, _)| name)
        // Some checkpoints carry a copy of the embedding.
        .chain([HEAD.to_owned()])
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
