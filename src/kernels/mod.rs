//! The inner loops: plain functions on runs of numbers, which know nothing of layers.
//!
//! Every reduction runs over a fixed number of lanes, so a result has the same bits whatever
//! instructions the compiler finds for it.

mod accumulate;
mod mark;
mod score;
mod select;

pub(crate) use accumulate::{RowCost, add_squares, dot, row_cost, subtract_scaled};
pub(crate) use mark::{largest, zero_marked};
pub(crate) use score::{abs, scaled_abs};
pub(crate) use select::{cut, mark_lowest, mark_lowest_of_groups};
