//! Pruning by weights and activations.

use super::{Context, Factors, ImportanceMetric, Prepared};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::matrix::Rows;
use crate::stats;

/// The size of the weight times the norm of the input it multiplies.
///
/// # Formula
///
/// ```text
/// score = |Wᵢⱼ| · ‖Xⱼ‖₂
/// ```
///
/// The product is taken in the type computed in, `f32` for all but `f64` weights, as the
/// published code does. The method compares within one output row
/// ([`Pattern::PerOutput`](crate::Pattern::PerOutput)), but any pattern can be used.
///
/// An input feature that calibration never saw other than zero is *dead*: its weights score 0
/// and go first. [`LayerReport::dead_inputs`](crate::LayerReport::dead_inputs) counts them.
///
/// # Errors
///
/// [`Error::NoCalibration`] if all inputs are dead or none were seen, [`Error::StatsShape`] if
/// the statistics are of another layer, [`Error::InvalidStatistic`] if a norm is too large for
/// the type computed in.
///
/// # Complexity
///
/// One multiplication a weight; n norms of memory for n inputs.
///
/// # Example
///
/// ```
/// use wanda::{ColumnNorms, Pattern, Pruner, Wanda, ndarray::array};
///
/// let mut stats = ColumnNorms::new(2);
/// stats.update(&array![[10.0_f32, 1.0]])?;
/// let mut w = array![[1.0_f32, 2.0]];
/// Pruner::new(Wanda, Pattern::PerOutput(0.5)).prune(&mut w, &stats)?;
/// // 1 · 10 is more than 2 · 1.
/// assert_eq!(w, array![[1.0, 0.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models",
/// arXiv 2306.11695, equation 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanda;

impl<T: Real> ImportanceMetric<T> for Wanda {
    fn name(&self) -> String {
        "wanda".to_owned()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        context: &Context<'a, T>,
    ) -> Result<Prepared<'a, T>> {
        let sums = stats::required_sums(context.stats, "wanda", weights.dim())?;
        let norms: Vec<T> = sums.iter().map(|sum| T::from_f64(sum.sqrt())).collect();
        match norms.iter().position(|norm| !norm.is_finite()) {
            Some(feature) => Err(Error::InvalidStatistic {
                feature,
                value: sums[feature].sqrt(),
            }),
            None => Ok(Prepared::factors(Factors::new(norms))),
        }
    }
}
