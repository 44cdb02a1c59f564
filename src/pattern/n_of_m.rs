//! At most N weights left in every M consecutive columns.

use super::RowRule;
use crate::element::Real;
use crate::mask::MaskRow;
use crate::select;

/// Prunes all but the `keep` highest of every run of `of` columns.
#[derive(Debug)]
pub(super) struct NOfM {
    keep: usize,
    of: usize,
}

impl NOfM {
    /// The rule of any numbers, whether they were checked or not.
    pub(super) fn new(keep: usize, of: usize) -> Self {
        Self {
            keep,
            of: of.max(1),
        }
    }
}

impl<T: Real> RowRule<T> for NOfM {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        let scores = &scores[..scores.len().min(marks.columns())];
        select::mark_lowest_of_groups(scores, self.keep, self.of, marks.words_mut());
    }

    fn group(&self) -> Option<usize> {
        Some(self.of)
    }

    fn lowest(&self, columns: usize) -> Option<usize> {
        Some(columns.saturating_sub(self.keep))
    }
}
