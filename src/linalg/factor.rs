//! The triangular factor that SparseGPT needs, found without forming an inverse.

use std::ops::Range;

use super::{Backend, Panel, PanelMut};
use crate::element::Real;
use crate::error::{Error, Result};

/// How often the damping is raised before giving up, and by how much.
const RAISES: i32 = 4;
const RAISE: f64 = 10.0;

/// The upper triangular R with R · Rᵀ = G + λI.
///
/// U = R⁻¹ is then the upper Cholesky factor of the inverse, (G + λI)⁻¹ = Uᵀ U.
///
/// # Algorithm
///
/// ```text
/// J reverses rows and columns
/// Cᵀ C = J (G + λI) J      one Cholesky factorisation
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
    /// λ over the mean of the diagonal of G.
    pub(crate) damping: f64,
    /// λ
    pub(crate) shift: f64,
}

/// Factors the Gram matrix with upper triangle `gram` (row-major, n x n), damped by `damping`
/// times the mean of its diagonal.
///
/// Dead inputs, whose diagonal entry is exactly 0, get a 1 there and no part in the mean. When a
/// pivot is not positive, the damping is multiplied by 10, at most four times.
///
/// # Errors
///
/// [`Error::NotPositiveDefinite`] if that does not help, [`Error::NoCalibration`] if all inputs
/// are dead, [`Error::TooLarge`] if there is no memory.
///
/// # Complexity
///
/// n³/3 multiplications and additions; n² numbers of memory.
pub(crate) fn factorize<T: Real>(
    backend: Backend,
    gram: &[f64],
    n: usize,
    damping: f64,
) -> Result<Factor<T>> {
    let live = |j: &usize| gram[j * n + j] != 0.0;
    let alive = (0..n).filter(live).count();
    if alive == 0 {
        return Err(Error::NoCalibration {
            metric: "obs".to_owned(),
            tokens: 0,
        });
    }
    let trace: f64 = (0..n).map(|j| gram[j * n + j]).sum();
    let mean = trace / alive as f64;

    let mut reversed = Vec::new();
    reversed
        .try_reserve_exact(n * n)
        .map_err(|_| Error::TooLarge {
            rows: n,
            columns: n,
        })?;
    reversed.resize(n * n, T::zero());
    let mut pivot = 0;
    for raise in 0..=RAISES {
        let damping = damping * RAISE.powi(raise);
        let shift = damping * mean;
        reverse_damped(gram, n, shift, &mut reversed);
        match T::cholesky(backend, PanelMut::new(&mut reversed, n)) {
            Ok(()) => {
                // A backend may leave anything below the diagonal.
                for (i, row) in reversed.chunks_exact_mut(n).enumerate() {
                    row[..i].fill(T::zero());
                }
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

/// Writes the upper triangle of J (G + λI) J, with zeros below it.
fn reverse_damped<T: Real>(gram: &[f64], n: usize, shift: f64, out: &mut [T]) {
    let rows = out.chunks_exact_mut(n).enumerate().collect();
    crate::parallel::map(
        rows,
        || (),
        |(), (i, row)| {
            // Row i of the result is column n − 1 − i of G, from the diagonal upwards.
            let column = n - 1 - i;
            row[..i].fill(T::zero());
            for (j, out) in row.iter_mut().enumerate().skip(i) {
                *out = T::from_f64(gram[(n - 1 - j) * n + column]);
            }
            let diagonal = gram[column * n + column];
            let diagonal = if diagonal == 0.0 { 1.0 } else { diagonal };
            row[i] = T::from_f64(diagonal + shift);
        },
    );
}

impl<T: Real> Factor<T> {
    /// `out += a · R[rows, columns]`
    pub(crate) fn multiply(
        &self,
        out: PanelMut<'_, T>,
        a: Panel<'_, T>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let reverse = |range: Range<usize>| self.n - range.end..self.n - range.start;
        let part = Panel::new(&self.reversed, self.n).part(reverse(columns), reverse(rows));
        T::product_reversed(self.backend, out, a, part);
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
        T::invert_upper(
            self.backend,
            PanelMut::new(&mut inverse, len),
            Panel::new(&block, len),
        );
        inverse
    }

    /// 1 / U[j, j] for all j, the diagonal of R.
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        (0..self.n).map(|j| self.entry(j, j).as_f64()).collect()
    }

    /// `out += a · b`, by the backend of this factor.
    pub(crate) fn product(&self, out: PanelMut<'_, T>, a: Panel<'_, T>, b: Panel<'_, T>) {
        T::product(self.backend, out, a, b);
    }

    /// R[k, i]
    fn entry(&self, k: usize, i: usize) -> T {
        self.reversed[(self.n - 1 - i) * self.n + (self.n - 1 - k)]
    }
}
