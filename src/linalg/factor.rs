//! The triangular factor that SparseGPT needs, found without forming an inverse.

use std::borrow::Cow;
use std::ops::Range;

use super::backend::Backend;
use super::operations::Store;
use super::panel::{Panel, PanelMut};
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::matrix::zeros;
use crate::parallel;

/// How often the damping is raised before giving up, and by how much.
const RAISES: i32 = 4;
const RAISE: f64 = 10.0;

/// The upper triangular R with R · Rᵀ = s G + λI, s a power of two.
///
/// U = R⁻¹ is then the upper Cholesky factor of the inverse, (s G + λI)⁻¹ = Uᵀ U.
///
/// # Algorithm
///
/// ```text
/// J reverses rows and columns
/// Cᵀ C = J (s G + λI) J      one Cholesky factorisation
/// R = J Cᵀ J
/// ```
///
/// C is what is stored: R[k, i] = C[n − 1 − i, n − 1 − k].
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT", arXiv 2301.00774, for U; the reversal is an elementary
/// consequence of J J = I.
#[derive(Debug)]
pub(crate) struct Factor<T> {
    backend: Backend,
    n: usize,
    /// C, row-major, zero below the diagonal.
    reversed: Vec<T>,
    /// λ over the mean of the diagonal of s G.
    pub(crate) damping: f64,
    /// λ
    pub(crate) shift: f64,
}

/// A Gram matrix to factor.
pub(crate) trait LowerTriangle {
    /// The diagonal, not negative.
    fn diagonal(&self) -> &[f64];

    /// The columns that are read together, from first to last.
    fn panels(&self) -> Vec<Range<usize>>;

    /// Some columns of the rows from `columns.start` on, row-major, of which the entries below the
    /// diagonal are read.
    fn panel(&self, columns: &Range<usize>) -> Cow<'_, [f64]>;
}

/// Factors the Gram matrix G, damped by `damping` times the mean of its diagonal.
///
/// G is scaled by a power of two first, which brings the mean of its diagonal near 1. Dead inputs,
/// whose diagonal entry is exactly 0, get a 1 there and no part in the mean. When a pivot is not
/// positive, the damping is multiplied by 10, at most four times.
///
/// # Errors
///
/// [`Error::InvalidDamping`], [`Error::NotPositiveDefinite`] if raising does not help,
/// [`Error::TooLarge`] if there is no memory.
///
/// # Complexity
///
/// n³/6 multiplications with an addition each; n² numbers of memory.
pub(crate) fn factorize<T: Real>(
    backend: Backend,
    gram: &dyn LowerTriangle,
    damping: f64,
) -> Result<Factor<T>> {
    if !(damping.is_finite() && damping >= 0.0) {
        return Err(Error::InvalidDamping { damping });
    }
    let n = gram.diagonal().len();
    let mean = mean_of_live(gram.diagonal());
    let scale = inverse_power_of_two(mean);

    let mut reversed = zeros(n, n)?;
    let operations = backend.operations::<T>();
    let mut pivot = 0;
    for raise in 0..=RAISES {
        let damping = damping * RAISE.powi(raise);
        let shift = damping * (mean * scale);
        reverse_damped(gram, scale, shift, &mut reversed);
        match operations.cholesky(PanelMut::new(&mut reversed, n)) {
            Ok(()) => {
                clear_below_diagonal(&mut reversed, n);
                return Ok(Factor {
                    backend,
                    n,
                    reversed,
                    damping,
                    shift,
                });
            }
            Err(index) => pivot = n - 1 - index,
        }
    }
    Err(Error::NotPositiveDefinite {
        pivot,
        damping: damping * RAISE.powi(RAISES),
    })
}

/// The mean of the entries that are not zero; 0 if there is none.
pub(crate) fn mean_of_live(diagonal: &[f64]) -> f64 {
    let live = diagonal.iter().filter(|&&entry| entry != 0.0);
    let count = live.clone().count().max(1) as f64;
    // Dividing before adding keeps the sum finite.
    live.map(|entry| entry / count).sum()
}

/// Writes the upper triangle of J (G + λI) J, with anything below it.
fn reverse_damped<T: Real>(gram: &dyn LowerTriangle, scale: f64, shift: f64, out: &mut [T]) {
    let diagonal = gram.diagonal();
    let n = diagonal.len();
    for columns in gram.panels() {
        let (start, width) = (columns.start, columns.len());
        let panel = gram.panel(&columns);
        // Row i of G, read backwards from the diagonal, is row n − 1 − i of the result.
        let work = panel
            .chunks_exact(width)
            .zip(out[..(n - start) * n].chunks_exact_mut(n).rev())
            .enumerate()
            .collect();
        parallel::map(
            work,
            || (),
            |(), (below, (row, out)): (usize, (&[f64], &mut [T]))| {
                let out = &mut out[n - columns.end..n - start];
                for (out, &entry) in out.iter_mut().rev().zip(&row[..width.min(below)]) {
                    *out = T::from_f64(entry * scale);
                }
                if below < width {
                    let diagonal = diagonal[start + below];
                    let live = if diagonal == 0.0 {
                        1.0
                    } else {
                        diagonal * scale
                    };
                    out[width - 1 - below] = T::from_f64(live + shift);
                }
            },
        );
    }
}

/// A backend may leave anything below the diagonal.
fn clear_below_diagonal<T: Real>(triangle: &mut [T], n: usize) {
    let work = triangle.chunks_exact_mut(n).enumerate().collect();
    parallel::map(
        work,
        || (),
        |(), (i, row): (usize, &mut [T])| row[..i].fill(T::zero()),
    );
}

impl<T: Real> Factor<T> {
    /// `a · R[rows, columns]`
    pub(crate) fn multiply(
        &self,
        store: Store,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let reverse = |range: Range<usize>| self.n - range.end..self.n - range.start;
        let part = Panel::new(&self.reversed, self.n).part(reverse(columns), reverse(rows));
        self.backend
            .operations()
            .product_reversed(store, out, a, part);
    }

    /// U[columns, columns], row-major: the inverse of a diagonal block of R.
    pub(crate) fn inverse_block(&self, columns: Range<usize>) -> Vec<T> {
        let len = columns.len();
        let mut block = vec![T::zero(); len * len];
        for (k, row) in block.chunks_exact_mut(len).enumerate() {
            for (i, entry) in row.iter_mut().enumerate().skip(k) {
                *entry = self.entry(columns.start + k, columns.start + i);
            }
        }
        let mut inverse = vec![T::zero(); len * len];
        self.backend
            .operations()
            .invert_upper(PanelMut::new(&mut inverse, len), Panel::new(&block, len));
        inverse
    }

    /// 1 / U[j, j] for all j, the diagonal of R.
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        (0..self.n).map(|j| self.entry(j, j).as_f64()).collect()
    }

    /// `out += a · b`, by the backend of this factor.
    pub(crate) fn product(&self, out: PanelMut<'_, T>, a: Panel<'_, T>, b: Panel<'_, T>) {
        self.backend.operations().product(Store::Add, out, a, b);
    }

    /// R[k, i]
    fn entry(&self, k: usize, i: usize) -> T {
        self.reversed[(self.n - 1 - i) * self.n + (self.n - 1 - k)]
    }
}
