//! The lowest scores of every column.

use std::ops::Range;

use num_traits::cast;

use super::run::{cut_between, mark_up_to_cut};
use super::search::scattered;
use crate::element::Real;
use crate::error::Result;
use crate::kernels::{self, PIVOTS, SIDE, TILE};
use crate::mask::{Mask, set_bits};
use crate::matrix::Rows;
use crate::parallel;
use crate::simd::WORD;

/// Marks the `count` lowest scores of every column, of equal ones those in the lowest rows.
///
/// 64 columns are read and decided at a time, side by side: a part of a row that is worth reading,
/// and as a rule few enough for the strip to stay in the second cache.
///
/// # Algorithm
///
/// ```text
/// for each strip of 64 columns
///     pivots = scores around where the highest of the lowest is likely to be, from some rows
///     read all rows, and count the scores below each pivot, column by column
///     bracket = the pivots between which the highest of the lowest must be
///     mark the scores below the bracket, and hold those in it
///     mark the lowest of those held
/// ```
///
/// Takes room for the scores of 64 columns a thread, and if many of a column are equal as much
/// again.
pub(crate) fn mark_lowest_of_columns<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let mut mask = Mask::none(rows, columns)?;
    if rows == 0 {
        return Ok(mask);
    }
    let strips = mask.strips_mut().into_iter().enumerate().collect();
    parallel::try_each(strips, Strip::default, |strip, (i, mut words)| {
        let start = i * WORD;
        let part = Part {
            scores,
            start,
            width: WORD.min(columns - start),
        };
        for (word, &marks) in words.iter_mut().zip(strip.mark_lowest(&part, count)?) {
            *word = marks;
        }
        Ok(())
    })?;
    Ok(mask)
}

/// Some columns of a layer.
struct Part<'a, T> {
    scores: &'a dyn Rows<T>,
    start: usize,
    width: usize,
}

impl<T: Real> Part<'_, T> {
    fn rows(&self) -> usize {
        self.scores.dim().0
    }

    /// Reads the rows from `row` on.
    fn read(&self, row: usize, out: &mut [[T; WORD]]) -> Result<()> {
        if self.width == WORD {
            let out = out.as_flattened_mut();
            return self.scores.read_block(row, self.start, WORD, out);
        }
        for (row, out) in (row..).zip(out) {
            self.scores.read(row, self.start, &mut out[..self.width])?;
        }
        Ok(())
    }
}

/// The memory a strip is decided in.
#[derive(Default)]
struct Strip<T> {
    rows: Vec<[T; WORD]>,
    /// Some of the rows, and some columns of these.
    sample: Vec<[T; WORD]>,
    side: Vec<[T; SIDE]>,
    /// Which scores of each row go.
    marks: Vec<u64>,
    /// Which of them are in the brackets.
    within: Vec<u64>,
    /// Those, of one column after the other, and the rows they are in.
    held: Vec<T>,
    places: Vec<usize>,
    /// Which of a column of those go.
    chosen: Vec<u64>,
}

impl<T: Real> Strip<T> {
    /// Marks the `count` lowest of each column. There is a word of marks for each row.
    fn mark_lowest(&mut self, part: &Part<'_, T>, count: usize) -> Result<&[u64]> {
        self.read_sample(part)?;
        let pivots = self.pick_pivots(part.rows(), count);
        let counts = self.read(part, &pivots)?;
        self.marks.resize(part.rows(), 0);
        self.within.resize(part.rows(), 0);
        if count == 0 {
            return Ok(&self.marks);
        }
        let brackets = Brackets::between(&pivots, &counts, part, count);
        let Brackets { lows, highs, .. } = &brackets;
        kernels::mark_between(&self.rows, lows, highs, &mut self.marks, &mut self.within);
        self.hold(&brackets);
        self.mark_held(&brackets);
        Ok(&self.marks)
    }

    /// Reads rows from all over the layer.
    fn read_sample(&mut self, part: &Part<'_, T>) -> Result<()> {
        /// One in so many of all rows is read, but no more than these, and no fewer.
        const ONE_IN: usize = 16;
        const MOST: usize = 128;
        const LEAST: usize = 16;
        /// Rows that are next to each other.
        const RUN: usize = 4;
        let rows = part.rows();
        let size = (rows / ONE_IN).clamp(LEAST.min(rows), MOST);
        self.sample.resize(size, [T::zero(); WORD]);
        let stride = rows / size * RUN;
        for (i, run) in self.sample.chunks_mut(RUN).enumerate() {
            let aside = scattered(i, stride - run.len() + 1);
            part.read((i * stride + aside).min(rows - run.len()), run)?;
        }
        Ok(())
    }

    /// Picks scores of each column around where the one of rank `count` of `rows` is likely to be.
    fn pick_pivots(&mut self, rows: usize, count: usize) -> [[T; WORD]; PIVOTS] {
        /// Standard deviations from the likely place to the last pivot. With more, pivots are
        /// further apart, with less, it is beyond them more often, and in both cases more is held.
        const DEVIATIONS: f64 = 3.0;
        let size = self.sample.len();
        let share = count as f64 / rows as f64;
        let place = size as f64 * share;
        let aside = DEVIATIONS * (place * (1.0 - share)).sqrt() + 1.0;
        let places: [usize; PIVOTS] = std::array::from_fn(|i| {
            let steps = i as f64 / (PIVOTS - 1) as f64;
            let place = place + aside * (2.0 * steps - 1.0);
            cast(place.max(0.0)).unwrap_or(0).min(size - 1)
        });
        let mut pivots = [[T::zero(); WORD]; PIVOTS];
        for side in 0..WORD / SIDE {
            self.side.clear();
            let rows = self.sample.iter();
            self.side.extend(rows.map(|row| row.as_chunks().0[side]));
            kernels::sort_columns(&mut self.side);
            for (pivots, place) in pivots.iter_mut().zip(places) {
                pivots.as_chunks_mut().0[side] = self.side[place];
            }
        }
        pivots
    }

