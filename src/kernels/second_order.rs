//! The inner loops of second-order methods.

use std::ops::Range;

use super::accumulate::lane_sum;
use crate::element::Real;
use crate::simd::{LANES, kernel};

/// Rows that are swept together.
///
/// So many that compilers keep the loop over them a loop, of whole vectors; with fewer, they
/// unroll it and then vectorise along the columns, which is several times slower.
pub(crate) const ROWS: usize = 64;

kernel! {
    /// Takes some columns of a block of weights from left to right, in [`ROWS`] rows at once.
    ///
    /// `weights` and `goes` hold a column each, an entry a row. Weights that go become zero, the
    /// others are rounded by `round`, if given. What that takes away is made up for by the
    /// weights to the right: with U the upper triangular `inverse` (row-major, one row and column
    /// for each column of the block),
    ///
    /// ```text
    /// e = (old − new) / U[i, i]
    /// weights[j] −= e · U[i, j]        for j > i
    /// ```
    ///
    /// Adds (scale · e)² to the row's entry of `squares`.
    ///
    /// # Errors
    ///
    /// Row and column of the first error that is not finite. The weights are in between then.
    pub(crate) fn eliminate<T: Real>(
        _simd;
        weights: &mut [[T; ROWS]],
        goes: &[[bool; ROWS]],
        columns: Range<usize>,
        inverse: &[T],
        round: Option<fn(&mut [T])>,
        scale: f64,
        squares: &mut [f64; ROWS],
    ) -> Result<(), (usize, usize)> {
        let width = weights.len();
        for column in columns {
            let (done, right) = weights.split_at_mut(column + 1);
            let old = done[column];
            let line = &inverse[column * width + column..(column + 1) * width];
            let mut new = old;
            if let Some(round) = round {
                round(&mut new);
            }
            for (new, &goes) in new.iter_mut().zip(&goes[column]) {
                *new = if goes { T::zero() } else { *new };
            }
            let mut errors = [T::zero(); ROWS];
            let mut finite = true;
            for row in 0..ROWS {
                errors[row] = (old[row] - new[row]) / line[0];
                finite &= errors[row].is_finite();
                squares[row] += (errors[row].as_f64() * scale).powi(2);
            }
            if !finite {
                let row = errors.iter().position(|error| !error.is_finite());
                return Err((row.unwrap_or(0), column));
            }
            done[column] = new;
            for (weights, &u) in right.iter_mut().zip(&line[1..]) {
                for row in 0..ROWS {
                    weights[row] = weights[row] - errors[row] * u;
                }
            }
        }
        Ok(())
    }
}

kernel! {
    /// Σ (scale · xⱼ) (scale · yⱼ), in `f64`.
    pub(crate) fn dot<T: Real>(_simd; x: &[T], y: &[T], scale: f64) -> f64 {
        let mut lanes = [0.0; LANES];
        for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
            for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
                *lane += (x.as_f64() * scale) * (y.as_f64() * scale);
            }
        }
        lane_sum(lanes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    /// A block, column by column, with what goes of it, and an upper triangular matrix.
    type Case = (Vec<[f32; ROWS]>, Vec<[bool; ROWS]>, Vec<f32>);

    fn cases() -> impl Strategy<Value = Case> {
        (1..20_usize).prop_flat_map(|width| {
            let weights = prop::collection::vec(-4.0..4.0_f32, ROWS * width);
            let goes = prop::collection::vec(any::<bool>(), ROWS * width);
            let inverse = prop::collection::vec(0.25..2.0_f32, width * width);
            (weights, goes, inverse).prop_map(move |(weights, goes, mut inverse)| {
                for row in 0..width {
                    inverse[row * width..row * width + row].fill(0.0);
                }
                (in_columns(&weights), in_columns(&goes), inverse)
            })
        })
    }

    fn in_columns<A: Copy>(values: &[A]) -> Vec<[A; ROWS]> {
        let columns = values.chunks_exact(ROWS);
        columns
            .map(|column| std::array::from_fn(|row| column[row]))
            .collect()
    }

    fn round(run: &mut [f32]) {
        for x in run {
            *x = (*x * 8.0).round() / 8.0;
        }
    }

    /// The formula, one weight after the other. Returns the weights and Σ (scale · e)² of a row.
    fn naive(case: &Case, row: usize, round: Option<fn(&mut [f32])>) -> (Vec<f32>, f64) {
        let (weights, goes, inverse) = case;
        let width = weights.len();
        let mut weights: Vec<f32> = weights.iter().map(|column| column[row]).collect();
        let mut squares = 0.0;
        for i in 0..width {
            let mut new = [weights[i]];
            if let Some(round) = round {
                round(&mut new);
            }
            let new = if goes[i][row] { 0.0 } else { new[0] };
            let error = (weights[i] - new) / inverse[i * width + i];
            weights[i] = new;
            for j in i + 1..width {
                weights[j] -= error * inverse[i * width + j];
            }
            squares += (f64::from(error) * 0.5).powi(2);
        }
        (weights, squares)
    }

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
                let difference = (found - expected).abs();
                prop_assert!(difference <= bound, "{:?}: {} {}", set, found, expected);
                prop_assert_eq!(found.to_bits(), results[0].1.to_bits(), "{:?}", set);
            }
        }

        #[test]
        fn every_instruction_set_gives_what_the_formula_gives(case in cases(), rounds: bool) {
            let round = rounds.then_some(round as fn(&mut [f32]));
            let (weights, goes, inverse) = &case;
            for (set, (result, weights, squares)) in on_each(|| {
                let (mut weights, mut squares) = (weights.clone(), [0.0; ROWS]);
                let columns = 0..weights.len();
                let result =
                    eliminate(&mut weights, goes, columns, inverse, round, 0.5, &mut squares);
                (result, weights, squares)
            }) {
                prop_assert_eq!(result, Ok(()));
                for row in 0..ROWS {
                    let got: Vec<f32> = weights.iter().map(|column| column[row]).collect();
                    let expected = naive(&case, row, round);
                    prop_assert_eq!((got, squares[row]), expected, "{:?}", set);
                }
            }
        }
    }

    #[test]
    fn an_error_that_is_not_finite_is_found() {
        let mut weights = vec![[1.0_f32; ROWS]; 3];
        weights[1][5] = f32::MAX;
        let goes = vec![[true; ROWS]; 3];
        let inverse = [1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0];
        let result = eliminate(
            &mut weights,
            &goes,
            0..3,
            &inverse,
            None,
            1.0,
            &mut [0.0; ROWS],
        );
        assert_eq!(result, Err((5, 1)));
    }
}
