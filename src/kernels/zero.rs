//! Marked weights become zero: how many are zero then, and what that costs.

use num_traits::Zero;

use super::accumulate::lane_sum;
use super::mark::padded;
use super::memory::prefetch_after;
use crate::element::{Element, Real};
use crate::simd::{Clearable, LANES, Simd, WORD, kernel};

/// What pruning costs a row, in units of squared outputs summed over the calibration tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowCost {
    /// Σ wⱼ² Sⱼ over the pruned weights.
    pub(crate) lost: f64,
    /// Σ wⱼ² Sⱼ over all weights.
    pub(crate) total: f64,
}

impl RowCost {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.total += other.total;
    }
}

/// Independent chains of sums, so that none waits for the one before.
const CHAINS: usize = 2;

/// Weights that no loop widens, widened; zeros otherwise.
#[inline(always)]
fn widened_slowly<A: Element>(weights: &[A; WORD]) -> [A::Compute; WORD] {
    let mut wide = [A::Compute::zero(); WORD];
    if !A::WIDENS_QUICKLY {
        A::widen_run(weights, &mut wide);
    }
    wide
}

/// Sums of costs, in lanes.
#[derive(Default)]
struct CostSums {
    lost: [[f64; LANES]; CHAINS],
    total: [[f64; LANES]; CHAINS],
}

impl CostSums {
    /// Adds the costs of 64 weights.
    #[inline(always)]
    fn add<A: Element>(
        &mut self,
        simd: impl Simd,
        weights: &[A; WORD],
        scale: f64,
        energies: &[f64; WORD],
        marks: u64,
    ) {
        let wide = widened_slowly(weights);
        let energies = energies.as_chunks::<LANES>().0;
        for (i, (weights, energies)) in weights
            .as_chunks::<LANES>()
            .0
            .iter()
            .zip(energies)
            .enumerate()
        {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "as many as there are lanes"
            )]
            let marks = (marks >> (i * LANES)) as u8;
            let mut costs = [0.0; LANES];
            for lane in 0..LANES {
                let w = if A::WIDENS_QUICKLY {
                    weights[lane].widen()
                } else {
                    wide[i * LANES + lane]
                };
                // The squares of narrower types are in the range of `f64` as they are.
                let w = if size_of::<A>() == size_of::<f64>() {
                    w.as_f64() * scale
                } else {
                    w.as_f64()
                };
                costs[lane] = w * w * energies[lane];
            }
            for (total, cost) in self.total[i % CHAINS].iter_mut().zip(&costs) {
                *total += cost;
            }
            simd.add_marked(&mut self.lost[i % CHAINS], &costs, marks);
        }
    }

    fn of_row(self) -> RowCost {
        RowCost {
            lost: self.lost.map(lane_sum).iter().sum(),
            total: self.total.map(lane_sum).iter().sum(),
        }
    }
}

kernel! {
    /// Sets the weights whose bit is set to `+0.0`. Returns how many are zero then, and what that
    /// costs, where `energies[j]` is the sum of squares Sⱼ of input `j`: nothing, where there are
    /// no energies. Weights of type `f64` are multiplied by `scale` to tell the cost.
    ///
    /// Meanwhile brings memory to the caches: that as many numbers on as `ahead` says.
    pub(crate) fn zero_marked<A: Element>(
        simd; run: &mut [A], marks: &[u64], scale: f64, energies: &[f64], ahead: usize,
    ) -> (usize, RowCost) {
        let mut sums = CostSums::default();
        let mut zeros = 0;
        let (words, rest) = run.as_chunks_mut();
        let (energy_words, energy_rest) = energies.as_chunks();
        for (i, (run, &marks)) in words.iter_mut().zip(marks).enumerate() {
            prefetch_after(run, ahead);
            if let Some(energies) = energy_words.get(i) {
                sums.add(simd, run, scale, energies, marks);
            }
            zeros += A::Bits::clear(simd, bits_of(run), marks);
        }
        if !rest.is_empty() {
            let mut run = padded(rest, A::ZERO);
            let marks = marks[words.len()];
            sums.add(simd, &run, scale, &padded(energy_rest, 0.0), marks);
            let padding = WORD - rest.len();
            zeros += A::Bits::clear(simd, bits_of(&mut run), marks) - padding;
            rest.copy_from_slice(&run[..rest.len()]);
        }
        (zeros, sums.of_row())
    }
}

/// Numbers as their bits.
#[inline(always)]
fn bits_of<A: Element>(run: &mut [A; WORD]) -> &mut [A::Bits; WORD] {
    const { assert!(size_of::<A>() == size_of::<A::Bits>()) };
    const { assert!(align_of::<A>() == align_of::<A::Bits>()) };
    // SAFETY: `Element` is sealed, and its `Bits` is an integer of the same size and alignment. Any
    // bits are a number.
    unsafe { &mut *std::ptr::from_mut(run).cast() }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    /// Weights with their energies and marks.
    fn weights() -> impl Strategy<Value = Vec<(f32, f64, bool)>> {
        let weight = prop_oneof![4 => -10.0..10.0_f32, 1 => Just(0.0), 1 => Just(-0.0)];
        prop::collection::vec((weight, 0.0..10.0_f64, any::<bool>()), 0..300)
    }

    fn check<A: Element>(
        weights: &[(f32, f64, bool)],
        costly: bool,
        scale: f64,
    ) -> Result<(), TestCaseError> {
        let run: Vec<A> = weights
            .iter()
            .map(|&(w, ..)| A::narrow(A::Compute::from_f64(w.into())))
            .collect();
        let energies: Vec<f64> = weights.iter().map(|&(_, e, _)| e).collect();
        let energies = if costly { &energies[..] } else { &[] };
        let mut marks = vec![0_u64; weights.len().div_ceil(WORD)];
        let mut pruned = run.clone();
        let (mut zeros, mut lost, mut total) = (0, 0.0, 0.0);
        for (i, &(_, energy, marked)) in weights.iter().enumerate() {
            let cost = (run[i].widen().as_f64() * scale).powi(2) * energy;
            total += cost;
            if marked {
                marks[i / WORD] |= 1 << (i % WORD);
                pruned[i] = A::ZERO;
                lost += cost;
            }
            zeros += usize::from(pruned[i] == A::ZERO);
        }
        if !costly {
            (lost, total) = (0.0, 0.0);
        }
        let bits =
            |run: &[A]| -> Vec<u64> { run.iter().map(|w| w.widen().as_f64().to_bits()).collect() };
        let results = on_each(|| {
            let mut run = run.clone();
            (zero_marked(&mut run, &marks, scale, energies, 64), run)
        });
        for (set, ((found, cost), run)) in &results {
            prop_assert_eq!(bits(run), bits(&pruned), "{:?}", set);
            prop_assert_eq!(*found, zeros, "{:?}", set);
            prop_assert!((cost.total - total).abs() <= 1e-13 * total, "{:?}", set);
            prop_assert!((cost.lost - lost).abs() <= 1e-13 * total, "{:?}", set);
            prop_assert_eq!(cost, &results[0].1.0.1, "{:?}", set);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn marked_weights_become_zero_at_the_plain_sum_of_costs_on_every_instruction_set(
            weights in weights(),
            costly: bool,
        ) {
            check::<f32>(&weights, costly, 1.0)?;
            check::<bf16>(&weights, costly, 1.0)?;
            check::<f16>(&weights, costly, 1.0)?;
            check::<f64>(&weights, costly, 0.25)?;
        }
    }
}
