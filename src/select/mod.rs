//! Which are the lowest? Everything about finding them: of a run of scores, of groups of a run, of
//! the rows, of the columns, and of the whole of a layer.
//!
//! Of equal scores the first ones are marked. Scores are finite or infinite, and not negative.
#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set of the kernel"
)]

mod blocks;
mod columns;
mod groups;
mod layer;
mod rows;
mod run;
mod search;
mod stream;
mod survey;
#[cfg(test)]
mod tests;

pub use rows::mark_rows;

pub(crate) use blocks::mark_lowest_blocks;
pub(crate) use columns::mark_lowest_of_columns;
pub(crate) use groups::{mark_lowest_of_scaled_groups, mark_runs, whole_words};
pub(crate) use layer::{LayerCut, cut_lowest, cut_up_to_rank};
pub(crate) use run::mark_scaled_up_to_cut;
pub(crate) use search::sample_scaled;
pub(crate) use stream::Stream;
