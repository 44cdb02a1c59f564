//! The operations by LAPACK, through ndarray-linalg; products by ndarray, which calls BLAS where
//! its feature `blas` is on.

use lax::error::Error as LaxError;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Ix2, LinalgScalar, ShapeBuilder, StrideShape, s};
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::{CholeskyInplace, Diag, SolveTriangular, UPLO};

use super::operations::{Operations, Store};
use super::panel::{Panel, PanelMut};

/// The shape of a panel. One without elements has no data that strides could lie within.
fn shape((rows, columns): (usize, usize), stride: usize) -> StrideShape<Ix2> {
    if rows == 0 || columns == 0 {
        (rows, columns).into()
    } else {
        (rows, columns).strides((stride, 1))
    }
}

/// The panel as an ndarray.
fn view<T>(panel: Panel<'_, T>) -> ArrayView2<'_, T> {
    let shape = shape((panel.rows(), panel.columns()), panel.stride());
    ArrayView2::from_shape(shape, panel.data()).expect("a panel lies within its data")
}

/// The panel as an ndarray.
fn view_mut<T>(panel: PanelMut<'_, T>) -> ArrayViewMut2<'_, T> {
    let shape = shape((panel.rows(), panel.columns()), panel.stride());
    ArrayViewMut2::from_shape(shape, panel.into_data()).expect("a panel lies within its data")
}

fn multiply<T: LinalgScalar>(
    store: Store,
    out: PanelMut<'_, T>,
    a: &ArrayView2<'_, T>,
    b: &ArrayView2<'_, T>,
) {
    let factor = match store {
        Store::Replace => T::zero(),
        Store::Add => T::one(),
    };
    general_mat_mul(T::one(), a, b, factor, &mut view_mut(out));
}

/// The operations by LAPACK.
pub(super) struct Lapack;

impl<T: ndarray_linalg::Lapack + LinalgScalar> Operations<T> for Lapack {
    fn product(&self, store: Store, out: PanelMut<'_, T>, a: Panel<'_, T>, b: Panel<'_, T>) {
        multiply(store, out, &view(a), &view(b));
    }

    fn product_reversed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        reversed: Panel<'_, T>,
    ) {
        // BLAS takes no negative strides, so the panel is turned round in a copy.
        let factor = view(reversed).slice_move(s![..;-1, ..;-1]).to_owned();
        multiply(store, out, &view(a), &factor.t());
    }

    fn product_with_transposed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        b: Panel<'_, T>,
    ) {
        multiply(store, out, &view(a), &view(b).t());
    }

    fn cholesky(&self, a: PanelMut<'_, T>) -> Result<(), usize> {
        match view_mut(a).cholesky_inplace(UPLO::Upper) {
            Ok(_) => Ok(()),
            Err(LinalgError::Lapack(LaxError::LapackComputationalFailure { return_code })) => {
                Err(usize::try_from(return_code).unwrap_or(1).saturating_sub(1))
            }
            // The matrix is square and contiguous, so nothing else is refused.
            Err(_) => Err(0),
        }
    }

    fn solve(&self, rows: PanelMut<'_, T>, c: Panel<'_, T>) {
        let (mut rows, c) = (view_mut(rows), view(c));
        let regular = "a triangular matrix without zeros on its diagonal is regular";
        let columns = rows.t().to_owned();
        let columns = c.t().solve_triangular(UPLO::Lower, Diag::NonUnit, &columns);
        let columns = columns.expect(regular);
        let columns = c.solve_triangular(UPLO::Upper, Diag::NonUnit, &columns);
        rows.assign(&columns.expect(regular).t());
    }

    fn invert_upper(&self, out: PanelMut<'_, T>, a: Panel<'_, T>) {
        let a = view(a);
        let identity = ndarray::Array2::eye(a.nrows());
        let inverse = a
            .solve_triangular(UPLO::Upper, Diag::NonUnit, &identity)
            .expect("a triangular matrix without zeros on its diagonal is regular");
        view_mut(out).assign(&inverse);
    }
}
