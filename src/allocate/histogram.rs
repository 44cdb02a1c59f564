//! How scores are distributed, in bounded memory.

use std::iter;
use std::ops::Range;

use crate::element::Real;
use crate::error::{Error, Result};
use crate::matrix::Rows;
use crate::parallel;

/// How many scores there are of each size: a histogram with 64 bins an octave.
///
/// A score counts as the middle of its bin, which is at most 2⁻⁷ of the score away from it. Zero is
/// a bin of its own, and all below 2⁻¹⁰²² count as zero. What follows from a histogram is exact for
/// scores that were moved by so much. It depends on how often each score occurs and on nothing
/// else: not on the order, the shape of the layer or the number of threads.
///
/// # Complexity
///
/// 512 bytes for each octave between the least and the greatest score other than zero: 10 to 20
/// kilobytes for most layers, 142 at most for `f32` scores and 1 megabyte for `f64`.
///
/// # Example
///
/// ```
/// use wanda::allocate::ScoreHistogram;
/// use wanda::ndarray::array;
///
/// let histogram = ScoreHistogram::of(&array![[0.0_f32, 3.0, 100.0], [0.0, 3.01, 0.0]])?;
/// let bins: Vec<(f64, usize)> = histogram.bins().collect();
/// assert_eq!(bins, [(0.0, 3), (3.015625, 2), (100.5, 1)]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScoreHistogram {
    zeros: usize,
    /// The number of the first bin in `counts`.
    first: usize,
    counts: Vec<usize>,
}

/// The bits of an `f64` that do not tell bins apart: all but its exponent and 6 bits.
const BITS_WITHIN: u32 = 46;

/// Scores to read at a time.
const RUN: usize = 1 << 12;

impl ScoreHistogram {
    /// Counts the scores of a layer.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidScore`] with the first score that is negative, infinite or not a number, and
    /// what reading the scores gives. [`Error::TooLarge`] if they cannot be counted.
    ///
    /// # Complexity
    ///
    /// Scores are read once. Takes a histogram a thread besides the result.
    pub fn of<T: Real>(scores: &(impl Rows<T> + ?Sized)) -> Result<Self> {
        let (rows, columns) = scores.dim();
        if rows.checked_mul(columns).is_none() {
            return Err(Error::TooLarge { rows, columns });
        }
        // Columns of which there are none would be read row by row all the same.
        let rows = if columns == 0 { 0 } else { rows };
        let height = rows.div_ceil(parallel::threads());
        let height = height.max(parallel::rows_a_task(rows, columns));
        let parts = parallel::map(
            parallel::runs(rows, height),
            || vec![T::zero(); columns.min(RUN)],
            |buffer, rows| Self::of_rows(scores, rows, columns, buffer),
        );
        let mut whole = Self::default();
        for part in parts {
            whole.merge(&part?);
        }
        whole.counts.shrink_to_fit();
        Ok(whole)
    }

    fn of_rows<T: Real>(
        scores: &(impl Rows<T> + ?Sized),
        rows: Range<usize>,
        columns: usize,
        buffer: &mut [T],
    ) -> Result<Self> {
        let mut histogram = Self::default();
        for row in rows {
            for start in (0..columns).step_by(RUN) {
                let run = &mut buffer[..RUN.min(columns - start)];
                scores.read(row, start, run)?;
                let counted = histogram.extend(run);
                counted.map_err(|index| Error::InvalidScore {
                    metric: "given scores".to_owned(),
                    row,
                    column: start + index,
                    score: run[index].as_f64(),
                })?;
            }
        }
        Ok(histogram)
    }

    /// Counts scores.
    ///
    /// # Errors
    ///
    /// The index of the first one that is negative, infinite or not a number.
    fn extend<T: Real>(&mut self, scores: &[T]) -> std::result::Result<(), usize> {
        for (index, score) in scores.iter().map(|score| score.as_f64()).enumerate() {
            if (f64::MIN_POSITIVE..f64::INFINITY).contains(&score) {
                self.add(bin(score), 1);
            } else if (0.0..f64::MIN_POSITIVE).contains(&score) {
                self.zeros += 1;
            } else {
                return Err(index);
            }
        }
        Ok(())
    }

