//! A few rows of a block, turned so that one instruction works on all of them.

use std::ops::Range;

use super::block::{Block, Choice, Sweep};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels::second_order::{ROWS, eliminate};
use crate::mask::{MaskRow, is_set, words_for};
use crate::parallel;
use crate::select::mark_runs;

/// Up to [`ROWS`] rows of a block, column by column, and what goes of them.
pub(super) struct Tile<T> {
    weights: Vec<[T; ROWS]>,
    goes: Vec<[bool; ROWS]>,
    /// What the pattern prunes, a run of words a row.
    chosen: Vec<u64>,
    /// Memory for a single row.
    row: Vec<T>,
    words: Vec<u64>,
    /// Memory for the scores of a group in all rows, and for its marks.
    scores: Vec<T>,
    marks: Vec<u64>,
}

impl<T: Real> Tile<T> {
    /// A tile for blocks of `width` columns, of which `group` are decided at a time.
    pub(super) fn new(width: usize, group: usize) -> Self {
        Self {
            weights: vec![[T::zero(); ROWS]; width],
            goes: vec![[false; ROWS]; width],
            chosen: vec![0; ROWS * words_for(width)],
            row: vec![T::zero(); width],
            words: vec![0; words_for(width)],
            scores: vec![T::zero(); ROWS * group],
            marks: vec![0; words_for(ROWS * group)],
        }
    }

    /// Prunes some rows of a block, from `first` on: `updated` holds their weights. Replaces the
    /// dense weights of the block in `difference`, whole rows, by what is to be subtracted from them,
    /// and marks what the pattern pruned. Returns what that costs.
    pub(super) fn prune(
        &mut self,
        sweep: &Sweep<'_, T>,
        block: &Block<'_, T>,
        first: usize,
        updated: &[T],
        difference: &mut [T],
        marks: &mut [MaskRow<'_>],
    ) -> Result<f64> {
        let rows = marks.len();
        let width = self.weights.len();
        self.load(sweep, block, first, updated);
        let mut squares = [0.0; ROWS];
        match *block.choice {
            Choice::Mask(_) => self.eliminate(sweep, block, first, 0..width, &mut squares)?,
            Choice::Runs { of, count, of_last } => {
                for run in parallel::runs(width, of) {
                    let count = if run.len() == of { count } else { of_last };
                    self.decide(sweep, block, first..first + rows, &run, count)?;
                    self.eliminate(sweep, block, first, run, &mut squares)?;
                }
            }
        }
        let mut lost = squares.iter().sum();
        let columns = difference.len() / rows;
        for (row, (difference, marks)) in
            difference.chunks_exact_mut(columns).zip(marks).enumerate()
        {
            let words = words_for(width);
            let chosen = &self.chosen[row * words..(row + 1) * words];
            marks.set_run(block.columns.start, width, chosen);
            for (weight, column) in self.row.iter_mut().zip(&self.weights) {
                *weight = column[row];
            }
            let dense = &mut difference[block.columns.clone()];
            lost -= sweep.replace_dense(first + row, block, dense, &self.row)?;
        }
        Ok(lost)
    }

    /// Takes in the rows of a block, and what of them goes already.
    fn load(&mut self, sweep: &Sweep<'_, T>, block: &Block<'_, T>, first: usize, updated: &[T]) {
        let width = self.weights.len();
        self.chosen.fill(0);
        for goes in &mut self.goes {
            *goes = [false; ROWS];
        }
        let chosen = self.chosen.chunks_exact_mut(self.words.len());
        for (row, (weights, chosen)) in updated.chunks_exact(width).zip(chosen).enumerate() {
            for (column, &weight) in self.weights.iter_mut().zip(weights) {
                column[row] = weight;
            }
            if let Choice::Mask(mask) = block.choice {
                chosen.copy_from_slice(mask.row_words(first + row));
                set(&mut self.goes, row, chosen);
            }
            if let Some(zeroed) = sweep.zeroed {
                zeroed.copy_run(first + row, block.columns.start, width, &mut self.words);
                set(&mut self.goes, row, &self.words);
            }
        }
        // A dead input has no part in any output, so there is nothing to make up for.
        for &column in &block.dead {
            let column = column - block.columns.start;
            for (weight, &goes) in self.weights[column].iter_mut().zip(&self.goes[column]) {
                *weight = if goes { T::zero() } else { *weight };
            }
        }
    }

    /// Decides a run of columns, of which `count` go in each row of the layer that the tile holds.
    fn decide(
        &mut self,
        sweep: &Sweep<'_, T>,
        block: &Block<'_, T>,
        rows: Range<usize>,
        run: &Range<usize>,
        count: usize,
    ) -> Result<()> {
        let len = run.len();
        let start = block.columns.start + run.start;
        let weights = &mut self.row[..len];
        let scores = &mut self.scores[..rows.len() * len];
        for (row, scores) in scores.chunks_exact_mut(len).enumerate() {
            for (weight, column) in weights.iter_mut().zip(&self.weights[run.clone()]) {
                *weight = column[row];
            }
            let row = rows.start + row;
            sweep.scoring.score(row, start, weights, scores)?;
        }
        // The runs of all rows, one after the other, are runs like those of one row.
        let marks = &mut self.marks[..words_for(scores.len())];
        marks.fill(0);
        mark_runs(scores, len, count, 0, marks);
        let words = words_for(self.weights.len());
        for (j, column) in (0..scores.len()).zip(run.clone().cycle()) {
            let (row, marked) = (j / len, is_set(marks, j));
            self.chosen[row * words + column / 64] |= u64::from(marked) << (column % 64);
            self.goes[column][row] |= marked;
        }
        Ok(())
    }

    fn eliminate(
        &mut self,
        sweep: &Sweep<'_, T>,
        block: &Block<'_, T>,
        first: usize,
        columns: Range<usize>,
        squares: &mut [f64; ROWS],
    ) -> Result<()> {
        eliminate(
            &mut self.weights,
            &self.goes,
            columns,
            block.inverse,
            sweep.task.round,
            sweep.scale,
            squares,
        )
        .map_err(|(row, column)| Error::Overflow {
            row: first + row,
            column: block.columns.start + column,
            value: self.weights[column][row].as_f64(),
        })
    }
}

/// Sets the flags of a row whose bits are set in `words`.
fn set(flags: &mut [[bool; ROWS]], row: usize, words: &[u64]) {
    for (flags, &word) in flags.chunks_mut(64).zip(words) {
        for (bit, flags) in flags.iter_mut().enumerate() {
            flags[row] |= word >> bit & 1 == 1;
        }
    }
}
