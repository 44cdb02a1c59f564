//! Sums: of the squares of activations, and of what pruning a row costs.

#[cfg(any(feature = "faer", feature = "lapack"))]
use super::dispatch::kernel;
use crate::element::Real;

/// How many partial sums a reduction runs over, whatever the instruction set.
const LANES: usize = 8;

/// `sums[j] += weight * run[j]²`, in `f64`.
///
/// The square of any type narrower than `f64` is exact there and cannot overflow.
pub(crate) fn add_squares<T: Real>(sums: &mut [f64], run: &[T], weight: f64) {
    for (sum, x) in sums.iter_mut().zip(run) {
        let x = x.as_f64();
        *sum += weight * (x * x);
    }
}

/// What pruning costs a row, in units of squared outputs summed over the calibration tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowCost {
    /// Σ wⱼ² Sⱼ over the pruned weights.
    pub(crate) lost: f64,
    /// Σ wⱼ² Sⱼ over all weights.
    pub(crate) total: f64,
}

/// The cost of zeroing the marked ones of a row of weights, where `energies[j]` is the sum of
/// squares Sⱼ of input `j`. Weights are multiplied by `scale` first.
pub(crate) fn row_cost<T: Real>(
    weights: &[T],
    scale: f64,
    energies: &[f64],
    marks: &[u64],
) -> RowCost {
    let mut lost = [0.0; LANES];
    let mut total = [0.0; LANES];
    let words = weights.chunks(64).zip(energies.chunks(64)).zip(marks);
    for ((weights, energies), &word) in words {
        let eights = weights.chunks(LANES).zip(energies.chunks(LANES));
        for (i, (weights, energies)) in eights.enumerate() {
            let bits = word >> (i * LANES);
            for (lane, (w, energy)) in weights.iter().zip(energies).enumerate() {
                let w = w.as_f64() * scale;
                let cost = w * w * energy;
                total[lane] += cost;
                lost[lane] += if bits >> lane & 1 == 1 { cost } else { 0.0 };
            }
        }
    }
    RowCost {
        lost: lane_sum(lost),
        total: lane_sum(total),
    }
}

#[cfg(any(feature = "faer", feature = "lapack"))]
kernel! {
    /// Σ (scale · xⱼ) (scale · yⱼ), in `f64`.
    pub(crate) fn dot<T: Real>(x: &[T], y: &[T], scale: f64) -> f64 {
        let mut lanes = [0.0; LANES];
        for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
            for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
                *lane += (x.as_f64() * scale) * (y.as_f64() * scale);
            }
        }
        lane_sum(lanes)
    }
}

/// The sum of partial sums, in one fixed order: halves are added until one is left.
fn lane_sum(mut lanes: [f64; LANES]) -> f64 {
    let mut len = LANES;
    while len > 1 {
        len /= 2;
        for lane in 0..len {
            lanes[lane] += lanes[lane + len];
        }
    }
    lanes[0]
}

#[cfg(all(test, any(feature = "faer", feature = "lapack")))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

    proptest! {
        #[test]
        fn a_dot_product_is_near_the_plain_sum_and_the_same_on_every_instruction_set(
            pairs in prop::collection::vec((-10.0..10.0_f32, -10.0..10.0_f32), 0..300),
        ) {
            let (x, y): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let terms = pairs.iter().map(|&(x, y)| f64::from(x) * f64::from(y) * 0.25);
            let expected: f64 = terms.clone().sum();
            let bound = 1e-13 * terms.map(f64::abs).sum::<f64>();
            let results = on_each(|| dot(&x, &y, 0.5));
            for (set, found) in &results {
                prop_assert!((found - expected).abs() <= bound, "{:?}: {} {}", set, found, expected);
                prop_assert_eq!(found.to_bits(), results[0].1.to_bits(), "{:?}", set);
            }
        }
    }
}
