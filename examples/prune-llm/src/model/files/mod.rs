//! Models as files: safetensors files read and written tensor by tensor, without their weights in
//! memory.

mod checkpoint;
mod layout;
mod raw;
mod source;
mod writer;

pub(super) use checkpoint::{Checkpoint, companions, config_text};
pub use checkpoint::{Shard, is_wanted};
pub use layout::FileLayout;
pub(super) use source::{TensorSource, check, load};
pub use writer::{RECORD, Writer, check_output};
