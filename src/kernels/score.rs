//! From weights to scores.

use num_traits::{Float, Zero};

use super::mark::padded;
use super::memory::prefetch_after;
use crate::element::{Element, Real};
use crate::simd::{WORD, kernel};

kernel! {
    /// `out[j] = |weights[j]| * factors[j]`
    pub(crate) fn scaled_abs<A: Element>(
        _simd; weights: &[A], factors: &[A::Compute], out: &mut [A::Compute],
    ) {
        scale_run(weights, factors, out);
    }
}

kernel! {
    /// The same of rows that begin `stride` weights apart, one after the other. There are as many
    /// columns as factors.
    pub(crate) fn scaled_abs_of_rows<A: Element>(
        _simd; weights: &[A], stride: usize, factors: &[A::Compute], out: &mut [A::Compute],
    ) {
        for (i, out) in out.chunks_exact_mut(factors.len().max(1)).enumerate() {
            let weights = &weights[i * stride..][..factors.len()];
            prefetch_after(weights, ROWS_AHEAD * stride);
            scale_run(weights, factors, out);
        }
    }
}

/// How many rows ahead parts of rows are fetched. What a processor fetches by itself is the rest of
/// each row.
const ROWS_AHEAD: usize = 16;

#[inline(always)]
fn scale_run<A: Element>(weights: &[A], factors: &[A::Compute], out: &mut [A::Compute]) {
    let (words, rest) = out.as_chunks_mut();
    for (i, out) in words.iter_mut().enumerate() {
        *out = Scaled { weights, factors }.word(i);
    }
    let start = words.len() * WORD;
    for (j, out) in rest.iter_mut().enumerate() {
        *out = weights[start + j].widen().abs() * factors[start + j];
    }
}

/// Scores that are read 64 at a time.
pub(crate) trait Words<T> {
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

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    proptest! {
        #[test]
        fn parts_of_rows_are_scored_like_single_weights_on_every_instruction_set(
            (stride, start, width) in (1..150_usize)
                .prop_flat_map(|stride| (Just(stride), 0..stride))
                .prop_flat_map(|(stride, start)| (Just(stride), Just(start), 1..=stride - start)),
            rows in 1..20_usize,
        ) {
            let weights: Vec<bf16> = (0..rows * stride)
                .map(|i| bf16::from_f32(50.0 - (i * 37 % 101) as f32))
                .collect();
            let factors: Vec<f32> = (0..width).map(|j| 0.3 * j as f32).collect();
            for (set, scores) in on_each(|| {
                let mut out = vec![f32::NAN; rows * width];
                scaled_abs_of_rows(&weights[start..], stride, &factors, &mut out);
                out
            }) {
                for (i, score) in scores.iter().enumerate() {
                    let (row, column) = (i / width, i % width);
                    let weight = weights[row * stride + start + column].to_f32();
                    let expected = weight.abs() * factors[column];
                    prop_assert_eq!(score.to_bits(), expected.to_bits(), "{:?}", set);
                }
            }
        }
    }
}
