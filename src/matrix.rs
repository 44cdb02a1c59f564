//! How metrics read weights and patterns read scores: a row at a time, as a rule.

use ndarray::{ArrayBase, ArrayRef2, ArrayViewMut1, Data, Ix2, LayoutRef2, s};

use crate::element::{Element, Real, widen_row};
use crate::error::{Error, Result};
use crate::parallel;

/// A matrix whose rows can be read as `T`, however they are stored or computed.
///
/// A metric gets the weights of a layer in this form, a pattern the scores. Reading twice gives
/// the same values. Any two-dimensional ndarray that is owned or a view is one.
pub trait Rows<T: Real>: Send + Sync {
    /// Rows and columns.
    fn dim(&self) -> (usize, usize);

    /// Fills `out` with the values of `row` from column `start` on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if the matrix has no such run; whatever the source may find wrong
    /// with its values, for example [`Error::InvalidScore`].
    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()>;

    /// Fills `out` with the values of `row` and the rows after it from column `start` on, `width`
    /// of each, one row after the other, and leaves alone what room there is for less than a row.
    /// By default rows are [read](Self::read) one by one.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    fn read_block(&self, row: usize, start: usize, width: usize, out: &mut [T]) -> Result<()> {
        read_one_by_one(self, row, start, width, out)
    }
}

/// A matrix that was asked for its shape once, so that it cannot change on the way.
pub(crate) struct FixedShape<'a, T> {
    rows: &'a dyn Rows<T>,
    dim: (usize, usize),
}

impl<'a, T: Real> FixedShape<'a, T> {
    pub(crate) fn new(rows: &'a dyn Rows<T>) -> Self {
        let dim = rows.dim();
        Self { rows, dim }
    }
}

impl<T: Real> Rows<T> for FixedShape<'_, T> {
    fn dim(&self) -> (usize, usize) {
        self.dim
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        self.rows.read(row, start, out)
    }

    fn read_block(&self, row: usize, start: usize, width: usize, out: &mut [T]) -> Result<()> {
        self.rows.read_block(row, start, width, out)
    }
}

/// What [`Rows::read_block`] does by default.
pub(crate) fn read_one_by_one<T: Real>(
    rows: &(impl Rows<T> + ?Sized),
    row: usize,
    start: usize,
    width: usize,
    out: &mut [T],
) -> Result<()> {
    if width == 0 {
        return Ok(());
    }
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        rows.read(row.saturating_add(i), start, out)?;
    }
    Ok(())
}

impl<A, S> Rows<A::Compute> for ArrayBase<S, Ix2>
where
    A: Element,
    S: Data<Elem = A> + Send + Sync,
{
    fn dim(&self) -> (usize, usize) {
        LayoutRef2::dim(self)
    }

    fn read(&self, row: usize, start: usize, out: &mut [A::Compute]) -> Result<()> {
        check_bounds(LayoutRef2::dim(self), row, start, out.len())?;
        widen_row(&self.slice(s![row, start..start + out.len()]), out);
        Ok(())
    }
}

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

/// As many zeros as a matrix has numbers.
///
/// # Errors
///
/// [`Error::TooLarge`] if there is no memory for them.
pub(crate) fn zeros<T: Real>(rows: usize, columns: usize) -> Result<Vec<T>> {
    let too_large = || Error::TooLarge { rows, columns };
    let len = rows.checked_mul(columns).ok_or_else(too_large)?;
    // Only trying: memory that comes zeroed is touched later, by the threads that work on it.
    Vec::<T>::new()
        .try_reserve_exact(len)
        .map_err(|_| too_large())?;
    Ok(vec![T::zero(); len])
}

/// Checks that a matrix of shape `dim` has `len` columns in `row` from `start` on.
pub(crate) fn check_bounds(
    (rows, columns): (usize, usize),
    row: usize,
    start: usize,
    len: usize,
) -> Result<()> {
    if row < rows && start.checked_add(len).is_some_and(|end| end <= columns) {
        Ok(())
    } else {
        Err(Error::OutOfBounds {
            row,
            start,
            len,
            rows,
            columns,
        })
    }
}

/// How many numbers on the next row begins.
pub(crate) fn stride<A>(matrix: &ArrayRef2<A>) -> usize {
    matrix.strides()[0].unsigned_abs()
}

/// Changes a row as a run of values: the row itself where it is one, else a copy in `buffer`, which
/// is written back.
pub(crate) fn change_row<A: Copy, R>(
    row: &mut ArrayViewMut1<'_, A>,
    buffer: &mut Vec<A>,
    work: impl FnOnce(&mut [A]) -> R,
) -> R {
    if let Some(run) = row.as_slice_mut() {
        return work(run);
    }
    buffer.clear();
    buffer.extend(row.iter());
    let result = work(buffer);
    for (x, &changed) in row.iter_mut().zip(&*buffer) {
        *x = changed;
    }
    result
}
