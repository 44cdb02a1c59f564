//! What the sweep knows of a layer and of a block of it, and what it asks of single rows.

use std::ops::Range;

use super::super::UpdateTask;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::second_order::dot;
use crate::linalg::Factor;
use crate::mask::{Mask, is_set};
use crate::metric::{Scorer, settle_scores};
use crate::pattern::RowRule;

/// What stays the same from block to block.
pub(super) struct Sweep<'a, T: Real> {
    pub(super) task: &'a UpdateTask<'a, T>,
    pub(super) factor: &'a Factor<T>,
    pub(super) scorer: &'a dyn Scorer<T>,
    /// Set if the pattern decides within groups of columns: how, and how many.
    pub(super) rule: Option<(Box<dyn RowRule<T> + 'a>, usize)>,
    /// Inputs that were zero throughout.
    pub(super) dead: Vec<bool>,
    /// Weights that are zero whatever metric and pattern say, if there are any.
    pub(super) pinned: Option<Mask>,
    /// Brings weights near 1 where they are squared.
    pub(super) scale: f64,
}

/// Columns that are decided together.
pub(super) struct Block<'a, T> {
    pub(super) columns: Range<usize>,
    /// U on these columns, row-major.
    pub(super) inverse: &'a [T],
    /// What the pattern prunes, unless it decides group by group.
    pub(super) chosen: Option<&'a Mask>,
    /// Columns of the layer whose input is dead.
    pub(super) dead: Vec<usize>,
}

impl<T: Real> Sweep<'_, T> {
    /// Scores a run of updated weights. Zeros, and those that will be zero anyway, score 0.
    pub(super) fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) {
        self.scorer.score(row, start, weights, scores);
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score = if weight.is_zero() { T::zero() } else { *score };
        }
        let Some(pinned) = &self.pinned else { return };
        let words = pinned.row_words(row);
        let end = start + weights.len();
        if words[start / 64..end.div_ceil(64)]
            .iter()
            .all(|&word| word == 0)
        {
            return;
        }
        for (column, score) in (start..).zip(scores) {
            let pinned = is_set(words, column);
            *score = if pinned { T::zero() } else { *score };
        }
    }

    /// Checks scores, and makes those of protected weights infinite; `place` says where in the
    /// layer a score stands, `weight` what it is the score of.
    pub(super) fn settle(
        &self,
        scores: &mut [T],
        place: impl Fn(usize) -> (usize, usize),
        weight: impl Fn(usize) -> T,
    ) -> Result<()> {
        if let Err(index) = settle_scores(scores) {
            let (row, column) = place(index);
            return Err(if weight(index).is_finite() {
                Error::InvalidScore {
                    metric: self.task.metric.name().to_owned(),
                    row,
                    column,
                    score: scores[index].as_f64(),
                }
            } else {
                Error::Overflow {
                    row,
                    column,
                    value: weight(index).as_f64(),
                }
            });
        }
        if self.task.protected.is_some() {
            for (i, score) in scores.iter_mut().enumerate() {
                let (row, column) = place(i);
                if self.task.is_protected(row, column) {
                    *score = T::infinity();
                }
            }
        }
        Ok(())
    }

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
        let dead = block.dead.iter().map(|&column| dense[column - start]);
        let dead: f64 = dead.map(|x| (x.as_f64() * self.scale).powi(2)).sum();
        Ok(self.factor.shift * (dot(dense, dense, self.scale) - dead))
    }
}
