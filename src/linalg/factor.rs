//! The triangular factor that SparseGPT needs, found without forming an inverse.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::ArrayRef2;

use super::backend::Backend;
use super::damping::Damping;
use super::operations::Store;
use super::panel::{Panel, PanelMut};
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::kernels::second_order::dot;
use crate::matrix::{read_all, zeros};
use crate::parallel;

/// How often the damping is raised before giving up, and by how much.
const RAISES: i32 = 4;
const RAISE: f64 = 10.0;

/// A Cholesky factor of a damped Gram matrix, as a value: [`Gram::factor`](crate::Gram::factor).
///
/// # Formula
///
/// ```text
/// R Rᵀ = s G + λI      R upper triangular, s a power of two
/// U = R⁻¹              (s G + λI)⁻¹ = UᵀU
/// ```
///
/// U is the factor that SparseGPT needs, found without forming an inverse.
///
/// # Algorithm
///
/// ```text
/// J reverses rows and columns
/// Cᵀ C = J (s G + λI) J      one Cholesky factorisation
/// R = J Cᵀ J
/// ```
///
/// # Example
///
/// ```
/// use wanda::{Backend, Gram, ndarray::array};
///
/// let mut gram = Gram::new(2);
/// gram.update(&array![[2.0_f64, 0.0], [0.0, 2.0]])?;
/// let factor = gram.factor::<f64>(Backend::Faer, 0.0)?;
/// let mut rows = array![[8.0, 8.0]];
/// factor.solve(&mut rows)?;
/// assert_eq!(rows, array![[2.0, 2.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT", arXiv 2301.00774, for U; the reversal is an elementary
/// consequence of J J = I.
#[derive(Debug)]
pub struct Factor<T> {
    backend: Backend,
    n: usize,
    /// C, row-major, zero below the diagonal: R[k, i] = C[n − 1 − i, n − 1 − k].
    reversed: Vec<T>,
    /// s
    scale: f64,
    /// λ, as a rule.
    damping: Damping,
    /// λⱼ of s G.
    shifts: Vec<f64>,
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

/// The mean of the entries that are not zero; 0 if there is none.
pub(crate) fn mean_of_live(diagonal: &[f64]) -> f64 {
    let live = diagonal.iter().filter(|&&entry| entry != 0.0);
    let count = live.clone().count().max(1) as f64;
    // Dividing before adding keeps the sum finite.
    live.map(|entry| entry / count).sum()
}

/// Writes the upper triangle of J (G + λI) J, with anything below it.
fn reverse_damped<T: Real>(gram: &dyn LowerTriangle, scale: f64, shifts: &[f64], out: &mut [T]) {
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
                    out[width - 1 - below] = T::from_f64(live + shifts[start + below]);
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
    /// Factors the Gram matrix G, damped.
    ///
    /// G is scaled by a power of two first, which brings the mean of its diagonal near 1. Dead
    /// inputs get a 1 there and no part in the mean.
    pub(crate) fn of(backend: Backend, gram: &dyn LowerTriangle, damping: Damping) -> Result<Self> {
        let n = gram.diagonal().len();
        let empty = Self {
            backend,
            n,
            reversed: zeros(n, n)?,
            scale: 1.0,
            damping,
            shifts: Vec::new(),
        };
        empty.refactor(gram, damping)
    }

    /// Factors the Gram matrix again, with another damping, in the memory of this factor.
    pub(crate) fn refactor(mut self, gram: &dyn LowerTriangle, damping: Damping) -> Result<Self> {
        damping.check()?;
        let mean = mean_of_live(gram.diagonal());
        self.scale = inverse_power_of_two(mean);
        let mut pivot = 0;
        for raise in 0..=RAISES {
            self.damping = damping.times(RAISE.powi(raise));
            let shift = |&entry| self.damping.shift(entry * self.scale, mean * self.scale);
            self.shifts = gram.diagonal().iter().map(shift).collect();
            reverse_damped(gram, self.scale, &self.shifts, &mut self.reversed);
            let panel = PanelMut::new(&mut self.reversed, self.n);
            match self.backend.operations::<T>().cholesky(panel) {
                Ok(()) => {
                    clear_below_diagonal(&mut self.reversed, self.n);
                    return Ok(self);
                }
                Err(index) => pivot = self.n - 1 - index,
            }
        }
        Err(Error::NotPositiveDefinite {
            pivot,
            damping: self.damping.factor(),
        })
    }

    /// The damping used: more than was asked for, where that did not suffice.
    #[must_use]
    pub fn damping(&self) -> Damping {
        self.damping
    }

    /// The inputs, rows and columns of G.
    #[must_use]
    pub fn features(&self) -> usize {
        self.n
    }

    /// Replaces every row b by `b · (G + λI)⁻¹`, λ in the units of G.
    ///
    /// # Errors
    ///
    /// [`Error::StatsShape`] if rows have not a number for each input, [`Error::TooLarge`] if there
    /// is no memory for a copy of rows that are not contiguous.
    ///
    /// # Complexity
    ///
    /// m n² multiplications with an addition each for m rows and n inputs.
    pub fn solve(&self, rows: &mut ArrayRef2<T>) -> Result<()> {
        if rows.ncols() != self.n {
            return Err(Error::StatsShape {
                rows: rows.nrows(),
                columns: rows.ncols(),
                features: self.n,
            });
        }
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(run) = rows.as_slice_mut() {
            self.solve_rows(run);
            return Ok(());
        }
        let mut copy = read_all(&rows.view())?;
        self.solve_rows(&mut copy);
        for (x, &solved) in rows.iter_mut().zip(&copy) {
            *x = solved;
        }
        Ok(())
    }

    fn solve_rows(&self, rows: &mut [T]) {
        // X J Cᵀ C = s B J
        let scale = T::from_f64(self.scale);
        self.for_each_row(rows, |row| {
            row.reverse();
            for x in row {
                *x = *x * scale;
            }
        });
        let factor = Panel::new(&self.reversed, self.n);
        let operations = self.backend.operations::<T>();
        operations.solve(PanelMut::new(rows, self.n), factor);
        self.for_each_row(rows, <[T]>::reverse);
    }

    fn for_each_row(&self, rows: &mut [T], work: impl Fn(&mut [T]) + Send + Sync) {
        let rows = rows.chunks_exact_mut(self.n).collect();
        parallel::map(rows, || (), |(), row: &mut [T]| work(row));
    }

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

    /// What damping adds to the sum of squared outputs of a row of weights in `columns`, scaled, but
    /// for `skipped` columns.
    pub(crate) fn damping_energy(
        &self,
        columns: Range<usize>,
        weights: &[T],
        scale: f64,
        skipped: &[usize],
    ) -> f64 {
        let square = |j: usize| (weights[j - columns.start].as_f64() * scale).powi(2);
        match self.damping {
            Damping::Mean(_) => {
                let skipped: f64 = skipped.iter().map(|&j| square(j)).sum();
                self.shifts[columns.start] * (dot(weights, weights, scale) - skipped)
            }
            Damping::Diagonal(_) => {
                let all: f64 = columns.clone().map(|j| self.shifts[j] * square(j)).sum();
                let skipped = skipped.iter().map(|&j| self.shifts[j] * square(j));
                all - skipped.sum::<f64>()
            }
        }
    }

    /// `1 / U[j, j]` for all inputs j, the diagonal of R.
    #[must_use]
    pub fn diagonal(&self) -> Vec<f64> {
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
