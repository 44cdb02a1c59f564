//! Llama and its relatives: reading, running block by block, writing.

mod architecture;
mod attention;
mod block;
pub mod checkpoint;
mod config;
pub mod gguf;
mod layer;
pub mod ops;
mod rope;
pub mod save;
mod source;

pub use architecture::{Architecture, SUPPORTED};
pub use attention::KvCache;
pub use block::{Block, Observer, tensor_name};
pub use config::{Attention, Config, Llama3Scaling, RopeScaling};
pub use layer::{LinearKind, Tap};
pub use rope::Rope;
pub use source::TensorSource;

use crate::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A model in memory, every tensor in the type it is stored in.
#[derive(Debug, Clone)]
pub struct Model {
    pub config: Config,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    /// `None` when the embedding serves as the output head too.
    head: Option<Tensor>,
}

impl Model {
    /// Reads all tensors.
    ///
    /// # Errors
    /// A tensor is missing, of the wrong shape, or one that the architecture does not have.
    pub fn load(config: Config, source: &mut dyn TensorSource, progress: Progress) -> Result<Self> {
        refuse_unknown_tensors(&config, source)?;
        let table = (config.vocab_size, config.hidden_size);
        let embedding = source::load(source, EMBEDDING, table)?;
        let bar = progress.bar("reading", config.num_hidden_layers);
        let blocks = (0..config.num_hidden_layers)
            .map(|index| {
                bar.inc(1);
                Block::load(index, &config, source)
            })
            .collect::<Result<_>>()?;
        let head = match (config.tie_word_embeddings, source.contains(HEAD)) {
            (true, _) => None,
            (false, true) => Some(source::load(source, HEAD, table)?),
            (false, false) => bail!(
                "the model has no `{HEAD}`, and its configuration does not tie the output head to \
                 the embedding (`tie_word_embeddings`)"
            ),
        };
        Ok(Self {
            embedding,
            blocks,
            norm: source::load(source, FINAL_NORM, config.hidden_size)?,
            head,
            config,
        })
    }

    /// A copy to prune that leaves this model as it is. All tensors that pruning does not touch
    /// are shared.
    ///
    /// # Errors
    /// When candle cannot copy.
    pub fn prunable_copy(&self) -> Result<Self> {
        let blocks = self.blocks.iter().map(Block::with_own_linears);
        Ok(Self {
            blocks: blocks.collect::<Result<_, _>>()?,
            ..self.clone()
        })
    }

    /// The transformer blocks, first to last.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Every tensor under its Hugging Face name, in the order of the model.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let blocks = self.blocks.iter().enumerate();
        let blocks = blocks.flat_map(|(index, block)| block.tensors(index));
        [(EMBEDDING.to_owned(), &self.embedding)]
            .into_iter()
            .chain(blocks)
            .chain([(FINAL_NORM.to_owned(), &self.norm)])
            .chain(self.head.iter().map(|head| (HEAD.to_owned(), head)))
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

    /// Looks up texts of equal length: `[sequences, tokens, hidden]` in f32.
    ///
    /// # Errors
    /// A token that is not in the model's vocabulary.
    pub fn embed(&self, tokens: &[u32], sequences: usize) -> Result<Tensor> {
        let vocabulary = self.config.vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            bail!(
                "the tokenizer made token {token}, but the model's vocabulary has only \
                 {vocabulary}: tokenizer and model do not belong together"
            );
        }
        let length = tokens.len().checked_div(sequences).unwrap_or(0);
        let ids = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
        self.embedding
            .index_select(&ids, 0)?
            .to_dtype(DType::F32)?
            .reshape((sequences, length, self.config.hidden_size))
            .context("texts of unequal length")
    }

    /// What turns the last block's output into logits.
    ///
    /// # Errors
    /// When candle cannot convert.
    pub fn output(&self) -> Result<Output> {
        #[expect(clippy::cast_possible_truncation, reason = "the norms run in f32")]
        let eps = self.config.rms_norm_eps as f32;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        Ok(Output {
            norm: self.norm.to_dtype(DType::F32)?,
            head: head.to_dtype(DType::F32)?,
            eps,
        })
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
