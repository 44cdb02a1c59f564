//! Texts on their way through a model, block by block.

use super::text::Sequences;
use crate::{
    model::{Block, FileLayout, Flow, ForwardPass, Model, Observer, Shard, Writer},
    util::staging,
};
use anyhow::{Context, Result};
use candle_core::{DType, Tensor};
use indicatif::ProgressBar;
use std::path::Path;

/// What one block puts out, and the next one reads, for every token of some texts.
#[derive(Debug)]
pub struct HiddenStates {
    batches: Vec<Tensor>,
    /// What they are kept in between two blocks, each of which computes in f32.
    dtype: DType,
    forward: Box<dyn ForwardPass>,
}

impl HiddenStates {
    /// What the first block reads.
    pub fn embed(model: &Model, texts: &Sequences, dtype: DType) -> Result<Self> {
        // First, since it refuses texts that are too long.
        let forward = model.forward_pass(texts.length())?;
        let embedding = model.embedding()?;
        let batches = texts.batches().map(|tokens| {
            let x = embedding.embed(tokens, tokens.len() / texts.length())?;
            anyhow::Ok(x.to_dtype(dtype)?)
        });
        Ok(Self {
            batches: batches.collect::<Result<_>>()?,
            dtype,
            forward,
        })
    }

    /// How many steps each pass over them takes.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Shows `observer` the inputs of a block's layers.
    pub fn observe(
        &self,
        block: &Block,
        observer: &mut dyn Observer,
        bar: &ProgressBar,
    ) -> Result<()> {
        for x in &self.batches {
            block.observe(&x.to_dtype(DType::F32)?, &*self.forward, observer)?;
            bar.inc(1);
        }
        Ok(())
    }

    /// Replaces them by what a block puts out, and shows `observer` the inputs of its layers.
    pub fn advance(
        &mut self,
        block: &Block,
        observer: &mut dyn Observer,
        bar: &ProgressBar,
    ) -> Result<()> {
        for x in &mut self.batches {
            let next = block.forward(&x.to_dtype(DType::F32)?, &*self.forward, observer)?;
            *x = next.to_dtype(self.dtype)?;
            bar.inc(1);
        }
        Ok(())
    }

    /// What comes before the first stage of a block, batch by batch.
    pub fn enter(&self, block: &Block) -> Result<Vec<Flow>> {
        let batches = self.batches.iter();
        batches
            .map(|x| block.enter(&x.to_dtype(DType::F32)?, &*self.forward))
            .collect()
    }

    /// Runs one stage of a block on all batches.
    pub fn stage(
        &self,
        input: usize,
        block: &Block,
        flows: &mut [Flow],
        bar: &ProgressBar,
    ) -> Result<()> {
        for flow in flows {
            *flow = block.stage(input, flow, &*self.forward)?;
            bar.inc(1);
        }
        Ok(())
    }

    /// Replaces them by what all stages of a block have made of them.
    pub fn leave(&mut self, flows: Vec<Flow>) -> Result<()> {
        for (x, flow) in self.batches.iter_mut().zip(flows) {
            *x = flow.hidden.to_dtype(self.dtype)?;
        }
        Ok(())
    }

    /// What they flow through.
    pub fn forward(&self) -> &dyn ForwardPass {
        &*self.forward
    }

    /// The texts one after the other, `[1, tokens, hidden]` in f32.
    pub fn texts(&self) -> impl Iterator<Item = candle_core::Result<Tensor>> {
        self.batches.iter().flat_map(|batch| {
            (0..batch.dims()[0]).map(move |text| batch.narrow(0, text, 1)?.to_dtype(DType::F32))
        })
    }

    /// Writes them to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let batches = || (0..).map(batch_name).zip(&self.batches);
        let infos = batches().map(|(name, x)| (name, x.dtype(), x.shape().clone()));
        let layout = FileLayout::new(file, infos)?;
        let mut writer = Writer::open(staging::parent(path), vec![layout])?;
        for (name, x) in batches() {
            writer.write(&name, x)?;
        }
        Ok(())
    }

    /// Reads those of `texts` that were written to a file.
    ///
    /// # Errors
    /// The file is missing, damaged, or of other texts.
    pub fn load(model: &Model, texts: &Sequences, dtype: DType, path: &Path) -> Result<Self> {
        let file = Shard::open(path)?;
        let width = model.config().hidden_size;
        let batches = texts.batches().enumerate().map(|(index, tokens)| {
            let x = file.read(&batch_name(index))?;
            let shape = (tokens.len() / texts.length(), texts.length(), width);
            anyhow::Ok(x.reshape(shape)?.to_dtype(dtype)?)
        });
        Ok(Self {
            batches: batches
                .collect::<Result<_>>()
                .with_context(|| format!("`{}` is damaged", path.display()))?,
            dtype,
            forward: model.forward_pass(texts.length())?,
        })
    }
}

fn batch_name(index: usize) -> String {
    format!("batch.{index}")
}
