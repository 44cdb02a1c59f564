//! What a layer puts out over all of calibration.

use std::ops::Range;

use super::Gram;
use crate::element::{Real, inverse_power_of_two};
use crate::kernels::second_order::dot;
use crate::linalg::{LowerTriangle, Panel, PanelMut, Store, mean_of_live};
use crate::parallel;
use crate::stats::{ActivationStats, OutputEnergy};

impl Gram {
    /// tr(A G Aᵀ), scaled: the sum of squared outputs of a layer with weights `a` (row-major) and
    /// the inputs that were seen.
    ///
    /// A is multiplied by `scale` and G by the power of two that brings the mean of its diagonal
    /// near 1. Products are computed in `T` and summed in `f64`.
    ///
    /// # Complexity
    ///
    /// m n² / 2 multiplications and additions for m rows and n inputs, and a copy of A where its
    /// numbers are very large or very small.
    pub(crate) fn energy<T: Real>(&self, a: &[T], scale: f64) -> f64 {
        /// Weights between this and its inverse, times n entries near 1, are in the range of any
        /// type.
        const LARGE: f64 = 1e18;
        let n = self.diagonal().len();
        let mut scaled = Vec::new();
        let (a, scale) = if (1.0 / LARGE..=LARGE).contains(&scale) {
            (a, scale)
        } else {
            scaled.extend(a.iter().map(|x| T::from_f64(x.as_f64() * scale)));
            (&scaled[..], 1.0)
        };
        let a = Panel::new(a, n);
        let (mut form, mut product) = (Vec::new(), Vec::new());
        let mut energy = 0.0;
        for columns in self.panels() {
            // With M the lower triangle of G, what is below its diagonal doubled, Σ (a M) a over
            // the rows of A is the trace.
            self.read_doubled(&columns, &mut form);
            let width = columns.len();
            product.resize(a.rows() * width, T::zero());
            self.backend.operations().product(
                Store::Replace,
                PanelMut::new(&mut product, width),
                a.columns_of(columns.start..n),
                Panel::new(&form, width),
            );
            let work = product.chunks_exact(width).enumerate().collect();
            let parts = parallel::map(
                work,
                || (),
                |(), (i, product)| dot(product, &a.row(i)[columns.clone()], scale),
            );
            energy += parts.iter().sum::<f64>();
        }
        energy
    }

    /// Fills `form` with some columns of the lower triangle of G, scaled and doubled below the
    /// diagonal, with zeros above it; in the rows from `columns.start` on.
    fn read_doubled<T: Real>(&self, columns: &Range<usize>, form: &mut Vec<T>) {
        let diagonal = self.diagonal();
        let scale = inverse_power_of_two(mean_of_live(diagonal));
        let width = columns.len();
        let panel = self.panel(columns);
        form.clear();
        form.resize(panel.len(), T::zero());
        let work = form
            .chunks_exact_mut(width)
            .zip(panel.chunks_exact(width))
            .enumerate()
            .collect();
        parallel::map(
            work,
            || (),
            |(), (below, (form, row)): (usize, (&mut [T], &[f64]))| {
                for (out, &entry) in form[..width.min(below)].iter_mut().zip(row) {
                    *out = T::from_f64(2.0 * scale * entry);
                }
                if below < width {
                    form[below] = T::from_f64(scale * diagonal[columns.start + below]);
                }
            },
        );
    }
}

impl OutputEnergy for Gram {
    fn inputs(&self) -> usize {
        self.features()
    }

    fn of_f32(&self, weights: &[f32], scale: f64) -> f64 {
        self.energy(weights, scale)
    }

    fn of_f64(&self, weights: &[f64], scale: f64) -> f64 {
        self.energy(weights, scale)
    }
}
