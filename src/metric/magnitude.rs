//! Magnitude pruning.

use super::{Context, Factors, ImportanceMetric, Prepared};
use crate::element::Real;
use crate::error::Result;
use crate::matrix::{Rows, zeros};

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
    fn name(&self) -> String {
        "magnitude".to_owned()
    }

    fn prepare<'a>(&'a self, weights: &dyn Rows<T>, _: &Context<'a, T>) -> Result<Prepared<'a, T>> {
        let mut factors = zeros(1, weights.dim().1)?;
        factors.fill(T::one());
        Ok(Prepared::factors(Factors::new(factors)))
    }
}
