//! Whole matrices, which are read once.

use crate::element::Real;
use crate::error::Result;
use crate::matrix::{Rows, zeros};
use crate::{kernels, parallel};

/// A copy of the whole matrix, row-major.
///
/// # Errors
///
/// What reading gives, and [`Error::TooLarge`] if there is no memory for the copy.
pub(crate) fn read_all<T: Real>(matrix: &dyn Rows<T>) -> Result<Vec<T>> {
    let (rows, columns) = matrix.dim();
    let mut copy = zeros(rows, columns)?;
    let work = copy.chunks_exact_mut(columns.max(1)).enumerate().collect();
    parallel::try_each(work, || (), |(), (row, out)| matrix.read(row, 0, out))?;
    Ok(copy)
}

/// The largest magnitude of a matrix whose values are finite.
///
/// # Errors
///
/// What reading gives.
pub(crate) fn largest<T: Real>(matrix: &dyn Rows<T>) -> Result<T> {
    let (rows, columns) = matrix.dim();
    let of_runs = parallel::map(
        parallel::runs(rows, parallel::rows_a_task(rows, columns)),
        || vec![T::zero(); columns],
        |buffer, run| {
            run.into_iter().try_fold(T::zero(), |largest, row| {
                matrix.read(row, 0, buffer)?;
                Ok(kernels::largest(&[largest, kernels::largest(buffer)]))
            })
        },
    );
    let of_runs = of_runs.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(kernels::largest(&of_runs))
}
