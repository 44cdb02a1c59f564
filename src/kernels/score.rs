//! From weights to scores.

use num_traits::{Float, Zero};

use super::dispatch::kernel;
use super::mark::padded;
use super::simd::WORD;
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
    /// `out[j] = |weights[j]| * factors[j]`
    pub(crate) fn scaled_abs<T: Real>(_simd; weights: &[T], factors: &[T], out: &mut [T]) {
        for ((out, w), &factor) in out.iter_mut().zip(weights).zip(factors) {
            *out = w.abs() * factor;
        }
    }
}

/// Scores that are read 64 at a time.
pub(super) trait Words<T> {
    /// How many scores there are.
    fn len(&self) -> usize;

    /// The scores from number `64 i` on. There are as many.
    fn word(&self, i: usize) -> [T; WORD];

    /// The scores after the last whole word, and infinities after them.
    fn rest(&self) -> [T; WORD];
}

impl<T: Real> Words<T> for &[T] {
    #[inline(always)]
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    #[inline(always)]
    fn word(&self, i: usize) -> [T; WORD] {
        self.as_chunks().0[i]
    }

    #[inline(always)]
    fn rest(&self) -> [T; WORD] {
        padded(self.as_chunks::<WORD>().1, T::infinity())
    }
}

/// Scores that are computed when they are read: `|weights[j]| * factors[j]`. There are as many
/// factors as weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scaled<'a, A: Element> {
    pub(crate) weights: &'a [A],
    pub(crate) factors: &'a [A::Compute],
}

impl<A: Element> Words<A::Compute> for Scaled<'_, A> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.weights.len()
    }

    #[inline(always)]
    fn word(&self, i: usize) -> [A::Compute; WORD] {
        scaled_word(
            &self.weights.as_chunks().0[i],
            &self.factors.as_chunks().0[i],
        )
    }

    #[inline(always)]
    fn rest(&self) -> [A::Compute; WORD] {
        let weights = self.weights.as_chunks::<WORD>().1;
        let factors = self.factors.as_chunks::<WORD>().1;
        let mut scores = scaled_word(
            &padded(weights, A::ZERO),
            &padded(factors, A::Compute::zero()),
        );
        scores[weights.len()..].fill(A::Compute::infinity());
        scores
    }
}

#[inline(always)]
fn scaled_word<A: Element>(
    weights: &[A; WORD],
    factors: &[A::Compute; WORD],
) -> [A::Compute; WORD] {
    let mut scores = [A::Compute::zero(); WORD];
    if A::WIDENS_QUICKLY {
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score = weight.widen();
        }
    } else {
        A::widen_run(weights, &mut scores);
    }
    for (score, &factor) in scores.iter_mut().zip(factors) {
        *score = score.abs() * factor;
    }
    scores
}
