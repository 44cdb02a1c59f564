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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

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
