//! Single weights, compared within an output, an input or the layer.

use super::{RowRule, quota};
use crate::element::Real;
use crate::error::Result;
use crate::kernels;
use crate::mask::{Mask, MaskRow};
use crate::matrix::Rows;
use crate::parallel;

/// Prunes the same number of weights of every row.
#[derive(Debug)]
pub(super) struct PerOutput {
    pub(super) sparsity: f64,
}

impl<T: Real> RowRule<T> for PerOutput {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, quota(scores.len(), self.sparsity));
    }
}

/// Prunes a given number of weights of every row.
#[derive(Debug)]
pub(super) struct Lowest {
    pub(super) count: usize,
}

impl<T: Real> RowRule<T> for Lowest {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, self.count);
    }
}

/// Marks the lowest scores of a layer.
pub(super) fn per_layer<T: Real>(scores: &dyn Rows<T>, sparsity: f64) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    mark_lowest_of_layer(scores, quota(rows * columns, sparsity))
}

/// Marks the lowest scores of every column.
///
/// Columns are read in strips of one mask word, which are turned so that a column is a run.
pub(super) fn per_input<T: Real>(scores: &dyn Rows<T>, sparsity: f64) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    if rows == 0 {
        return Mask::none(rows, columns);
    }
    let count = quota(rows, sparsity);
    let strips = parallel::map(
        parallel::runs(columns, 64),
        || (),
        |(), strip| {
            let mut turned = vec![T::default(); strip.len() * rows];
            let mut buffer = [T::default(); 64];
            let buffer = &mut buffer[..strip.len()];
            for row in 0..rows {
                scores.read(row, strip.start, buffer)?;
                for (column, &score) in buffer.iter().enumerate() {
                    turned[column * rows + row] = score;
                }
            }
            let mut words = vec![0_u64; rows];
            let mut marks = vec![0; rows.div_ceil(64)];
            for (bit, column) in turned.chunks_exact(rows).enumerate() {
                marks.fill(0);
                kernels::mark_lowest(column, count, &mut marks, 0);
                for (row, word) in words.iter_mut().enumerate() {
                    *word |= (marks[row / 64] >> (row % 64) & 1) << bit;
                }
            }
            Ok(words)
        },
    );
    let strips = strips.into_iter().collect::<Result<Vec<_>>>()?;
    let mut mask = Mask::none(rows, columns)?;
    for (row, mut marks) in mask.rows_mut().into_iter().enumerate() {
        for (word, strip) in marks.words_mut().iter_mut().zip(&strips) {
            *word = strip[row];
        }
    }
    Ok(mask)
}

/// Marks the `count` lowest scores of a whole layer, of equal ones those in the lowest column,
/// then in the lowest row.
///
/// The highest of them is found digit by digit: each round reads all scores and counts the values
/// of one more digit among those that share the digits found so far. So nothing but counts is
/// held, whatever the size of the layer.
pub(super) fn mark_lowest_of_layer<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let mut mask = Mask::none(rows, columns)?;
    if count == 0 {
        // Read all the same, so that an invalid score is found.
        tally(scores, 0, |_, _| None)?;
        return Ok(mask);
    }
    let (threshold, ties) = cut(scores, count)?;
    mark_all_up_to(scores, T::from_key(threshold), &mut mask)?;
    if mask.count() == count {
        return Ok(mask);
    }
    let last = last_tie(scores, threshold, ties)?;
    let work = mask.rows_mut().into_iter().enumerate().collect();
    let on_edge = parallel::map(
        work,
        || vec![T::default(); columns],
        |buffer, (row, mut marks)| {
            scores.read(row, 0, buffer)?;
            marks.fill(|j| {
                let key = buffer[j].key();
                key < threshold || (key == threshold && j < last.column)
            });
            Ok(buffer
                .get(last.column)
                .is_some_and(|s| s.key() == threshold))
        },
    );
    let on_edge = on_edge.into_iter().collect::<Result<Vec<_>>>()?;
    let edge_rows = on_edge.iter().enumerate().filter(|&(_, &tied)| tied);
    for (row, _) in edge_rows.take(last.in_column) {
        mask.set(row, last.column, true)?;
    }
    Ok(mask)
}

/// Marks all scores up to the one of rank `rank`, counted from 0.
pub(super) fn mark_up_to_threshold<T: Real>(scores: &dyn Rows<T>, rank: usize) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let mut mask = Mask::none(rows, columns)?;
    if rank >= rows * columns {
        return Ok(mask);
    }
    let (threshold, _) = cut(scores, rank + 1)?;
    mark_all_up_to(scores, T::from_key(threshold), &mut mask)?;
    Ok(mask)
}

