//! Sums of products `A · Aᵀ`, of which one triangle is held.

use std::ops::Range;

use super::backend::Backend;
use super::operations::Store;
use super::panel::{Panel, PanelMut};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::parallel;

/// The lower triangle of a symmetric n x n matrix, in `f64`.
///
/// It is stored in panels of 192 columns, which reach from their square on the diagonal to the
/// last row: half of what n x n numbers take, and half a panel more.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Symmetric {
    n: usize,
    entries: Vec<f64>,
}

/// Columns that are stored, and computed, together. Products are fastest with one narrow factor,
/// and with a multiple of the 96 rows that their innermost loop works on.
const PANEL: usize = 192;

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
        let len = stored(n, n).ok_or_else(too_large)?;
        // Written now: memory that only promises zeros costs more when it is read and then written.
        let mut entries = Vec::new();
        entries.try_reserve_exact(len).map_err(|_| too_large())?;
        entries.resize(len, 0.0);
        Ok(Self { n, entries })
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The columns of each panel.
    pub(crate) fn panels(&self) -> Vec<Range<usize>> {
        parallel::runs(self.n, PANEL)
    }

    /// The entries of a panel, row-major: the rows from `columns.start` on. What is above the
    /// diagonal may be anything.
    pub(crate) fn panel(&self, columns: &Range<usize>) -> &[f64] {
        let before = |column| stored(self.n, column).unwrap_or(0);
        &self.entries[before(columns.start)..before(columns.end)]
    }

    /// All panels, to be changed.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = (Range<usize>, &mut [f64])> {
        let n = self.n;
        let panels = self.panels();
        let mut rest = self.entries.as_mut_slice();
        panels.into_iter().map(move |columns| {
            let len = columns.len() * (n - columns.start);
            let (panel, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            (columns, panel)
        })
    }

    /// Adds another matrix of the same size.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, x) in self.entries.iter_mut().zip(&other.entries) {
            *sum += x;
        }
    }

    /// The panels one after the other.
    #[cfg(feature = "safetensors")]
    pub(crate) fn entries(&self) -> &[f64] {
        &self.entries
    }

    /// A matrix from what [`entries`](Self::entries) gives, not yet checked.
    #[cfg(feature = "safetensors")]
    pub(crate) fn from_entries(n: usize, entries: Vec<f64>) -> Self {
        if entries.is_empty() {
            return Self::default();
        }
        Self { n, entries }
    }

    /// Whether the matrix is n x n, complete and finite, as one that was read may not be.
    #[cfg(any(feature = "serde", feature = "safetensors"))]
    pub(crate) fn is_valid(&self, n: usize) -> bool {
        self.n == n
            && stored(n, n) == Some(self.entries.len())
            && self.entries.iter().all(|x| x.is_finite())
    }
}

/// How many entries the panels of the first `columns` columns hold, which end a panel, if that
/// can be counted.
fn stored(n: usize, columns: usize) -> Option<usize> {
    // Of a whole matrix the rows above each panel are missing: those of all panels before it.
    let whole = columns / PANEL;
    let all = n.checked_mul(columns)?;
    let above = PANEL * PANEL * (whole * whole.saturating_sub(1) / 2);
    Some(all - above - (columns % PANEL) * (whole * PANEL))
}

/// Adds a panel of `A · Aᵀ` to `sums`. The product is computed in `T`, in memory that is left in
/// `product` for the next panel.
pub(crate) fn add_product<T: Real>(
    backend: Backend,
    sums: &mut [f64],
    a: Panel<'_, T>,
    columns: &Range<usize>,
    product: &mut Vec<T>,
) {
    if a.is_empty() {
        return;
    }
    product.resize(product.len().max(sums.len()), T::zero());
    let product = &mut product[..sums.len()];
    backend.operations().product_with_transposed(
        Store::Replace,
        PanelMut::new(product, columns.len()),
        a.rows_of(columns.start..a.rows()),
        a.rows_of(columns.clone()),
    );
    add_to(sums, product);
}

/// Adds terms to sums.
pub(crate) fn add_to<T: Real>(sums: &mut [f64], terms: &[T]) {
    let work = sums.chunks_mut(RUN).zip(terms.chunks(RUN)).collect();
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

/// Entries that one worker adds.
const RUN: usize = 1 << 14;
