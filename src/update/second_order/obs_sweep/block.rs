//! A block of columns, and what stays the same from block to block.

use std::ops::Range;

use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels;
use crate::linalg::Factor;
use crate::mask::Mask;
use crate::scores::Scoring;
use crate::update::UpdateTask;

/// What stays the same from block to block.
pub(super) struct Sweep<'a, T: Real> {
    pub(super) task: &'a UpdateTask<'a, T>,
    pub(super) factor: &'a Factor<T>,
    pub(super) scoring: Scoring<'a, T>,
    /// Inputs that were zero throughout.
    pub(super) dead: Vec<bool>,
    /// Weights that will be zero whatever metric and pattern say, if there are any.
    pub(super) zeroed: Option<&'a Mask>,
    /// Brings weights near 1 where they are squared.
    pub(super) scale: f64,
}

impl<T: Real> Sweep<'_, T> {
    /// Replaces the dense weights of a row of a block by what is to be subtracted from them.
    /// Returns what damping adds to their part of Σ e², scaled.
    pub(super) fn replace_dense(
        &self,
        row: usize,
        block: &Block<'_, T>,
        dense: &mut [T],
        stored: &[T],
    ) -> Result<f64> {
        let start = block.columns.start;
        if !kernels::largest(stored).is_finite()
            && let Some(column) = stored.iter().position(|weight| !weight.is_finite())
        {
            return Err(Error::Overflow {
                row,
                column: start + column,
                value: stored[column].as_f64(),
            });
        }
        for (dense, &stored) in dense.iter_mut().zip(stored) {
            *dense = *dense - stored;
        }
        let columns = block.columns.clone();
        Ok(self
            .factor
            .damping_energy(columns, dense, self.scale, &block.dead))
    }
}

/// Columns that are decided together.
pub(super) struct Block<'a, T> {
    pub(super) columns: Range<usize>,
    /// U on these columns, row-major.
    pub(super) inverse: &'a [T],
    /// What the pattern prunes.
    pub(super) choice: &'a Choice,
    /// Columns of the layer whose input is dead.
    pub(super) dead: Vec<usize>,
}

/// What the pattern prunes of a block.
pub(super) enum Choice {
    /// What it chose before the block is swept.
    Mask(Mask),
    /// So many of every run of `of` columns, when the sweep reaches it, and of a shorter one at the
    /// end of the layer.
    Runs {
        of: usize,
        count: usize,
        of_last: usize,
    },
}