/// Marks all scores up to `threshold`.
fn mark_all_up_to<T: Real>(scores: &dyn Rows<T>, threshold: T, mask: &mut Mask) -> Result<()> {
    let (_, columns) = scores.dim();
    let results = parallel::map(
        mask.rows_mut().into_iter().enumerate().collect(),
        || vec![T::default(); columns],
        |buffer, (row, mut marks)| {
            scores.read(row, 0, buffer)?;
            kernels::mark_up_to(buffer, threshold, marks.words_mut());
            Ok(())
        },
    );
    results.into_iter().collect()
}

/// Scores up to this number are held while they are ranked.
const HELD: usize = 1 << 20;

/// Bits of a key that one round looks at.
const DIGIT: u32 = 16;

/// The key of the highest of the `count` lowest scores, and how many scores with that key are
/// among the lowest. `count` is at least 1 and no more than there are scores.
fn cut<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<(u64, usize)> {
    let (rows, columns) = scores.dim();
    if rows * columns <= HELD {
        let mut held = vec![T::default(); rows * columns];
        let work = held.chunks_exact_mut(columns).enumerate().collect();
        let results = parallel::map(work, || (), |(), (row, out)| scores.read(row, 0, out));
        results.into_iter().collect::<Result<()>>()?;
        let cut = kernels::cut(&held, count);
        return Ok((cut.threshold.key(), cut.ties));
    }
    let mut prefix = 0;
    let mut rank = count;
    let mut shift = T::KEY_BITS;
    while shift > 0 {
        let parent = shift;
        shift -= DIGIT;
        let counts = count_digits(scores, |key| {
            // A shift by all 64 bits would be undefined; no bits are shared in the first round.
            let shared = parent == T::KEY_BITS || key >> parent == prefix;
            shared.then(|| (key >> shift & ((1 << DIGIT) - 1)) as usize)
        })?;
        let mut digit = 0;
        while rank > counts[digit] {
            rank -= counts[digit];
            digit += 1;
        }
        prefix = prefix << DIGIT | digit as u64;
    }
    Ok((prefix, rank))
}

/// Counts the scores by digit, leaving out those that have none.
fn count_digits<T: Real>(
    scores: &dyn Rows<T>,
    digit: impl Fn(u64) -> Option<usize> + Send + Sync,
) -> Result<Vec<usize>> {
    tally(scores, 1 << DIGIT, |_, score| digit(score.key()))
}

/// The end of the ties that are pruned.
struct LastTie {
    /// Ties in all columns before this one go.
    column: usize,
    /// How many ties of this column go, from the lowest row on.
    in_column: usize,
}

/// Finds the end of the first `ties` scores with key `threshold`, column by column.
fn last_tie<T: Real>(scores: &dyn Rows<T>, threshold: u64, ties: usize) -> Result<LastTie> {
    let (_, columns) = scores.dim();
    let counts = tally(scores, columns, |column, score| {
        (score.key() == threshold).then_some(column)
    })?;
    let mut left = ties;
    for (column, &count) in counts.iter().enumerate() {
        if left <= count {
            return Ok(LastTie {
                column,
                in_column: left,
            });
        }
        left -= count;
    }
    Ok(LastTie {
        column: columns,
        in_column: 0,
    })
}

/// Counts scores by the bin that `bin(column, score)` puts them in.
fn tally<T: Real>(
    scores: &dyn Rows<T>,
    bins: usize,
    bin: impl Fn(usize, T) -> Option<usize> + Send + Sync,
) -> Result<Vec<usize>> {
    let (rows, columns) = scores.dim();
    let partial = parallel::map(
        parallel::runs(rows, rows.div_ceil(TALLY_TASKS)),
        || (),
        |(), rows| {
            let mut buffer = vec![T::default(); columns];
            let mut counts = vec![0; bins];
            for row in rows {
                scores.read(row, 0, &mut buffer)?;
                for (column, &score) in buffer.iter().enumerate() {
                    if let Some(bin) = bin(column, score) {
                        counts[bin] += 1;
                    }
                }
            }
            Ok(counts)
        },
    );
    let mut total = vec![0; bins];
    for counts in partial {
        for (total, count) in total.iter_mut().zip(counts?) {
            *total += count;
        }
    }
    Ok(total)
}

/// Into how many pieces the rows of a layer are cut for counting: enough to keep the threads of a
/// large machine busy, few enough for their counts to be added up quickly.
const TALLY_TASKS: usize = 32;
