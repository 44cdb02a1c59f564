//! The inner loops: plain functions on runs of numbers, which know nothing of layers.
//!
//! Every reduction runs over a fixed number of lanes, so a result has the same bits whatever
//! instructions the compiler finds for it.
//!
//! This is the only folder with code that the compiler cannot check (`unsafe`): intrinsics, calls
//! of functions that are compiled for instructions not every machine has, and a view of numbers as
//! their bits.
#![allow(
    unsafe_code,
    reason = "what is compiled for an instruction set can only be called so"
)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set of the kernel"
)]
#![allow(
    clippy::too_many_arguments,
    reason = "the macro adds the instruction set to what a kernel works on"
)]

mod accumulate;
mod columns;
mod dispatch;
#[cfg(feature = "second-order")]
mod eliminate;
mod groups;
mod mark;
mod memory;
mod score;
mod search;
mod select;
mod simd;
mod stream;
mod survey;
mod zero;

#[cfg(feature = "second-order")]
pub(crate) use accumulate::dot;
pub(crate) use accumulate::{RUNS, add, add_squares};
pub(crate) use columns::{PIVOTS, SIDE, TILE, count_below, mark_between, sort_columns};
use dispatch::InstructionSet;
#[cfg(feature = "second-order")]
pub(crate) use eliminate::{ROWS, eliminate};
pub(crate) use groups::{mark_lowest_of_groups, mark_lowest_of_scaled_groups, whole_words};
#[cfg(feature = "second-order")]
pub(crate) use mark::MarkWriter;
pub(crate) use mark::{largest, ones, subtract};
pub(crate) use memory::{aligned, prefetch_after};
pub(crate) use score::{Scaled, scaled_abs, scaled_abs_of_rows, widen};
pub(crate) use search::{Search, sample_scaled};
pub(crate) use select::{Cut, cut_between, mark_lowest, mark_scaled_up_to_cut, mark_up_to_cut};
pub(crate) use simd::{Clearable, Comparable, WORD};
pub(crate) use stream::Stream;
pub(crate) use survey::{Survey, survey, survey_marking};
pub(crate) use zero::{RowCost, zero_marked};
