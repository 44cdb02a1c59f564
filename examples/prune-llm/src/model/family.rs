//! What a family of models answers: what its blocks consist of, and how they compute.

use super::{block::ForwardPass, config::Config, gguf::Container, spec::BlockSpec};
use anyhow::Result;
use candle_core::{DType, Tensor};
use serde_json::Value;
use std::{any::Any, fmt, rc::Rc};

/// What this program can run, for the messages that say what it cannot.
pub(crate) const SUPPORTED: &str = "prune-llm supports the dense models of the types `llama` \
     (`LlamaForCausalLM`: Llama 1 to 3, SmolLM and SmolLM2, TinyLlama and the like), `mistral`, \
     `qwen2` (also Qwen2.5), `qwen3` and `smollm3`";

/// A kind of model by its names, and how to read the description of such a model.
pub(super) trait Architecture: fmt::Debug + Sync {
    /// `model_type` in `config.json`.
    fn model_type(&self) -> &'static str;

    /// The class in `architectures`.
    fn class(&self) -> &'static str;

    /// `general.architecture` in GGUF files, where it is this kind's own name.
    fn gguf(&self) -> Option<&'static str>;

    /// A model by the fields of its `config.json`.
    fn read_json(&'static self, fields: Value) -> Result<Rc<dyn Family>>;

    /// A model by the metadata and the tensors of its GGUF file.
    fn read_gguf(&'static self, file: &Container) -> Result<Rc<dyn Family>>;
}

/// One model as its family sees it.
pub trait Family: fmt::Debug + Any {
    fn config(&self) -> &Config;

    /// What each block consists of.
    fn block(&self) -> &BlockSpec;

    /// The `config.json` of a model that came without one, its matrices being of type `dtype`.
    fn to_json(&self, dtype: DType) -> Value;

    /// Everything the blocks compute, for texts of up to `positions` tokens.
    fn forward_pass(&self, positions: usize) -> candle_core::Result<Box<dyn ForwardPass>>;

    /// The norm after the last block, its weight in f32.
    fn final_norm(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor>;

    /// Bytes that one token of one text takes in the cache of one block.
    fn cache_bytes_per_token(&self) -> usize;
}
