//! The lowest scores of every column.

use ndarray::ArrayViewMut2;

use crate::element::Real;
use crate::error::Result;
use crate::kernels::{self, WORD};
use crate::mask::Mask;
use crate::matrix::Rows;
use crate::parallel;

/// Columns that are turned together, so that a column is a run: enough to make reading a part of a
/// row worth while, few enough for the turned ones to stay in a cache. A multiple of 64.
const STRIP: usize = 256;

/// Rows that are read before they are turned: a line of the cache of each column.
const TILE: usize = 16;

/// How far apart columns of some rows are. Were they a power of two apart, which is what most
/// layers have, a cache could hold few of them at a time.
fn apart(rows: usize) -> usize {
    rows + TILE
}

/// Marks the `count` lowest scores of every column, of equal ones those in the lowest rows.
///
/// Takes room for 256 columns of scores a thread.
pub(super) fn mark_lowest<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    let mut mask = Mask::none(rows, columns)?;
    if rows == 0 {
        return Ok(mask);
    }
    let strips = mask.strips_mut(STRIP / WORD).into_iter().enumerate();
    let results = parallel::map(strips.collect(), Strip::default, |strip, (i, mut words)| {
        let start = i * STRIP;
        strip.read(scores, start, STRIP.min(columns - start))?;
        strip.mark_lowest(rows, count, &mut words);
        Ok(())
    });
    results.into_iter().collect::<Result<()>>()?;
    Ok(mask)
}

/// Some columns, turned.
#[derive(Default)]
struct Strip<T> {
    /// Some rows as they are read.
    tile: Vec<T>,
    /// The columns, one after the other.
    columns: Vec<T>,
    /// Their marks.
    marks: Vec<u64>,
}

impl<T: Real> Strip<T> {
    /// Reads `width` columns from `start` on.
    fn read(&mut self, scores: &dyn Rows<T>, start: usize, width: usize) -> Result<()> {
        let rows = scores.dim().0;
        let height = apart(rows);
        self.columns.resize(height * width, T::zero());
        for first in (0..rows).step_by(TILE) {
            let tile = kernels::aligned(&mut self.tile, width * TILE.min(rows - first));
            for (i, run) in tile.chunks_exact_mut(width).enumerate() {
                scores.read(first + i, start, run)?;
            }
            kernels::turn(tile, width, &mut self.columns[first..], height);
        }
        Ok(())
    }

    /// Marks the lowest of every column. `words` has a row for each row of the layer, and a column
    /// for 64 columns of the strip.
    fn mark_lowest(&mut self, rows: usize, count: usize, words: &mut ArrayViewMut2<'_, u64>) {
        let height = rows.div_ceil(WORD);
        let columns = self.columns.chunks(WORD * apart(rows));
        for (columns, mut words) in columns.zip(words.columns_mut()) {
            self.marks.clear();
            self.marks.resize(WORD * height, 0);
            for (column, marks) in columns
                .chunks(apart(rows))
                .zip(self.marks.chunks_mut(height))
            {
                kernels::mark_lowest(&column[..rows], count, marks, 0);
            }
            for first in 0..height {
                let mut square = std::array::from_fn(|column| self.marks[column * height + first]);
                kernels::turn_bits(&mut square);
                for (row, word) in square.into_iter().enumerate().take(rows - first * WORD) {
                    words[first * WORD + row] = word;
                }
            }
        }
    }
}
