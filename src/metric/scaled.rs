//! Scores that are a magnitude times a factor of the column.

use super::Scorer;
use crate::element::Real;
use crate::kernels;

/// `score = |Wᵢⱼ| · factorⱼ`
pub(super) struct ScaledMagnitude<T> {
    factors: Vec<T>,
    largest: T,
}

impl<T: Real> ScaledMagnitude<T> {
    /// One factor a column, finite and not negative.
    pub(super) fn new(factors: Vec<T>) -> Self {
        let largest = kernels::largest(&factors);
        Self { factors, largest }
    }
}

impl<T: Real> Scorer<T> for ScaledMagnitude<T> {
    fn score(&self, _: usize, start: usize, weights: &[T], scores: &mut [T]) {
        let factors = self.factors.get(start..).unwrap_or(&[]);
        let len = weights.len().min(scores.len()).min(factors.len());
        kernels::scaled_abs(&weights[..len], &factors[..len], &mut scores[..len]);
    }

    fn promises_valid_scores(&self, largest: T) -> bool {
        (largest * self.largest).is_finite()
    }

    fn factors(&self) -> Option<&[T]> {
        Some(&self.factors)
    }
}
