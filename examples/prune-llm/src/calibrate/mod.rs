//! Texts, what flows through a model for them, and the statistics of it.

mod files;
mod hidden;
mod imatrix;
mod inputs;
mod norms;
mod outputs;
pub mod sample;
mod target;
mod text;

pub use files::Files;
pub use hidden::HiddenStates;
pub use inputs::InputStats;
pub use norms::{InputNorms, OUTLIER_FACTOR, norms_of_block};
pub use outputs::output_weights;
pub use target::{Streams, TargetProducts, gather_input};
pub use text::Sequences;
