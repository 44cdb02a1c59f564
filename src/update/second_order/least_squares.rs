//! The least squares problem of a layer, scaled so that all inputs are alike.

use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::kernels::second_order::dot;
use crate::linalg::{Backend, Damping, LowerTriangle, Panel, PanelMut, Store, mean_of_live};
use crate::mask::{Mask, is_set};
use crate::matrix::zeros;
use crate::parallel;
use crate::stats::gram::Gram;

/// H = G + λ, as `H = diag(e) C diag(e)` with ones on the diagonal of C, up to a factor.
///
/// With Z = W diag(e) the loss of a row, `(w − ŵ) H (w − ŵ)ᵀ`, is `(z − ẑ) C (z − ẑ)ᵀ`.
pub(super) struct LeastSquares<T> {
    backend: Backend,
    /// e, a number for each input.
    pub(super) scales: Vec<T>,
    /// C, row-major.
    pub(super) correlations: Vec<T>,
}

impl<T: Real> LeastSquares<T> {
    pub(super) fn new(gram: &Gram, backend: Backend, damping: Damping, largest: T) -> Result<Self> {
        let diagonal = gram.diagonal();
        let n = diagonal.len();
        let mean = mean_of_live(diagonal);
        let scale = inverse_power_of_two(mean);
        let damped = |&entry: &f64| {
            // A dead input has no part in any product.
            let live = if entry == 0.0 { 1.0 } else { entry * scale };
            (live + damping.shift(entry * scale, mean * scale)).sqrt()
        };
        let roots: Vec<f64> = diagonal.iter().map(damped).collect();
        // Weights are brought near 1, as far as numbers of any type can do that.
        let of_weights = inverse_power_of_two(largest.as_f64()).clamp(1e-30, 1e30);
        let mut correlations = zeros(n, n)?;
        for columns in gram.panels() {
            let (start, width) = (columns.start, columns.len());
            let panel = gram.panel(&columns);
            let rows = panel.chunks_exact(width);
            let out = correlations[start * n..].chunks_exact_mut(n);
            parallel::map(
                rows.zip(out).enumerate().collect(),
                || (),
                |(), (below, (row, out)): (usize, (&[f64], &mut [T]))| {
                    let factor = scale / roots[start + below];
                    let part = &mut out[columns.clone()];
                    for (j, (out, &entry)) in part.iter_mut().zip(row).enumerate().take(below) {
                        *out = T::from_f64(entry * factor / roots[start + j]);
                    }
                    if below < width {
                        part[below] = T::one();
                    }
                },
            );
        }
        mirror(&mut correlations, n);
        Ok(Self {
            backend,
            scales: roots
                .iter()
                .map(|root| T::from_f64(root * of_weights))
                .collect(),
            correlations,
        })
    }

    pub(super) fn inputs(&self) -> usize {
        self.scales.len()
    }

    /// `out = a · C`, row-major.
    pub(super) fn multiply(&self, out: &mut [T], a: &[T]) {
        self.multiply_by(&self.correlations, out, a);
    }

    /// `out = a · m`, row-major, for a square matrix `m`.
    pub(super) fn multiply_by(&self, m: &[T], out: &mut [T], a: &[T]) {
        let n = self.inputs();
        let (out, a, m) = (PanelMut::new(out, n), Panel::new(a, n), Panel::new(m, n));
        let operations = self.backend.operations::<T>();
        operations.product(Store::Replace, out, a, m);
    }

    /// `(C + ρI)⁻¹`, row-major.
    pub(super) fn inverse(&self, shift: T) -> Result<Vec<T>> {
        let n = self.inputs();
        let mut factor = zeros(n, n)?;
        factor.copy_from_slice(&self.correlations);
        let mut inverse = zeros(n, n)?;
        for j in 0..n {
            factor[j * n + j] = T::one() + shift;
            inverse[j * n + j] = T::one();
        }
        let operations = self.backend.operations::<T>();
        // C has no negative eigenvalues but by rounding, which the shift is far above.
        operations
            .cholesky(PanelMut::new(&mut factor, n))
            .map_err(|pivot| Error::NotPositiveDefinite {
                pivot,
                damping: shift.as_f64(),
            })?;
        let (rows, factor) = (PanelMut::new(&mut inverse, n), Panel::new(&factor, n));
        operations.solve(rows, factor);
        Ok(inverse)
    }

    /// Multiplies every column by its scale.
    pub(super) fn scale(&self, weights: &mut [T]) {
        self.for_each_row(weights, |_, row| {
            for (x, &scale) in row.iter_mut().zip(&self.scales) {
                *x = *x * scale;
            }
        });
    }

    /// Divides every column by its scale.
    pub(super) fn unscale(&self, weights: &mut [T]) {
        self.for_each_row(weights, |_, row| {
            for (x, &scale) in row.iter_mut().zip(&self.scales) {
                *x = *x / scale;
            }
        });
    }

