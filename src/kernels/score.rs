//! Scores of a run of weights.

use crate::element::Real;

/// `out[j] = |weights[j]|`
pub(crate) fn abs<T: Real>(weights: &[T], out: &mut [T]) {
    for (out, w) in out.iter_mut().zip(weights) {
        *out = w.abs();
    }
}

/// `out[j] = |weights[j]| * factors[j]`
pub(crate) fn scaled_abs<T: Real>(weights: &[T], factors: &[T], out: &mut [T]) {
    for ((out, w), &factor) in out.iter_mut().zip(weights).zip(factors) {
        *out = w.abs() * factor;
    }
}
