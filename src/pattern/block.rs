//! Whole blocks of weights.

use std::fmt::{self, Display};

use ndarray::{Array2, Axis};

use super::text::{Parsed, parse_size, parse_sparsity};
use super::{ComparisonGroup, Form, Pattern, SparsityPattern, check_sparsity, quota};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels;
use crate::mask::{Mask, MaskRow, words_for};
use crate::matrix::{Rows, zeros};
use crate::parallel;
use crate::select;

/// Prunes the blocks with the least sums of scores.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for Block {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        if self.rows < 1 || self.cols < 1 {
            return Err(Error::InvalidBlock {
                rows: self.rows,
                columns: self.cols,
            });
        }
        check_sparsity(self.sparsity)
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Blocks {
            rows: self.rows,
            columns: self.cols,
        })
    }

    fn count(&self, size: usize) -> usize {
        quota(size, self.sparsity)
    }
}

impl<T: Real> Form<T> for Block {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::Block {
            rows: self.rows,
            cols: self.cols,
            sparsity,
        })
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            cols,
            sparsity,
        } = self;
        write!(f, "block:{rows}x{cols}:{sparsity}")
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    let ["block", shape, sparsity] = parts else {
        return None;
    };
    let shape = shape
        .split_once('x')
        .ok_or_else(|| format!("`{shape}` is not a block shape like 16x4"));
    let pattern = shape.and_then(|(rows, cols)| {
        Ok(Pattern::Block {
            rows: parse_size(rows)?,
            cols: parse_size(cols)?,
            sparsity: parse_sparsity(sparsity)?,
        })
    });
    Some(pattern)
}

/// Marks the `count` blocks with the least sums of scores.
pub(super) fn mark_lowest<T: Real>(
    scores: &dyn Rows<T>,
    (block_rows, block_columns): (usize, usize),
    count: usize,
) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let sums = sum_blocks(scores, block_rows, block_columns)?;
    let pruned = select::cut_lowest(&sums, count)?.project(&sums)?;

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

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn its_text_can_be_read() {
        let pattern = Pattern::Block {
            rows: 16,
            cols: 4,
            sparsity: 0.5,
        };
        check_text("block:16x4:0.5", pattern);
    }
}
