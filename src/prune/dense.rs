//! What pruning costs a layer's output, by the Gram matrix of its inputs.

use ndarray::ArrayRef2;

use crate::element::{Element, inverse_power_of_two};
use crate::error::Result;
use crate::linalg::read_all;
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::Gram;

/// The dense weights, kept to be compared with what pruning makes of them.
pub(super) struct Dense<'a, A: Element> {
    gram: &'a Gram,
    weights: Vec<A::Compute>,
    scale: f64,
}

impl<'a, A: Element> Dense<'a, A> {
    pub(super) fn of(w: &ArrayRef2<A>, gram: &'a Gram, largest_weight: f64) -> Result<Self> {
        Ok(Self {
            gram,
            weights: read_all(&w.view())?,
            scale: inverse_power_of_two(largest_weight),
        })
    }

    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`; `None` if the dense layer puts out nothing.
    pub(super) fn compare(mut self, w: &ArrayRef2<A>) -> Option<RelativeError> {
        let total = self.gram.output_energy(&self.weights, self.scale);
        for (dense, w) in self.weights.iter_mut().zip(w) {
            *dense = *dense - w.widen();
        }
        let lost = self.gram.output_energy(&self.weights, self.scale);
        RelativeError::new(lost, total, ErrorBasis::Gram)
    }
}
