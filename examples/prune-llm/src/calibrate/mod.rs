//! Texts, what flows through a model for them, and the statistics of it.

mod files;
mod hidden;
mod imatrix;
mod inputs;
mod norms;
pub mod sample;
mod text;

pub use files::Files;
pub use hidden::HiddenStates;
pub use inputs::InputStats;
pub use norms::{InputNorms, OUTLIER_FACTOR, norms_of_block};
pub use text::Sequences;
