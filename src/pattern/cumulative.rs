//! The appendix variant of the Wanda paper: rows cut where their scores add up to a share α.

use std::fmt::{self, Display};
use std::ops::Range;

use ndarray::{Array2, Axis};

use super::comparison::check_block;
use super::parts::{Parsed, parse_sparsity};
use super::{Form, Pattern, SparsityPattern, check_sparsity};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::{Mask, fraction};
use crate::matrix::{FixedShape, Rows, zeros};
use crate::parallel;
use crate::select::mark_rows;

/// Prunes the lowest scores of each row up to a share of their sum. A block of columns is decided
/// like a layer.
#[derive(Debug)]
pub(super) struct Cumulative {
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for Cumulative {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        check_sparsity(self.sparsity)
    }

    fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
        check_sparsity(self.sparsity)?;
        let scores = FixedShape::new(scores);
        check_block(scores.dim().1, &columns)?;
        project(&scores, self.sparsity)
    }

    /// Checks that a finished matrix is about as sparse as asked for.
    fn validate(&self, zeros: &Mask) -> Result<()> {
        check_sparsity(self.sparsity)?;
        let found = zeros.sparsity();
        let expected = self.sparsity - TOLERANCE;
        if found >= expected || zeros.dim().0 * zeros.dim().1 == 0 {
            return Ok(());
        }
        Err(Error::TooDense {
            pattern: self.to_string(),
            expected,
            found,
        })
    }
}

impl<T: Real> Form<T> for Cumulative {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::Cumulative(sparsity))
    }
}

impl Display for Cumulative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cumulative:{}", self.sparsity)
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    match parts {
        ["cumulative", s] => Some(parse_sparsity(s).map(Pattern::Cumulative)),
        _ => None,
    }
}

/// The greatest share of a row's sum that is tried.
const MOST: f64 = 0.8;
/// How close the sparsity has to come, and how narrow the range of α may become.
const TOLERANCE: f64 = 0.001;

/// Marks what the α that fits `sparsity` cuts off.
fn project<T: Real>(scores: &dyn Rows<T>, sparsity: f64) -> Result<Mask> {
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

    mark_rows(scores, |row, scores, marks| {
        if let Some(threshold) = cuts[row].threshold {
            marks.fill(|column| scores[column] <= threshold);
        }
    })
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

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn its_text_can_be_read() {
        check_text("cumulative:0.5", Pattern::Cumulative(0.5));
    }
}
