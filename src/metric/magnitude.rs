//! Magnitude pruning.

use super::scaled::ScaledMagnitude;
use super::{ImportanceMetric, Scorer};
use crate::element::Real;
use crate::error::Result;
use crate::matrix::{Rows, zeros};
use crate::stats::ActivationStats;

/// The size of the weight alone. Needs no calibration: [`NoStats`](crate::NoStats) will do.
///
/// # Formula
///
/// ```text
/// score = |Wᵢⱼ|
/// ```
///
/// # Complexity
///
/// As [`Wanda`](crate::Wanda), whose norms are replaced by ones.
///
/// # Example
///
/// ```
/// use wanda::{Magnitude, NoStats, Pattern, Pruner, ndarray::array};
///
/// let mut w = array![[0.1_f32, -3.0], [2.0, 0.5]];
/// Pruner::new(Magnitude, Pattern::PerLayer(0.5)).prune(&mut w, &NoStats)?;
/// assert_eq!(w, array![[0.0, -3.0], [2.0, 0.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural
/// Networks", 2015, arXiv 1506.02626.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Magnitude;

impl<T: Real> ImportanceMetric<T> for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer<T> + 'a>> {
        let mut factors = zeros(1, weights.dim().1)?;
        factors.fill(T::one());
        Ok(Box::new(ScaledMagnitude::new(factors)))
    }
}
