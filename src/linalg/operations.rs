//! What a backend has to do.

use super::panel::{Panel, PanelMut};

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// It replaces whatever was there.
    Replace,
    /// It is added to what was there.
    Add,
}

/// The operations of linear algebra on a type that is computed in.
///
/// Matrices are row-major panels. Shapes have to fit; callers in this crate see to that.
pub(crate) trait Operations<T> {
    /// `a · b`
    fn product(&self, store: Store, out: PanelMut<'_, T>, a: Panel<'_, T>, b: Panel<'_, T>);

    /// `a · R`, where `reversed` is the panel of J R J that holds the same entries:
    /// R[k, i] is its entry (columns − 1 − i, rows − 1 − k) of the transposed, reversed panel.
    fn product_reversed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        reversed: Panel<'_, T>,
    );

    /// `a · bᵀ`
    fn product_with_transposed(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        b: Panel<'_, T>,
    );

    /// Replaces the upper triangle of the symmetric matrix A by the C with A = Cᵀ · C.
    ///
    /// # Errors
    ///
    /// The index of the first pivot that is not positive.
    fn cholesky(&self, a: PanelMut<'_, T>) -> Result<(), usize>;

    /// Replaces every row b of `rows` by `b · (Cᵀ C)⁻¹`, C upper triangular and regular.
    fn solve(&self, rows: PanelMut<'_, T>, c: Panel<'_, T>);

    /// `out` = the inverse of the upper triangular matrix `a`, which is regular.
    fn invert_upper(&self, out: PanelMut<'_, T>, a: Panel<'_, T>);
}
