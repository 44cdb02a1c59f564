//! The sweep over a layer, block by block.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use super::block::{Block, Choice, Sweep};
use super::tile::Tile;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels::second_order::ROWS;
use crate::linalg::{Panel, PanelMut, Store};
use crate::mask::Mask;
use crate::parallel;
use crate::pattern::{self, Decision};
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::gram::Gram;
use crate::update::Updated;

/// Columns that are moved together by all that lies before them: larger products are faster. A
/// multiple of 96, the rows that the product's innermost loop likes best.
const STRIP: usize = 384;

impl<T: Real> Sweep<'_, T> {
    /// Column by column, turns the dense weights into what is to be subtracted from them.
    pub(super) fn run(&self, gram: &Gram, dense: Vec<T>, block: usize) -> Result<Updated<T>> {
        let (rows, columns) = self.task.weights.dim();
        let total = gram.energy(&dense, self.scale);
        let mut difference = dense;
        let mut mask = Mask::none(rows, columns)?;
        let mut lost = 0.0_f64;
        let (mut moved, mut updated, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for strip in parallel::runs(columns, (STRIP / block).max(1) * block) {
            moved.clear();
            moved.resize(rows * strip.len(), T::zero());
            self.add_moved(&mut moved, &strip, &difference, 0..strip.start, &strip);
            for columns in parallel::runs(strip.len(), block) {
                let columns = strip.start + columns.start..strip.start + columns.end;
                self.add_moved(
                    &mut moved,
                    &strip,
                    &difference,
                    strip.start..columns.start,
                    &columns,
                );
                let inverse = self.factor.inverse_block(columns.clone());
                self.update_block(
                    &difference,
                    &moved,
                    &strip,
                    &columns,
                    &inverse,
                    &mut updated,
                );
                let choice = self.decide_block(&updated, &columns, &mut scores)?;
                let block = Block {
                    inverse: &inverse,
                    choice: &choice,
                    dead: columns
                        .clone()
                        .filter(|&column| self.dead[column])
                        .collect(),
                    columns,
                };
                lost += self.sweep_block(&block, &updated, &mut difference, &mut mask)?;
            }
        }
        if self.factor.damping().factor() > 1.0 {
            // Little precision is left of what damping makes up most of.
            lost = gram.energy(&difference, self.scale);
        }
        let difference = Array2::from_shape_vec((rows, columns), difference)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        let mut updated = Updated::new(difference, mask);
        updated.relative_error = RelativeError::new(lost, total, ErrorBasis::Gram);
        updated.damping = Some(self.factor.damping().factor());
        Ok(updated)
    }

    /// Adds E[:, from] · R[from, columns] to these columns of `moved`, which covers a strip.
    fn add_moved(
        &self,
        moved: &mut [T],
        strip: &Range<usize>,
        difference: &[T],
        from: Range<usize>,
        columns: &Range<usize>,
    ) {
        if from.is_empty() {
            return;
        }
        let before = Panel::new(difference, self.dead.len()).columns_of(from.clone());
        let within = columns.start - strip.start..columns.end - strip.start;
        let out = PanelMut::new(moved, strip.len()).columns_of(within);
        self.factor
            .multiply(Store::Add, out, before, from, columns.clone());
    }

    /// Computes the weights of a block as what has been pruned before makes them: W₁, row-major.
    fn update_block(
        &self,
        difference: &[T],
        moved: &[T],
        strip: &Range<usize>,
        block: &Range<usize>,
        inverse: &[T],
        updated: &mut Vec<T>,
    ) {
        updated.clear();
        for dense in difference.chunks_exact(self.dead.len()) {
            updated.extend_from_slice(&dense[block.clone()]);
        }
        if block.start == 0 {
            return;
        }
        let within = block.start - strip.start..block.end - strip.start;
        let width = block.len();
        self.factor.product(
            PanelMut::new(updated, width),
            Panel::new(moved, strip.len()).columns_of(within),
            Panel::new(inverse, width),
        );
    }

    /// Asks the pattern what it prunes of a block.
    fn decide_block(
        &self,
        updated: &[T],
        block: &Range<usize>,
        scores: &mut Vec<T>,
    ) -> Result<Choice> {
        let (rows, columns) = self.task.weights.dim();
        let pattern = self.task.pattern;
        let decision = Decision::of(pattern, rows, block)?;
        if let Some(Decision::Run { of, count, of_last }) = decision {
            return Ok(Choice::Runs { of, count, of_last });
        }
        let width = block.len();
        scores.clear();
        scores.resize(rows * width, T::zero());
        let work = scores
            .chunks_exact_mut(width)
            .zip(updated.chunks_exact(width))
            .enumerate();
        parallel::try_each(
            work.collect(),
            || (),
            |(), (row, (scores, weights))| self.scoring.score(row, block.start, weights, scores),
        )?;
        let scores = ArrayView2::from_shape((rows, width), &scores[..])
            .map_err(|_| Error::TooLarge { rows, columns })?;
        pattern::project(pattern, &scores, block.clone()).map(Choice::Mask)
    }

    /// Prunes a block, marks in `mask` what the pattern pruned, and returns what that costs.
    fn sweep_block(
        &self,
        block: &Block<'_, T>,
        updated: &[T],
        difference: &mut [T],
        mask: &mut Mask,
    ) -> Result<f64> {
        let (_, columns) = self.task.weights.dim();
        let width = block.columns.len();
        let group = match *block.choice {
            Choice::Mask(_) => 0,
            Choice::Runs { of, .. } => width.min(of),
        };
        let mut marks = mask.rows_mut();
        let tiles = updated
            .chunks(ROWS * width)
            .zip(difference.chunks_mut(ROWS * columns))
            .zip(marks.chunks_mut(ROWS))
            .enumerate();
        let lost = parallel::map(
            tiles.collect(),
            || Tile::new(width, group),
            |tile, (i, ((updated, difference), marks))| {
                tile.prune(self, block, i * ROWS, updated, difference, marks)
            },
        );
        lost.into_iter().sum()
    }
}
