//! What pruning costs a layer's output.

use crate::element::inverse_power_of_two;
use crate::kernels::RowCost;
use crate::report::{ErrorBasis, RelativeError};

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
