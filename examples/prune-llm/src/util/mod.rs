//! What knows nothing of models: files, checksums, progress, and candle's tensors as matrices.

pub(crate) mod checksum;
pub(crate) mod json;
pub(crate) mod matrix;
mod progress;
pub(crate) mod staging;

pub use progress::Progress;
