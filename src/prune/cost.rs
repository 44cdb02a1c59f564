//! What pruning costs a layer's output.

use ndarray::ArrayRef2;

use crate::element::{Element, Real, inverse_power_of_two};
use crate::error::Result;
use crate::kernels::RowCost;
use crate::matrix::read_all;
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::{OutputEnergy, energy_of};

/// What the relative error is measured with when only the norms of the inputs are known: weights
/// and sums of squares are brought near 1, so that no square of an `f64` overflows or vanishes.
/// Powers of two scale exactly and cancel.
pub(super) struct Gauge {
    pub(super) energies: Vec<f64>,
    pub(super) weight_scale: f64,
}

impl Gauge {
    pub(super) fn new(energies: &[f64], largest_weight: f64) -> Self {
        let scale = inverse_power_of_two(energies.iter().copied().fold(0.0, f64::max));
        Self {
            energies: energies.iter().map(|energy| energy * scale).collect(),
            weight_scale: inverse_power_of_two(largest_weight),
        }
    }
}

/// The relative error of a layer from what it lost; `None` if it puts out nothing.
pub(super) fn relative(cost: RowCost) -> Option<RelativeError> {
    RelativeError::new(cost.lost, cost.total, ErrorBasis::InputNorms)
}

/// The dense weights, kept to be compared with what pruning makes of them, where statistics know
/// more than norms.
pub(super) struct Dense<'a, T> {
    energy: &'a dyn OutputEnergy,
    weights: Vec<T>,
    scale: f64,
}

impl<'a, T: Real> Dense<'a, T> {
    pub(super) fn of<A: Element<Compute = T>>(
        w: &ArrayRef2<A>,
        energy: &'a dyn OutputEnergy,
        largest_weight: f64,
    ) -> Result<Self> {
        Ok(Self {
            energy,
            weights: read_all(&w.view())?,
            scale: inverse_power_of_two(largest_weight),
        })
    }

    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`; `None` if the dense layer puts out nothing.
    pub(super) fn compare<A: Element<Compute = T>>(
        mut self,
        w: &ArrayRef2<A>,
    ) -> Option<RelativeError> {
        let total = energy_of(self.energy, &self.weights, self.scale);
        for (dense, w) in self.weights.iter_mut().zip(w) {
            *dense = *dense - w.widen();
        }
        let lost = energy_of(self.energy, &self.weights, self.scale);
        RelativeError::new(lost, total, ErrorBasis::Gram)
    }
}
