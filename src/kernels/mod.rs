//! The inner loops: plain functions on runs of numbers, which know nothing of layers.
//!
//! Every reduction runs over a fixed number of lanes, so a result has the same bits whatever
//! instructions the compiler finds for it.
#![allow(
    unsafe_code,
    reason = "numbers are viewed as their bits, and memory is asked for ahead"
)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set of the kernel"
)]

mod accumulate;
mod columns;
mod mark;
mod memory;
mod score;
#[cfg(feature = "second-order")]
pub(crate) mod second_order;
mod zero;

pub(crate) use accumulate::{RUNS, add, add_squares};
pub(crate) use columns::{PIVOTS, SIDE, TILE, count_below, mark_between, sort_columns};
pub(crate) use mark::{MarkWriter, largest, ones, padded, subtract};
pub(crate) use memory::{aligned, prefetch_after};
pub(crate) use score::{Scaled, Words, scaled_abs, scaled_abs_of_rows};
pub(crate) use zero::{RowCost, zero_marked};