    /// The best values of the weights that stay, by conjugate gradients on the normal equations of
    /// all rows at once; C has ones on its diagonal, so it is its own preconditioner.
    ///
    /// `solution` holds the values to start from and becomes the result, zero where `pruned` marks;
    /// `wanted` are the values wanted of all weights. Both are scaled. Rows never get worse. Returns
    /// how much of the gradient on the mask is left, relative to what it was.
    ///
    /// # Reference
    ///
    /// Meng et al., "ALPS", arXiv 2406.07831, algorithm 2.
    pub(super) fn refit(
        &self,
        wanted: Vec<T>,
        solution: &mut [T],
        pruned: &Mask,
        steps: usize,
    ) -> Result<f64> {
        let n = self.inputs();
        let rows = solution.len() / n;
        let mut direction = wanted;
        for_each_row2(n, &mut direction, solution, |row, wanted, solution| {
            let words = pruned.row_words(row);
            for (j, (wanted, x)) in wanted.iter_mut().zip(solution).enumerate() {
                *x = if is_set(words, j) { T::zero() } else { *x };
                *wanted = *wanted - *x;
            }
        });
        let mut residual = zeros(rows, n)?;
        self.multiply(&mut residual, &direction);
        let mut squares = vec![0.0; rows];
        self.clear(&mut residual, pruned, &mut squares);
        direction.copy_from_slice(&residual);
        let first: f64 = squares.iter().sum();
        let mut product = zeros(rows, n)?;
        for _ in 0..steps {
            self.multiply(&mut product, &direction);
            let work = solution
                .chunks_exact_mut(n)
                .zip(residual.chunks_exact_mut(n))
                .zip(direction.chunks_exact_mut(n).zip(product.chunks_exact(n)))
                .zip(&mut squares)
                .enumerate();
            parallel::map(
                work.collect(),
                || (),
                |(), (row, (((x, r), (p, q)), squares))| {
                    step(pruned.row_words(row), x, r, p, q, squares);
                },
            );
        }
        let last: f64 = squares.iter().sum();
        Ok(if first > 0.0 {
            (last / first).sqrt()
        } else {
            0.0
        })
    }

    /// Zeroes what is pruned, and fills in the sum of squares of each row.
    fn clear(&self, values: &mut [T], pruned: &Mask, squares: &mut [f64]) {
        let n = self.inputs();
        let work = values.chunks_exact_mut(n).zip(squares).enumerate();
        parallel::map(
            work.collect(),
            || (),
            |(), (row, (values, squares))| {
                let words = pruned.row_words(row);
                for (j, x) in values.iter_mut().enumerate() {
                    *x = if is_set(words, j) { T::zero() } else { *x };
                }
                *squares = dot(values, values, 1.0);
            },
        );
    }

    /// Does `work` on every row, given its number.
    pub(super) fn for_each_row(
        &self,
        values: &mut [T],
        work: impl Fn(usize, &mut [T]) + Send + Sync,
    ) {
        let rows = values.chunks_exact_mut(self.inputs()).enumerate();
        parallel::map(rows.collect(), || (), |(), (row, values)| work(row, values));
    }
}

/// The loss that is minimised, `tr(ΔW (G + λ) ΔWᵀ)`, of a change of the weights, which are multiplied
/// by `scale`; G is scaled as in [`Gram::energy`].
pub(super) fn loss<T: Real>(gram: &Gram, damping: Damping, change: &[T], scale: f64) -> f64 {
    let diagonal = gram.diagonal();
    let mean = mean_of_live(diagonal);
    let of_gram = inverse_power_of_two(mean);
    let live = diagonal.iter().map(|&entry| match entry {
        0.0 => 0.0,
        entry => damping.shift(entry * of_gram, mean * of_gram),
    });
    let shifts: Vec<f64> = live.collect();
    let rows = change.chunks_exact(diagonal.len()).collect();
    let damped = parallel::map(
        rows,
        || (),
        |(), row: &[T]| {
            let squares = row.iter().map(|x| (x.as_f64() * scale).powi(2));
            squares
                .zip(&shifts)
                .map(|(square, shift)| square * shift)
                .sum::<f64>()
        },
    );
    gram.energy(change, scale) + damped.iter().sum::<f64>()
}

/// A step of conjugate gradients on a row.
fn step<T: Real>(
    pruned: &[u64],
    x: &mut [T],
    r: &mut [T],
    p: &mut [T],
    q: &[T],
    squares: &mut f64,
) {
    let curvature = dot(p, q, 1.0);
    if !(curvature > 0.0 && *squares > 0.0) {
        return;
    }
    let length = T::from_f64(*squares / curvature);
    for (j, ((x, r), (&p, &q))) in x.iter_mut().zip(&mut *r).zip(p.iter().zip(q)).enumerate() {
        *x = *x + length * p;
        *r = if is_set(pruned, j) {
            T::zero()
        } else {
            *r - length * q
        };
    }
    let left = dot(r, r, 1.0);
    let keep = T::from_f64(left / *squares);
    *squares = left;
    for (p, &r) in p.iter_mut().zip(&*r) {
        *p = r + keep * *p;
    }
}

/// Does `work` on every row of two matrices, given its number.
fn for_each_row2<T: Real>(
    columns: usize,
    a: &mut [T],
    b: &mut [T],
    work: impl Fn(usize, &mut [T], &mut [T]) + Send + Sync,
) {
    let rows = a.chunks_exact_mut(columns).zip(b.chunks_exact_mut(columns));
    parallel::map(
        rows.enumerate().collect(),
        || (),
        |(), (row, (a, b))| work(row, a, b),
    );
}

/// Copies the lower triangle of a square matrix to the upper one.
fn mirror<T: Real>(square: &mut [T], n: usize) {
    /// Rows and columns that are turned together, so that both stay in the fastest cache.
    const TILE: usize = 32;
    for rows in parallel::runs(n, TILE) {
        let (above, below) = square.split_at_mut(rows.end * n);
        let above = &mut above[rows.start * n..];
        for i in 0..rows.len() {
            for j in i + 1..rows.len() {
                above[i * n + rows.start + j] = above[j * n + rows.start + i];
            }
        }
        let below = &*below;
        parallel::map(
            above.chunks_exact_mut(n).enumerate().collect(),
            || (),
            |(), (i, row): (usize, &mut [T])| {
                let column = rows.start + i;
                for (out, below) in row[rows.end..].iter_mut().zip(below.chunks_exact(n)) {
                    *out = below[column];
                }
            },
        );
    }
}
