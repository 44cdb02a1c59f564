//! Models: fetching, reading, running block by block, writing.
//!
//! A family says in a file of [`families`] what its blocks consist of, as the data of a
//! [`BlockSpec`], and how they compute, as a [`ForwardPass`]. Nothing else in this program knows one
//! family from another.

mod block;
mod compute;
mod config;
pub mod families;
mod family;
mod fetch;
mod files;
mod gguf;
mod input;
mod spec;
pub mod tokenizer;
mod weights;

pub use block::{Block, Flow, ForwardPass, Observer, Pass, Unobserved};
pub use compute::{KvCache, RopeScaling, exp, max, sum_exp};
pub use config::Config;
pub use family::Family;
pub use files::{FileLayout, RECORD, Shard, Writer, check_output, is_wanted};
pub use input::{Input, Location, open_folder};
pub use spec::{BlockSpec, LayerSpec, NormSpec, module_name, place};
pub use weights::{Embedding, Model, Output, tensors};
