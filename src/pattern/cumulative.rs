//! The appendix variant of the Wanda paper: rows cut where their scores add up to a share α.

use ndarray::{Array2, Axis};

use super::Pattern;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::{Mask, fraction};
use crate::matrix::{Rows, zeros};
use crate::parallel;

/// The greatest share of a row's sum that is tried.
const MOST: f64 = 0.8;
/// How close the sparsity has to come, and how narrow the range of α may become.
const TOLERANCE: f64 = 0.001;

/// Marks what the α that fits `sparsity` cuts off.
pub(super) fn project<T: Real>(scores: &dyn Rows<T>, sparsity: f64) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let sorted = sort_rows(scores)?;
    let (mut least, mut most) = (0.0, MOST);
    let mut alpha = f64::midpoint(least, most);
    let cuts = loop {
        let cuts = cut_rows(&sorted, alpha);
        let found = fraction(cuts.iter().map(|cut| cut.count).sum(), rows, columns);
        if (found - sparsity).abs() <= TOLERANCE || most - least < TOLERANCE {
            break cuts;
        }
        if found > sparsity {
            most = alpha;
        } else {
            least = alpha;
        }
        alpha = f64::midpoint(least, most);
    };

    let mut mask = Mask::none(rows, columns)?;
    let work = mask.rows_mut().into_iter().zip(&cuts).enumerate().collect();
    parallel::try_each(
        work,
        || vec![T::default(); columns],
        |buffer, (row, (mut marks, cut))| {
            scores.read(row, 0, buffer)?;
            if let Some(threshold) = cut.threshold {
                marks.fill(|column| buffer[column] <= threshold);
            }
            Ok(())
        },
    )?;
    Ok(mask)
}

/// Checks that a finished matrix is about as sparse as asked for.
pub(super) fn validate(pattern: &Pattern, zeros: &Mask, sparsity: f64) -> Result<()> {
    let found = zeros.sparsity();
    let expected = sparsity - TOLERANCE;
    if found >= expected || zeros.dim().0 * zeros.dim().1 == 0 {
        Ok(())
    } else {
        Err(Error::TooDense {
            pattern: pattern.to_string(),
            expected,
            found,
        })
    }
}

/// What α cuts off a row.
struct RowCut<T> {
    /// The highest score to go; none if even the lowest is more than the share.
    threshold: Option<T>,
    /// How many scores are no higher.
    count: usize,
}

/// Cuts every row of ascending scores where their sum reaches `alpha` times the sum of all.
///
/// Protected weights have infinite scores: they are no part of the sum and never go.
fn cut_rows<T: Real>(sorted: &Array2<T>, alpha: f64) -> Vec<RowCut<T>> {
    parallel::map(
        sorted.axis_iter(Axis(0)).collect(),
        || (),
        |(), row| {
            let finite = || row.iter().copied().take_while(|score| score.is_finite());
            let total = |scale: f64| finite().map(|score| scale * score.as_f64()).sum::<f64>();
            // Only scores of `f64` weights can add up to infinity; a power of two scales exactly.
            let scale = if total(1.0).is_finite() {
                1.0
            } else {
                2_f64.powi(-64)
            };
            let share = alpha * total(scale);
            let mut sum = 0.0;
            let threshold = finite()
                .take_while(|score| {
                    sum += scale * score.as_f64();
                    sum <= share
                })
                .last();
            let count = threshold.map_or(0, |threshold| {
                finite().take_while(|&score| score <= threshold).count()
            });
            RowCut { threshold, count }
        },
    )
}

/// All scores, those of each row in ascending order.
fn sort_rows<T: Real>(scores: &dyn Rows<T>) -> Result<Array2<T>> {
    let (rows, columns) = scores.dim();
    let mut sorted = Array2::from_shape_vec((rows, columns), zeros(rows, columns)?)
        .map_err(|_| Error::TooLarge { rows, columns })?;
    let work: Vec<_> = sorted.axis_iter_mut(Axis(0)).enumerate().collect();
    parallel::try_each(
        work,
        || (),
        |(), (row, mut sorted)| {
            // The rows of a new array are contiguous.
            if let Some(run) = sorted.as_slice_mut() {
                scores.read(row, 0, run)?;
                run.sort_unstable_by_key(|score| score.key());
            }
            Ok(())
        },
    )?;
    Ok(sorted)
}