    /// Counts `count` scores, at least one, in a bin.
    fn add(&mut self, bin: usize, count: usize) {
        let index = bin.wrapping_sub(self.first);
        if let Some(found) = self.counts.get_mut(index) {
            *found += count;
        } else {
            self.reach(bin);
            self.counts[bin - self.first] = count;
        }
    }

    /// Makes room for a bin that there is none for.
    fn reach(&mut self, bin: usize) {
        if self.counts.is_empty() {
            self.first = bin;
        }
        if let Some(before) = self.first.checked_sub(bin) {
            self.counts.splice(0..0, iter::repeat_n(0, before));
            self.first = bin;
        }
        let len = (bin - self.first + 1).max(self.counts.len());
        self.counts.resize(len, 0);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        for (bin, &count) in (other.first..).zip(&other.counts) {
            if count > 0 {
                self.add(bin, count);
            }
        }
    }

    /// How many scores there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.zeros + self.counts.iter().sum::<usize>()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bins that are not empty, in ascending order: what scores count as, and how many there
    /// are.
    pub fn bins(&self) -> impl Iterator<Item = (f64, usize)> + '_ {
        let counts = (self.first..).map(middle).zip(self.counts.iter().copied());
        let all = iter::once((0.0, self.zeros)).chain(counts);
        all.filter(|&(_, count)| count > 0)
    }

    /// What the score of a rank counts as; ranks start at 0. `None` if there are not so many.
    pub(super) fn of_rank(&self, rank: usize) -> Option<f64> {
        let mut up_to = 0;
        let mut bins = self.bins();
        let found = bins.find(|&(_, count)| {
            up_to += count;
            up_to > rank
        });
        found.map(|(score, _)| score)
    }
}

/// The bin of a score that is not zero.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the upper bits of a positive number are less than 2¹⁷"
)]
#[inline]
fn bin(score: f64) -> usize {
    (score.to_bits() >> BITS_WITHIN) as usize
}

/// The middle of a bin.
fn middle(bin: usize) -> f64 {
    f64::from_bits((bin as u64) << BITS_WITHIN | 1 << (BITS_WITHIN - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn bins_grow_to_both_sides_and_merge() {
        let low = ScoreHistogram::of(&array![[1e-30_f32, 0.0, 1e-30, -0.0]]).expect("fine scores");
        let high = ScoreHistogram::of(&array![[1e30_f32], [7.0], [1e30]]).expect("fine scores");
        let all = array![[1e30, 0.0, 1e-30_f32, 7.0, 1e30, 1e-30, 0.0]];
        let all = ScoreHistogram::of(&all).expect("fine scores");
        for (first, second) in [(&low, &high), (&high, &low)] {
            let mut merged = first.clone();
            merged.merge(second);
            assert_eq!(merged, all);
        }
        assert_eq!(all.len(), 7);
        let counts: Vec<usize> = all.bins().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 2, 1, 2]);
        assert_eq!(all.of_rank(1), Some(0.0));
        assert_eq!(all.of_rank(4), Some(middle(bin(7.0))));
        assert_eq!(all.of_rank(7), None);
    }

    #[test]
    fn a_score_is_near_the_middle_of_its_bin() {
        let least = f64::from(f32::from_bits(1));
        for score in [f64::MIN_POSITIVE, least, 1.0, 1.999, 4.0, 1e5, f64::MAX] {
            let distance = (middle(bin(score)) - score).abs();
            assert!(distance <= score / 128.0, "{score}");
        }
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let mut empty = ScoreHistogram::default();
        empty.merge(&ScoreHistogram::default());
        assert!(empty.is_empty());
        assert_eq!(empty.bins().next(), None);
        assert_eq!(empty.of_rank(0), None);
    }
}
