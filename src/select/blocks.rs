//! The lowest blocks of a layer.

use ndarray::{Array2, Axis};

use super::layer::cut_lowest;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels;
use crate::mask::{Mask, MaskRow, words_for};
use crate::matrix::{Rows, zeros};
use crate::parallel;

/// Marks the `count` blocks with the least sums of scores.
pub(crate) fn mark_lowest_blocks<T: Real>(
    scores: &dyn Rows<T>,
    (block_rows, block_columns): (usize, usize),
    count: usize,
) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let sums = sum_blocks(scores, block_rows, block_columns)?;
    let pruned = cut_lowest(&sums, count)?.project(&sums)?;

    let mut mask = Mask::none(rows, columns)?;
    let work = mask
        .row_runs_mut(block_rows)
        .into_iter()
        .enumerate()
        .collect();
    parallel::map(
        work,
        || vec![0; words_for(columns)],
        |marks, (i, words)| {
            // All rows of a block lose the same columns.
            if block_columns == 1 {
                marks.copy_from_slice(pruned.row_words(i));
            } else {
                MaskRow::new(marks, columns)
                    .fill(|column| pruned.get(i, column / block_columns) == Some(true));
            }
            words
                .chunks_exact_mut(marks.len())
                .for_each(|row| row.copy_from_slice(marks));
        },
    );
    Ok(mask)
}

/// The sum of the scores of each block, in `f64`, added row by row and column by column.
fn sum_blocks<T: Real>(
    scores: &dyn Rows<T>,
    block_rows: usize,
    block_columns: usize,
) -> Result<Array2<f64>> {
    let (rows, columns) = scores.dim();
    let shape = (rows.div_ceil(block_rows), columns.div_ceil(block_columns));
    let mut sums = Array2::from_shape_vec(shape, zeros(shape.0, shape.1)?)
        .map_err(|_| Error::TooLarge { rows, columns })?;

    let work: Vec<_> = sums.axis_iter_mut(Axis(0)).enumerate().collect();
    parallel::try_each(
        work,
        || vec![T::default(); columns],
        |buffer, (i, mut sums)| {
            let start = i * block_rows;
            for row in start..rows.min(start.saturating_add(block_rows)) {
                scores.read(row, 0, buffer)?;
                if let (1, Some(sums)) = (block_columns, sums.as_slice_mut()) {
                    kernels::add(sums, buffer);
                    continue;
                }
                for (sum, run) in sums.iter_mut().zip(buffer.chunks(block_columns)) {
                    *sum = run.iter().fold(*sum, |sum, score| sum + score.as_f64());
                }
            }
            Ok(())
        },
    )?;
    Ok(sums)
}
