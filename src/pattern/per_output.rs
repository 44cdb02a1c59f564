//! Single weights, compared within an output.

use super::{RowRule, quota};
use crate::element::Real;
use crate::mask::MaskRow;

/// Prunes the same number of weights of every row.
#[derive(Debug)]
pub(super) struct PerOutput {
    pub(super) sparsity: f64,
}

impl<T: Real> RowRule<T> for PerOutput {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, quota(scores.len(), self.sparsity));
    }

    fn lowest(&self, columns: usize) -> Option<usize> {
        Some(quota(columns, self.sparsity))
    }
}

/// Prunes a given number of weights of every row.
#[derive(Debug)]
pub(super) struct Lowest {
    pub(super) count: usize,
}

impl<T: Real> RowRule<T> for Lowest {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, self.count);
    }

    fn lowest(&self, _: usize) -> Option<usize> {
        Some(self.count)
    }
}
