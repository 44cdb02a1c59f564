//! Runs of weights before and after a decision: how large they are, which of them become zero.

use ndarray::ArrayViewMut1;

use super::dispatch::kernel;
use crate::element::{Element, Real};

kernel! {
    /// The largest magnitude of a run, and infinity if one of its values is infinite or not a
    /// number.
    pub(crate) fn largest<T: Real>(run: &[T]) -> T {
        // As integers, the bits of magnitudes order like the magnitudes, and not-a-number comes
        // last.
        let key = run.iter().fold(0, |key, x| key.max(x.abs().key()));
        T::from_key(key.min(T::infinity().key()))
    }
}

/// Sets the weights of a row whose bit is set to `+0.0`.
pub(crate) fn zero_marked<A: Element>(row: &mut ArrayViewMut1<'_, A>, marks: &[u64]) {
    if let Some(run) = row.as_slice_mut() {
        for (weights, &word) in run.chunks_mut(64).zip(marks) {
            zero_word(weights, word);
        }
    } else {
        for (mut weights, &word) in row.axis_chunks_iter_mut(ndarray::Axis(0), 64).zip(marks) {
            zero_word(&mut weights, word);
        }
    }
}

/// Sets those of at most 64 weights whose bit is set to `+0.0`.
fn zero_word<'a, A: Element>(weights: impl IntoIterator<Item = &'a mut A>, word: u64) {
    for (bit, w) in weights.into_iter().enumerate() {
        *w = if word >> bit & 1 == 1 { A::ZERO } else { *w };
    }
}

kernel! {
    /// `out[j] = weights[j] - removed[j]`
    pub(crate) fn subtract<T: Real>(weights: &[T], removed: &[T], out: &mut [T]) {
        for ((out, &weight), &removed) in out.iter_mut().zip(weights).zip(removed) {
            *out = weight - removed;
        }
    }
}
