//! From weights to scores.

use super::dispatch::kernel;
use crate::element::{Element, Real};

kernel! {
    /// Widens a run of values that are stored in another type than they are computed with.
    pub(crate) fn widen<A: Element>(_simd; run: &[A], out: &mut [A::Compute]) {
        for (out, x) in out.iter_mut().zip(run) {
            *out = x.widen();
        }
    }
}

kernel! {
    /// `out[j] = |weights[j]|`
    pub(crate) fn abs<T: Real>(_simd; weights: &[T], out: &mut [T]) {
        for (out, w) in out.iter_mut().zip(weights) {
            *out = w.abs();
        }
    }
}

kernel! {
    /// `out[j] = |weights[j]| * factors[j]`
    pub(crate) fn scaled_abs<T: Real>(_simd; weights: &[T], factors: &[T], out: &mut [T]) {
        for ((out, w), &factor) in out.iter_mut().zip(weights).zip(factors) {
            *out = w.abs() * factor;
        }
    }
}
