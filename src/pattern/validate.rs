//! Has a finished matrix a pattern?

use ndarray::{ArrayRef2, Axis};

use super::{SparsityPattern, project};
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::mask::Mask;
use crate::matrix::{Rows, check_bounds};

/// Checks that a finished matrix has a pattern, exactly, and that its zeros are `+0.0`.
///
/// A matrix with more zeros than the pattern asks for has the pattern.
///
/// # Errors
///
/// [`Error::NegativeZero`] or [`Error::PatternViolated`] with the first place that is wrong,
/// [`Error::TooDense`] for [`Pattern::Cumulative`](super::Pattern::Cumulative), and whatever is
/// wrong with the pattern itself.
///
/// # Example
///
/// ```
/// use wanda::{Pattern, ndarray::array, validate};
///
/// let w = array![[1.0_f32, 0.0, 0.0, 2.0], [1.0, 2.0, 3.0, 0.0]];
/// let error = validate(&w, &Pattern::NOfM { keep: 2, of: 4 }).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the matrix is not 2:4: the weight in row 1, column 0 should be zero"
/// );
/// ```
pub fn validate<A: Element, P: SparsityPattern<A::Compute> + ?Sized>(
    w: &ArrayRef2<A>,
    pattern: &P,
) -> Result<()> {
    for (row, weights) in w.axis_iter(Axis(0)).enumerate() {
        if let Some(column) = weights.iter().position(|w| w.is_negative_zero()) {
            return Err(Error::NegativeZero { row, column });
        }
    }
    pattern.validate(&Mask::of_zeros(w)?)
}

/// Checks that `pattern` finds enough to prune among the zeros alone.
pub(super) fn validate_projection<T: Real>(
    pattern: &(impl SparsityPattern<T> + ?Sized),
    zeros: &Mask,
) -> Result<()> {
    let (rows, columns) = zeros.dim();
    pattern.check(rows, columns)?;
    let lacking = project(pattern, &NotZero(zeros), 0..columns)?;
    match lacking.first_common(&zeros.complement()) {
        None => Ok(()),
        Some((row, column)) => Err(Error::PatternViolated {
            pattern: pattern.name(),
            row,
            column,
        }),
    }
}

/// A score of 1 for every weight that is not zero.
struct NotZero<'a>(&'a Mask);

impl<T: Real> Rows<T> for NotZero<'_> {
    fn dim(&self) -> (usize, usize) {
        self.0.dim()
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        check_bounds(self.0.dim(), row, start, out.len())?;
        for (j, out) in out.iter_mut().enumerate() {
            let zero = self.0.get(row, start + j) == Some(true);
            *out = if zero { T::zero() } else { T::one() };
        }
        Ok(())
    }
}
