//! Rows to columns.

use super::dispatch::kernel;
use super::simd::WORD;
use crate::element::Real;

kernel! {
    /// `out[column * height + row] = tile[row * width + column]`
    pub(crate) fn turn<T: Real>(_simd; tile: &[T], width: usize, out: &mut [T], height: usize) {
        let rows = tile.len() / width;
        for column in 0..width {
            let out = &mut out[column * height..][..rows];
            for (row, out) in out.iter_mut().enumerate() {
                *out = tile[row * width + column];
            }
        }
    }
}

/// Swaps the bits of a square across its diagonal: bit `j` of word `i` with bit `i` of word `j`.
///
/// Squares of half the size are swapped, then those of a quarter within each, and so on.
pub(crate) fn turn_bits(square: &mut [u64; WORD]) {
    let mut size = WORD / 2;
    let mut low = u64::MAX >> size;
    while size > 0 {
        for pair in 0..WORD / 2 {
            let i = pair / size * 2 * size + pair % size;
            let swapped = (square[i] >> size ^ square[i + size]) & low;
            square[i] ^= swapped << size;
            square[i + size] ^= swapped;
        }
        size /= 2;
        low ^= low << size;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

    proptest! {
        #[test]
        fn rows_become_columns_on_every_instruction_set(
            (rows, width) in (1..20_usize, 1..70_usize),
            below in 0..5_usize,
        ) {
            let tile: Vec<f64> = (1..=rows * width).map(|i| i as f64).collect();
            let height = rows + below;
            for (set, out) in on_each(|| {
                let mut out = vec![0.0; width * height];
                turn(&tile, width, &mut out, height);
                out
            }) {
                for (i, &number) in out.iter().enumerate() {
                    let (column, row) = (i / height, i % height);
                    let expected = if row < rows { tile[row * width + column] } else { 0.0 };
                    prop_assert_eq!(number.to_bits(), expected.to_bits(), "{:?}", set);
                }
            }
        }

        #[test]
        fn bits_are_swapped_across_the_diagonal(words: [[u64; 32]; 2]) {
            let dense: [u64; WORD] = std::array::from_fn(|i| words[i / 32][i % 32]);
            let mut turned = dense;
            turn_bits(&mut turned);
            for (i, turned) in turned.iter().enumerate() {
                for (j, dense) in dense.iter().enumerate() {
                    prop_assert_eq!(turned >> j & 1, dense >> i & 1);
                }
            }
        }
    }
}
