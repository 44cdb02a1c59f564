//! Sums of products `A · Aᵀ`, of which one triangle is held.

use std::ops::Range;

use super::{Backend, Panel, PanelMut};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::parallel;

/// The lower triangle of a symmetric n x n matrix, in `f64`.
///
/// It is stored in panels of 384 rows, which reach from the first column to the end of their
/// square on the diagonal: half of what n x n numbers take, and half a panel more.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Symmetric {
    n: usize,
    entries: Vec<f64>,
}

/// Rows that are stored, and computed, together. A multiple of 96, the rows that the product's
/// innermost loop likes best.
const PANEL: usize = 384;

impl Symmetric {
    /// Zeros.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if there is no memory for them.
    pub(crate) fn zeros(n: usize) -> Result<Self> {
        let too_large = || Error::TooLarge {
            rows: n,
            columns: n,
        };
        // No intermediate result of `stored` is larger than this.
        n.checked_add(PANEL)
            .and_then(|side| side.checked_mul(side))
            .ok_or_else(too_large)?;
        let len = stored(n);
        // Only trying: memory that comes zeroed is touched when it is needed.
        Vec::<f64>::new()
            .try_reserve_exact(len)
            .map_err(|_| too_large())?;
        let entries = vec![0.0; len];
        Ok(Self { n, entries })
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The panels, from the first row to the last.
    pub(crate) fn panels(&self) -> Vec<Range<usize>> {
        parallel::runs(self.n, PANEL)
    }

    /// The entries of a panel, row-major: as many columns as `rows.end`. What is above the
    /// diagonal may be anything.
    pub(crate) fn panel(&self, rows: &Range<usize>) -> &[f64] {
        &self.entries[stored(rows.start)..stored(rows.end)]
    }

    /// All panels, to be changed.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = (Range<usize>, &mut [f64])> {
        let mut rest = self.entries.as_mut_slice();
        parallel::runs(self.n, PANEL).into_iter().map(move |rows| {
            let (panel, after) = std::mem::take(&mut rest).split_at_mut(rows.len() * rows.end);
            rest = after;
            (rows, panel)
        })
    }

    /// Adds another matrix of the same size.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, x) in self.entries.iter_mut().zip(&other.entries) {
            *sum += x;
        }
    }

    /// Whether the matrix is n x n, complete and finite, as one that was read may not be.
    #[cfg(feature = "serde")]
    pub(crate) fn is_valid(&self, n: usize) -> bool {
        let fits = n
            .checked_add(PANEL)
            .is_some_and(|side| side.checked_mul(side).is_some());
        self.n == n
            && fits
            && self.entries.len() == stored(n)
            && self.entries.iter().all(|x| x.is_finite())
    }
}

/// How many entries the panels of the first `rows` rows hold. `rows` ends a panel.
fn stored(rows: usize) -> usize {
    let whole = rows / PANEL;
    // Panel p has 384 rows of 384 (p + 1) columns; the last may have fewer of both.
    PANEL * PANEL * (whole * (whole + 1) / 2) + (rows % PANEL) * rows
}

/// Adds the panel of `A · Aᵀ` with these rows to `sums`. The product is computed in `T`, in memory
/// that is left in `product` for the next panel.
pub(crate) fn add_product<T: Real>(
    backend: Backend,
    sums: &mut [f64],
    a: Panel<'_, T>,
    rows: &Range<usize>,
    product: &mut Vec<T>,
) {
    if a.is_empty() {
        return;
    }
    let width = rows.end;
    product.clear();
    product.resize(rows.len() * width, T::zero());
    let left = a.rows_of(rows.clone());
    if rows.start > 0 {
        let out = PanelMut::new(product, width).columns_of(0..rows.start);
        T::product_with_transposed(backend, out, left, a.rows_of(0..rows.start));
    }
    let square = PanelMut::new(product, width).columns_of(rows.clone());
    T::symmetric_product(backend, square, left);

    let work = sums
        .chunks_exact_mut(width)
        .zip(product.chunks_exact(width))
        .collect();
    parallel::map(
        work,
        || (),
        |(), (sums, terms): (&mut [f64], &[T])| {
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term.as_f64();
            }
        },
    );
}
