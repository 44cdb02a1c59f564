//! Layers that are decided row by row.

use super::run;
use crate::element::Real;
use crate::error::Result;
use crate::mask::{Mask, MaskRow};
use crate::matrix::Rows;
use crate::parallel;

/// Marks a layer row by row, given the number of each row, its scores, and its marks, which are
/// empty: for patterns that [project](crate::SparsityPattern::project) by code. Rows go to threads.
///
/// # Errors
///
/// What reading `scores` gives, and [`Error::TooLarge`](crate::Error::TooLarge) if there is no memory for the mask.
///
/// # Example
///
/// ```
/// use wanda::{ndarray::array, pattern::mark_rows};
///
/// let scores = array![[0.1_f32, 3.0], [0.5, 0.6]];
/// let mask = mark_rows(&scores, |_row, scores, marks| marks.fill(|j| scores[j] < 0.55))?;
/// assert_eq!(mask.iter().collect::<Vec<_>>(), [(0, 0), (1, 0)]);
/// # Ok::<(), wanda::Error>(())
/// ```
pub fn mark_rows<T: Real>(
    scores: &dyn Rows<T>,
    decide: impl Fn(usize, &[T], &mut MaskRow<'_>) + Send + Sync,
) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let mut mask = Mask::none(rows, columns)?;
    let work = mask.rows_mut().into_iter().enumerate().collect();
    parallel::try_each(
        work,
        || vec![T::default(); columns],
        |buffer, (row, mut marks)| {
            scores.read(row, 0, buffer)?;
            decide(row, buffer, &mut marks);
            Ok(())
        },
    )?;
    Ok(mask)
}

impl MaskRow<'_> {
    /// Marks the `count` lowest of `scores`, which are those of the columns from `start` on.
    ///
    /// Of equal scores the lower column is marked first. Marks that are there stay. Scores past
    /// the end of the row do not count, and at most as many are marked as there are.
    ///
    /// Time is linear in the number of scores, and nothing is allocated.
    pub fn mark_lowest<T: Real>(&mut self, start: usize, scores: &[T], count: usize) {
        let len = scores.len().min(self.columns().saturating_sub(start));
        run::mark_lowest(&scores[..len], count, self.words_mut(), start);
    }
}
