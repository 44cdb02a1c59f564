//! The operations by faer.
//!
//! A row-major panel is faer's column-major matrix, transposed; its fast paths are those of
//! column-major matrices, so triangular work is done on the transposes.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltError, LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::prelude::ReborrowMut;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par, Spec};

use super::operations::{Operations, Store};
use super::panel::{Panel, PanelMut};

/// All threads of the pool that is current, or one.
fn threads() -> Par {
    #[cfg(feature = "rayon")]
    return Par::rayon(0);
    #[cfg(not(feature = "rayon"))]
    return Par::Seq;
}

/// The threads for a product. One of a matrix and a vector is left to a single thread: faer cuts
/// its sums into as many parts as there are threads, so that the last bits would depend on them.
fn threads_for<T>(out: &MatMut<'_, T>) -> Par {
    if out.nrows() == 1 || out.ncols() == 1 {
        Par::Seq
    } else {
        threads()
    }
}

fn accumulation(store: Store) -> Accum {
    match store {
        Store::Replace => Accum::Replace,
        Store::Add => Accum::Add,
    }
}

/// The transpose of a panel.
fn transposed<T>(panel: Panel<'_, T>) -> MatRef<'_, T> {
    MatRef::from_column_major_slice_with_stride(
        panel.data(),
        panel.columns(),
        panel.rows(),
        panel.stride(),
    )
}

/// The transpose of a panel.
fn transposed_mut<T>(panel: PanelMut<'_, T>) -> MatMut<'_, T> {
    let (rows, columns, stride) = (panel.rows(), panel.columns(), panel.stride());
    MatMut::from_column_major_slice_with_stride_mut(panel.into_data(), columns, rows, stride)
}

/// The operations by faer.
pub(super) struct Faer;

impl<T: RealField> Operations<T> for Faer {
    fn product(&self, store: Store, out: PanelMut<'_, T>, a: Panel<'_, T>, b: Panel<'_, T>) {
        let (out, a, b) = (transposed_mut(out), transposed(a), transposed(b));
        let threads = threads_for(&out);
        matmul(out, accumulation(store), b, a, T::one_impl(), threads);
    }

    fn product_reversed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        reversed: Panel<'_, T>,
    ) {
        let (out, a) = (transposed_mut(out), transposed(a));
        let factor = transposed(reversed).transpose().reverse_rows_and_cols();
        let threads = threads_for(&out);
        matmul(out, accumulation(store), factor, a, T::one_impl(), threads);
    }

    fn product_with_transposed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        b: Panel<'_, T>,
    ) {
        // Fastest if `b` has few rows: it becomes the left factor, which is packed.
        let (out, a, b) = (transposed_mut(out), transposed(a), transposed(b));
        let threads = threads_for(&out);
        matmul(
            out,
            accumulation(store),
            b.transpose(),
            a,
            T::one_impl(),
            threads,
        );
    }

    fn cholesky(&self, a: PanelMut<'_, T>) -> Result<(), usize> {
        let a = transposed_mut(a);
        let params: Spec<LltParams, T> = Spec::default();
        let scratch = cholesky_in_place_scratch::<T>(a.nrows(), threads(), params);
        let mut memory = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut memory);
        let regularization = LltRegularization::default();
        match cholesky_in_place(a, regularization, threads(), stack, params) {
            Ok(_) => Ok(()),
            Err(LltError::NonPositivePivot { index }) => Err(index),
        }
    }

    fn solve(&self, rows: PanelMut<'_, T>, c: Panel<'_, T>) {
        let (mut columns, lower) = (transposed_mut(rows), transposed(c));
        let threads = threads_for(&columns);
        solve_lower_triangular_in_place(lower, columns.rb_mut(), threads);
        solve_upper_triangular_in_place(lower.transpose(), columns, threads);
    }

    fn invert_upper(&self, out: PanelMut<'_, T>, a: Panel<'_, T>) {
        invert_lower_triangular(transposed_mut(out), transposed(a), threads());
    }
}
