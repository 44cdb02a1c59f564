//! Runs of weights before a decision, and runs of marks.

use num_traits::Zero;

use super::memory::prefetch_after;
use crate::element::{Element, Real};
use crate::simd::{Clearable, WORD, kernel};

/// Parts of a run that are read side by side. Processors look ahead within pages of memory, so at
/// the start of each there is a pause: with several pages at a time these fall together.
const STREAMS: usize = 8;

/// How many bytes ahead each of them is asked for.
const AHEAD: usize = 1024;

kernel! {
    /// The largest magnitude of a run, and infinity if one of its values is infinite or not a
    /// number.
    pub(crate) fn largest<A: Element>(_simd; run: &[A]) -> A {
        // As integers, the bits of magnitudes order like the magnitudes, and not-a-number comes
        // last.
        let (words, rest) = run.as_chunks::<WORD>();
        // An odd number of words, since lines that are a power of two apart crowd each other out
        // of the cache.
        let part = (words.len() / STREAMS).saturating_sub(1) | 1;
        let (parts, others) = words.split_at(words.len().min(STREAMS * part));
        let mut lanes = [A::Bits::zero(); WORD];
        for i in 0..part {
            for word in parts.iter().skip(i).step_by(part) {
                prefetch_after(word, AHEAD / size_of::<A>());
                raise(&mut lanes, word);
            }
        }
        for word in others {
            raise(&mut lanes, word);
        }
        raise(&mut lanes, rest);
        let largest = lanes.into_iter().fold(A::Bits::zero(), Ord::max);
        A::from_bits(largest.min(A::INFINITY.magnitude_bits()))
    }
}

/// Raises the lanes to what is larger of some numbers.
#[inline(always)]
fn raise<A: Element>(lanes: &mut [A::Bits; WORD], numbers: &[A]) {
    for (lane, x) in lanes.iter_mut().zip(numbers) {
        *lane = (*lane).max(x.magnitude_bits());
    }
}

kernel! {
    /// How many bits are set.
    pub(crate) fn ones<B: Clearable>(_simd; words: &[B]) -> usize {
        words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

kernel! {
    /// `out[j] = weights[j] - removed[j]`
    pub(crate) fn subtract<T: Real>(_simd; weights: &[T], removed: &[T], out: &mut [T]) {
        for ((out, &weight), &removed) in out.iter_mut().zip(weights).zip(removed) {
            *out = weight - removed;
        }
    }
}

/// At most 64 numbers, and some more to make 64.
#[inline]
pub(crate) fn padded<T: Copy>(run: &[T], padding: T) -> [T; WORD] {
    let mut padded = [padding; WORD];
    padded[..run.len()].copy_from_slice(run);
    padded
}

/// Sets bits from some place on.
pub(crate) struct MarkWriter<'a> {
    marks: &'a mut [u64],
    place: usize,
}

impl<'a> MarkWriter<'a> {
    pub(crate) fn new(marks: &'a mut [u64], start: usize) -> Self {
        Self {
            marks,
            place: start,
        }
    }

    /// Sets the bits that are set in `word`, of whose bits `len` count.
    #[inline(always)]
    pub(crate) fn write(&mut self, word: u64, len: usize) {
        let (first, shift) = (self.place / WORD, self.place % WORD);
        self.marks[first] |= word << shift;
        // What is shifted out belongs to the next word, if there are bits that reach it.
        if shift + len > WORD {
            self.marks[first + 1] |= word >> (WORD - shift);
        }
        self.place += len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    proptest! {
        #[test]
        fn the_largest_is_the_same_on_every_instruction_set(
            mut run in prop::collection::vec(-1e30..1e30_f32, 0..200),
            place: prop::sample::Index,
            value in prop::sample::select(vec![1.0, f32::NAN, f32::NEG_INFINITY, -0.0]),
        ) {
            if !run.is_empty() {
                *place.get_mut(&mut run) = value;
            }
            let finite = run.iter().all(|x| x.is_finite());
            let expected = run.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            let expected = if finite { expected } else { f32::INFINITY };
            for (set, found) in on_each(|| largest(&run)) {
                prop_assert_eq!(found.to_bits(), expected.to_bits(), "{:?}", set);
            }
        }

        #[test]
        fn differences_are_the_same_on_every_instruction_set(
            pairs in prop::collection::vec((any::<f64>(), any::<f64>()), 0..200),
        ) {
            let (weights, removed): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let expected: Vec<_> =
                weights.iter().zip(&removed).map(|(a, b)| (a - b).to_bits()).collect();
            for (set, bits) in on_each(|| {
                let mut out = vec![0.0; weights.len()];
                subtract(&weights, &removed, &mut out);
                out.into_iter().map(f64::to_bits).collect::<Vec<_>>()
            }) {
                prop_assert_eq!(&bits, &expected, "{:?}", set);
            }
        }
    }
}
