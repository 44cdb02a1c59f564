//! Sums, of the squares of activations above all.

use crate::element::{Element, Real};
use crate::simd::{LANES, kernel};

/// Runs that are added together, so that sums stay in registers meanwhile: few enough for rows that
/// are a power of two apart to leave room for each other in the fastest cache.
pub(crate) const RUNS: usize = 4;

kernel! {
    /// `sums[j] += weights[t] * runs[t][j]²` for one `t` after the other, in `f64`. Runs are at
    /// least as long as `sums`.
    ///
    /// The square of any type narrower than `f64` is exact there and cannot overflow.
    pub(crate) fn add_squares<A: Element>(
        simd; sums: &mut [f64], runs: &[&[A]; RUNS], weights: &[f64; RUNS],
    ) {
        let exact = size_of::<A>() < size_of::<f64>();
        let runs = runs.map(|run| &run[..sums.len()]);
        if weights.iter().all(|weight| weight.to_bits() == 1_f64.to_bits()) {
            for (j, sum) in sums.iter_mut().enumerate() {
                // Written once, as compilers write memory whenever it may be what they read.
                let mut total = *sum;
                for run in runs {
                    let x = run[j].widen().as_f64();
                    total = if exact {
                        simd.add_exact_square(total, x)
                    } else {
                        total + x * x
                    };
                }
                *sum = total;
            }
        } else {
            for (j, sum) in sums.iter_mut().enumerate() {
                let mut total = *sum;
                for (run, weight) in runs.iter().zip(weights) {
                    let x = run[j].widen().as_f64();
                    total += weight * (x * x);
                }
                *sum = total;
            }
        }
    }
}

kernel! {
    /// `sums[j] += run[j]`, in `f64`.
    pub(crate) fn add<T: Real>(_simd; sums: &mut [f64], run: &[T]) {
        for (sum, x) in sums.iter_mut().zip(run) {
            *sum += x.as_f64();
        }
    }
}

/// The sum of partial sums, in one fixed order: halves are added until one is left.
pub(super) fn lane_sum(mut lanes: [f64; LANES]) -> f64 {
    let mut len = LANES;
    while len > 1 {
        len /= 2;
        for lane in 0..len {
            lanes[lane] += lanes[lane + len];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    fn check_squares<A: Element>(
        tokens: &[Vec<f32>],
        weights: &[f64; RUNS],
    ) -> Result<(), TestCaseError> {
        // In the range of every type, with more digits than any has.
        let narrowed = |&x: &f32| {
            let x = f64::from(x).abs().sqrt() / 3e4;
            A::narrow(A::Compute::from_f64(x))
        };
        let tokens: Vec<Vec<A>> = tokens
            .iter()
            .map(|token| token.iter().map(narrowed).collect())
            .collect();
        let mut expected = vec![1.0; tokens[0].len()];
        for (token, weight) in tokens.iter().zip(weights) {
            for (sum, x) in expected.iter_mut().zip(token) {
                *sum += weight * x.widen().as_f64().powi(2);
            }
        }
        let runs = std::array::from_fn(|i| &tokens[i][..]);
        for (set, sums) in on_each(|| {
            let mut sums = vec![1.0; expected.len()];
            add_squares(&mut sums, &runs, weights);
            sums
        }) {
            let bits = |sums: &[f64]| sums.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&sums), bits(&expected), "{:?}", set);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn squares_are_added_in_order_on_every_instruction_set(
            tokens in prop::collection::vec(prop::collection::vec(-1e18..1e18_f32, 37), RUNS),
            weights in prop_oneof![Just([1.0; RUNS]), any::<[u8; RUNS]>().prop_map(|w| w.map(f64::from))],
        ) {
            check_squares::<f32>(&tokens, &weights)?;
            check_squares::<f64>(&tokens, &weights)?;
            check_squares::<bf16>(&tokens, &weights)?;
            check_squares::<f16>(&tokens, &weights)?;
        }
    }
}