    /// Reads all rows and counts the scores of each column that are below each pivot.
    fn read(
        &mut self,
        part: &Part<'_, T>,
        pivots: &[[T; WORD]; PIVOTS],
    ) -> Result<[[usize; WORD]; PIVOTS]> {
        /// Rows that are counted before counts are added up, see [`kernels::count_below`].
        const COUNTED: usize = 1 << 20;
        let rows = part.rows();
        // What fills the last tile is above all pivots.
        self.rows.resize(rows, [T::infinity(); WORD]);
        self.rows
            .resize(rows.next_multiple_of(TILE), [T::infinity(); WORD]);
        let mut counts = [[0; WORD]; PIVOTS];
        for (i, run) in self.rows.chunks_mut(COUNTED).enumerate() {
            let mut below = [[T::zero(); WORD]; PIVOTS];
            for (j, tile) in run.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let row = i * COUNTED + j * TILE;
                let height = TILE.min(rows - row);
                part.read(row, &mut tile[..height])?;
                kernels::count_below(tile, pivots, &mut below);
            }
            let below = below.as_flattened();
            for (count, below) in counts.as_flattened_mut().iter_mut().zip(below) {
                *count += below.to_usize().unwrap_or(0);
            }
        }
        Ok(counts)
    }

    /// Holds the scores in the brackets.
    fn hold(&mut self, brackets: &Brackets<T>) {
        if self.held.len() < brackets.end {
            self.held.resize(brackets.end, T::zero());
            self.places.resize(brackets.end, 0);
        }
        let mut room = brackets.ranges.clone();
        for (row, (scores, &within)) in self.rows.iter().zip(&self.within).enumerate() {
            for column in set_bits(&[within]) {
                // There is room for all scores, but what is none was not counted.
                if let Some(place) = room[column].next() {
                    self.held[place] = scores[column];
                    self.places[place] = row;
                }
            }
        }
    }

    /// Marks the lowest of those held.
    fn mark_held(&mut self, brackets: &Brackets<T>) {
        for (column, range) in brackets.ranges.iter().enumerate() {
            let held = &self.held[range.clone()];
            if held.is_empty() {
                continue;
            }
            self.chosen.clear();
            self.chosen.resize(held.len().div_ceil(WORD), 0);
            let bounds = (brackets.lows[column], brackets.highs[column]);
            let cut = cut_between(held, brackets.left[column], bounds);
            mark_up_to_cut(held, cut.threshold, cut.ties, &mut self.chosen, 0);
            for i in set_bits(&self.chosen) {
                self.marks[self.places[range.start + i]] |= 1 << column;
            }
        }
    }
}

/// Between which scores the highest of the lowest of each column must be.
struct Brackets<T> {
    lows: [T; WORD],
    highs: [T; WORD],
    /// How many of those in the bracket are among the lowest.
    left: [usize; WORD],
    /// Where the scores in the bracket are among those of all brackets.
    ranges: [Range<usize>; WORD],
    end: usize,
}

impl<T: Real> Brackets<T> {
    fn between(
        pivots: &[[T; WORD]; PIVOTS],
        counts: &[[usize; WORD]; PIVOTS],
        part: &Part<'_, T>,
        count: usize,
    ) -> Self {
        // Nothing is in the brackets of columns that are not there.
        let mut brackets = Self {
            lows: [T::zero(); WORD],
            highs: [-T::one(); WORD],
            left: [0; WORD],
            ranges: std::array::from_fn(|_| 0..0),
            end: 0,
        };
        for column in 0..part.width {
            let below = |pivot: usize| counts[pivot][column];
            let next = (0..PIVOTS)
                .take_while(|&pivot| below(pivot) < count)
                .count();
            let (low, before) = match next.checked_sub(1) {
                Some(pivot) => (pivots[pivot][column], below(pivot)),
                None => (T::zero(), 0),
            };
            let (high, up_to) = match pivots.get(next) {
                Some(pivots) => (
                    T::from_key(pivots[column].key().saturating_sub(1)),
                    below(next),
                ),
                None => (T::infinity(), part.rows()),
            };
            brackets.lows[column] = low;
            brackets.highs[column] = high;
            brackets.left[column] = count - before;
            let start = brackets.end;
            brackets.end += up_to - before;
            brackets.ranges[column] = start..brackets.end;
        }
        brackets
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;

    use super::super::tests::{layers, part_of};
    use super::*;

    /// The rows of a column, sorted by their scores.
    fn sorted(column: &ArrayView1<'_, f32>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..column.len()).collect();
        order.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
        order
    }

    #[test]
    fn columns_lose_what_sorting_puts_first() {
        // More and fewer columns than a strip has, and rows than a sample.
        let shapes = [(1500, 66), (2085, 1), (5, 130), (1, 70)];
        for (kind, scores) in shapes.into_iter().flat_map(layers) {
            let rows = scores.nrows();
            let orders: Vec<Vec<usize>> = scores
                .columns()
                .into_iter()
                .map(|column| sorted(&column))
                .collect();
            for share in [0.0, 1e-3, 0.3, 0.5, 0.77, 0.999, 1.0] {
                let count = part_of(rows, share);
                let mask = mark_lowest_of_columns(&scores, count).expect("finite scores");
                assert_eq!(mask.count(), count * scores.ncols(), "{kind}, {share}");
                for (column, order) in orders.iter().enumerate() {
                    for &row in &order[..count] {
                        assert_eq!(mask.get(row, column), Some(true), "{kind}, {share}");
                    }
                }
            }
        }
    }
}
