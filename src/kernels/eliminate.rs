//! The innermost loop of the sweep that makes up for pruned weights.

use std::ops::Range;

use super::dispatch::kernel;
use crate::element::Real;

/// Rows that are swept together.
///
/// So many that compilers keep the loop over them a loop, of whole vectors; with fewer, they
/// unroll it and then vectorise along the columns, which is several times slower.
pub(crate) const ROWS: usize = 64;

kernel! {
    /// Takes some columns of a block of weights from left to right, in [`ROWS`] rows at once.
    ///
    /// `weights` and `goes` hold a column each, an entry a row. Weights that go become zero, the
    /// others are rounded by `round`, if given. What that takes away is made up for by the
    /// weights to the right: with U the upper triangular `inverse` (row-major, one row and column
    /// for each column of the block),
    ///
    /// ```text
    /// e = (old − new) / U[i, i]
    /// weights[j] −= e · U[i, j]        for j > i
    /// ```
    ///
    /// Adds (scale · e)² to the row's entry of `squares`.
    ///
    /// # Errors
    ///
    /// Row and column of the first error that is not finite. The weights are in between then.
    pub(crate) fn eliminate<T: Real>(
        weights: &mut [[T; ROWS]],
        goes: &[[bool; ROWS]],
        columns: Range<usize>,
        inverse: &[T],
        round: Option<fn(&mut [T])>,
        scale: f64,
        squares: &mut [f64; ROWS],
    ) -> Result<(), (usize, usize)> {
        let width = weights.len();
        for column in columns {
            let (done, right) = weights.split_at_mut(column + 1);
            let old = done[column];
            let line = &inverse[column * width + column..(column + 1) * width];
            let mut new = old;
            if let Some(round) = round {
                round(&mut new);
            }
            for (new, &goes) in new.iter_mut().zip(&goes[column]) {
                *new = if goes { T::zero() } else { *new };
            }
            let mut errors = [T::zero(); ROWS];
            let mut finite = true;
            for row in 0..ROWS {
                errors[row] = (old[row] - new[row]) / line[0];
                finite &= errors[row].is_finite();
                squares[row] += (errors[row].as_f64() * scale).powi(2);
            }
            if !finite {
                let row = errors.iter().position(|error| !error.is_finite());
                return Err((row.unwrap_or(0), column));
            }
            done[column] = new;
            for (weights, &u) in right.iter_mut().zip(&line[1..]) {
                for row in 0..ROWS {
                    weights[row] = weights[row] - errors[row] * u;
                }
            }
        }
        Ok(())
    }
}
