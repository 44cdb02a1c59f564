//! What updates compute with a Gram matrix: products, factors, errors.

use std::ops::Range;

use ndarray::{Array2, ArrayRef2};

use super::Gram;
use crate::element::{Element, Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::kernels;
use crate::linalg::{Backend, Damping, Factor, LowerTriangle, Panel, PanelMut, Store};
use crate::matrix::{read_all, zeros};
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::{ActivationStats, check_features};

impl Gram {
    /// `A · G`, for A of any number of rows and a column for each input.
    ///
    /// G is rounded to `T`, and the product computed in it, by the backend of the statistics.
    ///
    /// # Errors
    ///
    /// [`Error::StatsShape`] if A has another number of columns, [`Error::TooLarge`] if there is no
    /// memory for the product.
    ///
    /// # Complexity
    ///
    /// m n² multiplications with an addition each for m rows and n inputs; m x n numbers for the
    /// product, a copy of A unless it is contiguous, and n x 192 for a part of G.
    ///
    /// # Example
    ///
    /// ```
    /// use wanda::{Gram, ndarray::array};
    ///
    /// let mut gram = Gram::new(2);
    /// gram.update(&array![[3.0_f32, 1.0], [4.0, 0.0]])?;
    /// assert_eq!(gram.multiply(&array![[1.0_f32, 2.0]])?, array![[31.0, 5.0]]);
    /// # Ok::<(), wanda::Error>(())
    /// ```
    pub fn multiply<T: Real>(&self, a: &ArrayRef2<T>) -> Result<Array2<T>> {
        let (rows, n) = a.dim();
        check_features(self.features(), (rows, n))?;
        let mut product = zeros(rows, n)?;
        if self.tokens() > 0 {
            let copy = a.as_slice().is_none().then(|| read_all(&a.view()));
            let copy = copy.transpose()?.unwrap_or_default();
            self.add_product(&mut product, a.as_slice().unwrap_or(&copy));
        }
        Array2::from_shape_vec((rows, n), product).map_err(|_| Error::TooLarge { rows, columns: n })
    }

    /// Subtracts G from a square matrix of its size.
    pub(crate) fn subtract_from(&self, square: &mut Array2<f64>) {
        for columns in self.panels() {
            let panel = self.panel(&columns);
            for (j, row) in (columns.start..).zip(panel.chunks_exact(columns.len())) {
                for (k, &entry) in columns.clone().zip(row).take_while(|&(k, _)| k < j) {
                    square[[j, k]] -= entry;
                    square[[k, j]] -= entry;
                }
            }
        }
        for (j, &entry) in self.diagonal().iter().enumerate() {
            square[[j, j]] -= entry;
        }
    }

    /// `out += A · G`, both row-major.
    fn add_product<T: Real>(&self, out: &mut [T], a: &[T]) {
        let n = self.features();
        let operations = self.backend.operations::<T>();
        let a = Panel::new(a, n);
        let (mut square, mut below) = (Vec::new(), Vec::new());
        for columns in self.panels() {
            let width = columns.len();
            let panel = self.panel(&columns);
            let (of_square, of_below) = panel.split_at(width * width);
            square.clear();
            square.extend(of_square.iter().map(|&x| T::from_f64(x)));
            complete(&mut square, &self.diagonal()[columns.clone()]);
            below.clear();
            below.extend(of_below.iter().map(|&x| T::from_f64(x)));
            let (square, below) = (Panel::new(&square, width), Panel::new(&below, width));
            let (left, rest) = (a.columns_of(columns.clone()), columns.end..n);
            let mut add = |columns: Range<usize>, left, right, transposed: bool| {
                let out = PanelMut::new(&mut *out, n).columns_of(columns);
                if transposed {
                    operations.product_with_transposed(Store::Add, out, left, right);
                } else {
                    operations.product(Store::Add, out, left, right);
                }
            };
            add(columns.clone(), left, square, false);
            if !rest.is_empty() {
                add(columns, a.columns_of(rest.clone()), below, false);
                add(rest, left, below, true);
            }
        }
    }

    /// Factors G + λ, damped by the mean of the diagonal of G (a number says how much) or by its
    /// entries.
    ///
    /// Dead inputs, whose diagonal entry is exactly 0, get the mean there and have no part in it.
    /// When a pivot is not positive, the damping is multiplied by 10, at most four times;
    /// [`Factor::damping`] says what was used. G stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidDamping`], [`Error::NotPositiveDefinite`] if raising does not help,
    /// [`Error::TooLarge`] if there is no memory, [`Error::NoCalibration`] if no token was seen.
    ///
    /// # Complexity
    ///
    /// n³/6 multiplications with an addition each; n² numbers of memory for n inputs.
    pub fn factor<T: Real>(
        &self,
        backend: Backend,
        damping: impl Into<Damping>,
    ) -> Result<Factor<T>> {
        crate::stats::required_sums(self, "a factor of the Gram matrix", (0, self.features()))?;
        Factor::of(backend, self, damping.into())
    }

    /// Factors G again, with another damping, in the memory of a factor that was made before.
    ///
    /// # Errors
    ///
    /// As [`factor`](Self::factor), and [`Error::StatsShape`] for a factor of another number of
    /// inputs.
    ///
    /// # Complexity
    ///
    /// As [`factor`](Self::factor), without memory.
    pub fn factor_again<T: Real>(
        &self,
        factor: Factor<T>,
        damping: impl Into<Damping>,
    ) -> Result<Factor<T>> {
        let n = factor.features();
        crate::stats::required_sums(self, "a factor of the Gram matrix", (0, n))?;
        factor.refactor(self, damping.into())
    }

    /// What a layer's output loses when its `dense` weights become `candidate`:
    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`. `None` if the dense layer puts out nothing.
    ///
    /// # Errors
    ///
    /// [`Error::StatsShape`] and [`Error::UpdateShape`] if weights are of another layer,
    /// [`Error::TooLarge`] if there is no memory for a copy of the weights.
    ///
    /// # Complexity
    ///
    /// m n² multiplications with an addition each for m rows and n inputs, and a copy of the weights.
    ///
    /// # Example
    ///
    /// ```
    /// use wanda::{Gram, ndarray::array};
    ///
    /// let mut gram = Gram::new(2);
    /// gram.update(&array![[3.0_f32, 0.0], [0.0, 4.0]])?;
    /// let error = gram.relative_error(&array![[1.0_f32, 1.0]], &array![[0.0_f32, 1.0]])?;
    /// assert_eq!(error.map(|error| error.value()), Some(9.0 / 25.0));
    /// # Ok::<(), wanda::Error>(())
    /// ```
    pub fn relative_error<A: Element>(
        &self,
        dense: &ArrayRef2<A>,
        candidate: &ArrayRef2<A>,
    ) -> Result<Option<RelativeError>> {
        check_features(self.features(), dense.dim())?;
        if dense.dim() != candidate.dim() {
            return Err(Error::UpdateShape {
                weights: dense.dim(),
                update: candidate.dim(),
            });
        }
        if self.tokens() == 0 {
            return Ok(None);
        }
        let mut weights = read_all::<A::Compute>(&dense.view())?;
        let scale = inverse_power_of_two(kernels::largest(&weights).as_f64());
        let total = self.energy(&weights, scale);
        for (dense, candidate) in weights.iter_mut().zip(candidate) {
            *dense = *dense - candidate.widen();
        }
        let lost = self.energy(&weights, scale);
        Ok(RelativeError::new(lost, total, ErrorBasis::Gram))
    }
}

/// Completes a symmetric matrix of which the lower triangle is there, but for the diagonal.
fn complete<T: Real>(square: &mut [T], diagonal: &[f64]) {
    let n = diagonal.len();
    for (j, &entry) in diagonal.iter().enumerate() {
        square[j * n + j] = T::from_f64(entry);
        for k in 0..j {
            square[k * n + j] = square[j * n + k];
        }
    }
}
