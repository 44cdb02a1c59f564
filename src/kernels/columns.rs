//! Columns side by side, a lane of vectors for each.

use crate::element::Real;
use crate::simd::{WORD, kernel};

/// Columns that go through a step together, few enough for what belongs to them to stay in
/// registers.
pub(crate) const SIDE: usize = 16;

/// Rows of a tile, which stay there too.
pub(crate) const TILE: usize = 16;

/// Scores of each column that others are compared with.
pub(crate) const PIVOTS: usize = 8;

kernel! {
    /// Sorts every column.
    ///
    /// # Algorithm
    ///
    /// Batcher's odd-even merge sort, which compares the same places whatever is in them.
    pub(crate) fn sort_columns<T: Real>(_simd; rows: &mut [[T; SIDE]]) {
        let len = rows.len();
        let mut sorted = 1;
        while sorted < len {
            let mut distance = sorted;
            while distance > 0 {
                for start in (distance % sorted..len).step_by(2 * distance) {
                    // Runs that are merged are twice as long, and others are not compared.
                    if start / (2 * sorted) != (start + distance) / (2 * sorted) {
                        continue;
                    }
                    for i in start..(start + distance).min(len.saturating_sub(distance)) {
                        let (a, b) = (rows[i], rows[i + distance]);
                        for lane in 0..SIDE {
                            let in_order = a[lane] < b[lane];
                            rows[i][lane] = if in_order { a[lane] } else { b[lane] };
                            rows[i + distance][lane] = if in_order { b[lane] } else { a[lane] };
                        }
                    }
                }
                distance /= 2;
            }
            sorted *= 2;
        }
    }
}

kernel! {
    /// Adds to `counts` how many scores of each column are below each of its pivots.
    ///
    /// They are counted in the type of the scores, whose lanes are as wide as the comparisons. That
    /// is exact up to 2²⁴.
    pub(crate) fn count_below<T: Real>(
        _simd;
        tile: &[[T; WORD]; TILE],
        pivots: &[[T; WORD]; PIVOTS],
        counts: &mut [[T; WORD]; PIVOTS],
    ) {
        for side in 0..WORD / SIDE {
            let scores = tile.each_ref().map(|row| row.as_chunks::<SIDE>().0[side]);
            for (pivots, counts) in pivots.iter().zip(&mut *counts) {
                let pivots = &pivots.as_chunks::<SIDE>().0[side];
                let counts = &mut counts.as_chunks_mut::<SIDE>().0[side];
                let mut below = *counts;
                for scores in &scores {
                    for ((below, &score), &pivot) in below.iter_mut().zip(scores).zip(pivots) {
                        *below = if score < pivot { *below + T::one() } else { *below };
                    }
                }
                *counts = below;
            }
        }
    }
}

kernel! {
    /// Says which scores of each row are below the low bound of their column, and which from there
    /// to the high one.
    pub(crate) fn mark_between<T: Real>(
        simd;
        rows: &[[T; WORD]],
        lows: &[T; WORD],
        highs: &[T; WORD],
        below: &mut [u64],
        within: &mut [u64],
    ) {
        for ((row, below), within) in rows.iter().zip(below).zip(within) {
            *below = T::below_each(simd, row, lows);
            *within = !(*below | T::below_each(simd, highs, row));
        }
    }
}

#[cfg(test)]
mod tests {
    use num_traits::ToPrimitive;
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    /// Rows of scores of which many are equal.
    fn rows<const LEN: usize>() -> impl Strategy<Value = Vec<[f32; LEN]>> {
        let score = prop_oneof![
            (0..4_u8).prop_map(f32::from),
            0.0..4.0_f32,
            Just(f32::INFINITY)
        ];
        let row = prop::collection::vec(score, LEN);
        let row = row.prop_map(|row| row.try_into().expect("as many"));
        prop::collection::vec(row, 0..70)
    }

    proptest! {
        #[test]
        fn columns_are_sorted_on_every_instruction_set(rows in rows::<SIDE>()) {
            for (set, sorted) in on_each(|| {
                let mut rows = rows.clone();
                sort_columns(&mut rows);
                rows
            }) {
                for lane in 0..SIDE {
                    let mut expected: Vec<f32> = rows.iter().map(|row| row[lane]).collect();
                    expected.sort_by(f32::total_cmp);
                    let sorted: Vec<f32> = sorted.iter().map(|row| row[lane]).collect();
                    prop_assert_eq!(&sorted, &expected, "{:?}", set);
                }
            }
        }

        #[test]
        fn scores_below_pivots_are_counted_on_every_instruction_set(
            rows in rows::<WORD>(),
            pivots in prop::array::uniform8(0.0..5.0_f32),
        ) {
            let mut pivots = pivots.map(|pivot| [pivot.floor(); WORD]);
            for (column, pivot) in pivots[0].iter_mut().enumerate() {
                *pivot += column as f32 / WORD as f32;
            }
            for (set, counts) in on_each(|| {
                let mut counts = [[1.0; WORD]; PIVOTS];
                for tile in rows.as_chunks().0 {
                    count_below(tile, &pivots, &mut counts);
                }
                counts
            }) {
                let rows = &rows[..rows.len() / TILE * TILE];
                for (pivots, counts) in pivots.iter().zip(counts) {
                    for column in 0..WORD {
                        let is_below = |row: &&[f32; WORD]| row[column] < pivots[column];
                        let expected = 1 + rows.iter().filter(is_below).count();
                        prop_assert_eq!(counts[column].to_usize(), Some(expected), "{:?}", set);
                    }
                }
            }
        }

        #[test]
        fn scores_between_bounds_are_marked_on_every_instruction_set(rows in rows::<WORD>()) {
            let lows: [f32; WORD] = std::array::from_fn(|column| (column % 4) as f32);
            let highs: [f32; WORD] = std::array::from_fn(|column| (column % 5) as f32);
            for (set, [below, within]) in on_each(|| {
                let [mut below, mut within] = [0, 1].map(|_| vec![0; rows.len()]);
                mark_between(&rows, &lows, &highs, &mut below, &mut within);
                [below, within]
            }) {
                for (i, row) in rows.iter().enumerate() {
                    for (column, &score) in row.iter().enumerate() {
                        let bit = |word: u64| word >> column & 1 == 1;
                        let inside = score >= lows[column] && score <= highs[column];
                        prop_assert_eq!(bit(below[i]), score < lows[column], "{:?}", set);
                        // Where bounds are the wrong way round nothing is between them.
                        let expected = inside && lows[column] <= highs[column];
                        prop_assert_eq!(bit(within[i]), expected, "{:?}", set);
                    }
                }
            }
        }
    }
}
