//! What layers put out over all of calibration, where more is known than norms.

use crate::element::Real;
use crate::number::Family;

/// Measures what a layer puts out over all calibration tokens: `tr(A G Aᵀ)`, the sum of squared
/// outputs of a layer with weights A, for statistics that know more of G = `XᵀX` than its diagonal.
///
/// `weights` are row-major. They are multiplied by `scale`, and G by any factor that is the same in
/// all calls, so that nothing overflows: what is used are ratios.
pub trait OutputEnergy: Send + Sync {
    /// How many inputs the layers have that it measures. Others are refused.
    fn inputs(&self) -> usize;

    /// Of weights in `f32`.
    fn of_f32(&self, weights: &[f32], scale: f64) -> f64;

    /// Of weights in `f64`.
    fn of_f64(&self, weights: &[f64], scale: f64) -> f64;
}

/// A measurement of weights of each type.
struct Measurement;

impl Family for Measurement {
    type Of<T: 'static> = fn(&dyn OutputEnergy, &[T], f64) -> f64;
}

/// The energy of weights of either type.
pub(crate) fn energy_of<T: Real>(energy: &dyn OutputEnergy, weights: &[T], scale: f64) -> f64 {
    let measure = T::pick::<Measurement>(
        |energy, weights, scale| energy.of_f32(weights, scale),
        |energy, weights, scale| energy.of_f64(weights, scale),
    );
    measure(energy, weights, scale)
}
