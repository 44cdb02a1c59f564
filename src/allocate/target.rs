//! What an allocation would like for a layer.

use std::ops::RangeInclusive;

/// The sparsity that an allocation would like a layer to have, and how far it may be moved so that
/// all layers add up to what is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    sparsity: f64,
    limits: RangeInclusive<f64>,
}

/// The highest sparsity of a layer, unless that of all layers is higher.
const HIGHEST: f64 = 0.99;

impl Target {
    /// A sparsity that may be moved within limits. One outside is clipped to them.
    #[must_use]
    pub fn within(sparsity: f64, limits: RangeInclusive<f64>) -> Self {
        Self { sparsity, limits }
    }

    /// A sparsity that must not be moved, but for the rounding to a whole number of weights.
    #[must_use]
    pub fn fixed(sparsity: f64) -> Self {
        Self::within(sparsity, sparsity..=sparsity)
    }

    /// A sparsity that may be anything that leaves some weights, where `overall` is that of all
    /// layers.
    pub(super) fn free(sparsity: f64, overall: f64) -> Self {
        Self::within(sparsity, 0.0..=HIGHEST.max(overall))
    }

    /// The same with limits that are no further than `distance` from `overall`.
    pub(super) fn near(self, overall: f64, distance: f64) -> Self {
        let (low, high) = self.limits.into_inner();
        let limits = low.max(overall - distance)..=high.min(overall + distance);
        Self::within(self.sparsity, limits)
    }

    /// The sparsity asked for.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        self.sparsity
    }

    /// The lowest and the highest sparsity there may be.
    #[must_use]
    pub fn limits(&self) -> &RangeInclusive<f64> {
        &self.limits
    }

    /// Whether these are numbers, and limits as they have to be.
    pub(super) fn is_valid(&self) -> bool {
        let (&low, &high) = (self.limits.start(), self.limits.end());
        !self.sparsity.is_nan() && 0.0 <= low && low <= high && high <= 1.0
    }
}
