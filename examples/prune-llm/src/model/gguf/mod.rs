//! GGUF files as llama.cpp's tools write them: what is in them, by its own names.

mod container;
mod metadata;
mod rope;
mod source;
mod tokenizer;

pub(super) use container::Container;
pub(super) use rope::rope_config;
pub(super) use source::Gguf;
pub(super) use tokenizer::{companions, tokenizer};
