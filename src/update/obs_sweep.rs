//! The sweep of SparseGPT: prunes column by column and lets later columns make up for it.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use super::{UpdateTask, Updated, WeightUpdate};
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::linalg::{Backend, Factor, Panel, PanelMut, factorize};
use crate::mask::{Mask, MaskRow, words_for};
use crate::matrix::{largest, read_all};
use crate::metric::obs::DAMPING;
use crate::metric::{Scorer, settle_scores};
use crate::pattern::RowRule;
use crate::stats::{ActivationStats, Gram};
use crate::{kernels, parallel};

/// The weights that stay make up for those that go, as the "optimal brain surgeon" would.
///
/// Columns are decided from left to right, a block at a time, on the weights as updated so far.
/// The error of each pruned weight is spread over the columns to its right in the way that
/// changes the layer's output least.
///
/// # Formula
///
/// ```text
/// (G + λI)⁻¹ = Uᵀ U,  U upper triangular,  G = XᵀX,  λ = damping · mean of G's diagonal
/// for each column i, and each row where weight i is pruned
///     e = w[i] / U[i, i]
///     w[i..] -= e · U[i, i..]
/// ```
///
/// # Algorithm
///
/// U itself is never formed. With R = U⁻¹ (see `Factor`), W₀ the dense and Ŵ the new weights, and
/// E = W₀ − Ŵ on the columns that are done, the updated weights of a block B = [i₁, i₂) are
///
/// ```text
/// W₁ = W₀[:, B] + (E[:, ..i₁] · R[..i₁, B]) · inverse(R[B, B])
/// ```
///
/// so that nearly all work is one matrix product a block, and E is all that is kept. Ŵ is
/// rounded to the type the weights are stored in before E is formed, so the error of rounding is
/// made up for as well, and the relative error of the report is that of the stored weights.
///
/// # Which weights go
///
/// The pattern is asked block by block, [`SparsityPattern::project_block`]: `PerOutput` within
/// the rows of a block, `PerLayer` among all rows of a block together (as the published code
/// does), N:M within each group when the sweep reaches it. Counts are exact over the whole
/// layer. A [`Mask`] as pattern prunes just what it marks.
///
/// Weights that are zero before the sweep stay zero ([`keep_zeros`](ObsSweep::keep_zeros)), and
/// the weights of dead inputs become zero. That and every protected weight is taken into account by what is made up for, within a block and
/// across blocks alike.
///
/// # Errors
///
/// [`Error::NoGram`] if the statistics have no Gram matrix, [`Error::NotPositiveDefinite`] if it
/// cannot be factored even with more damping, [`Error::Overflow`] if an updated weight does not
/// fit the type weights are stored in, [`Error::InvalidBlockSize`] for blocks of no columns.
///
/// # Complexity
///
/// For an m x n layer: n³/3 multiplications and additions to factor G, m n²/2 for the sweep and
/// as many for the relative error. Memory: m x n for E, n x n for the factor, and a copy of G.
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
/// arXiv 2301.00774, algorithm 1.
///
/// [`SparsityPattern::project_block`]: crate::SparsityPattern::project_block
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObsSweep {
    block_size: usize,
    damping: f64,
    keep_zeros: bool,
    backend: Backend,
}

impl Default for ObsSweep {
    fn default() -> Self {
        Self::new()
    }
}

impl ObsSweep {
    /// The sweep as published: blocks of 128 columns, a damping of 0.01; the default [`Backend`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            block_size: 128,
            damping: DAMPING,
            keep_zeros: true,
            backend: Backend::default(),
        }
    }

    /// Columns that are decided together, rounded up to whole groups of the pattern.
    #[must_use]
    pub fn block_size(mut self, columns: usize) -> Self {
        self.block_size = columns;
        self
    }

    /// λ as a multiple of the mean of the diagonal of G.
    ///
    /// Where it does not suffice it is multiplied by 10, at most four times;
    /// [`LayerReport::damping`](crate::LayerReport::damping) says what was used.
    #[must_use]
    pub fn damping(mut self, damping: f64) -> Self {
        self.damping = damping;
        self
    }

    /// Whether weights that are zero before the sweep stay zero, as they do unless `false` is
    /// given.
    ///
    /// The published code lets them take part like all others, so that they may come back to
    /// life.
    #[must_use]
    pub fn keep_zeros(mut self, keep: bool) -> Self {
        self.keep_zeros = keep;
        self
    }

    /// What computes products and factorisations.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

impl<T: Real> WeightUpdate<T> for ObsSweep {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        if self.block_size == 0 {
            return Err(Error::InvalidBlockSize);
        }
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            return Err(Error::InvalidDamping {
                damping: self.damping,
            });
        }
        let (_, columns) = task.weights.dim();
        let energies = crate::stats::required_sums(task.stats, "obs sweep", task.weights.dim())?;
        let gram = task.stats.gram().ok_or_else(|| Error::NoGram {
            what: "obs sweep".to_owned(),
        })?;
        let factor = factorize::<T>(self.backend, gram, self.damping)?;
        let factored = Factored {
            gram,
            diagonal: factor.diagonal(),
        };
        let dense = read_all(task.weights)?;
        let scorer = task.metric.prepare(task.weights, &factored)?;
        let sweep = Sweep {
            task,
            keep_zeros: self.keep_zeros,
            factor: &factor,
            scorer: &*scorer,
            rule: task
                .pattern
                .row_rule()
                .filter(|rule| rule.group().is_some()),
            dead: energies.iter().map(|&energy| energy == 0.0).collect(),
            scale: inverse_power_of_two(largest(task.weights)?.as_f64()),
        };
        let group = task.pattern.block_columns();
        let block = self.block_size.div_ceil(group).saturating_mul(group);
        sweep.run(gram, dense, block.min(columns)).map(Some)
    }
}

/// Statistics together with what the sweep already knows of their factor.
#[derive(Debug)]
struct Factored<'a> {
    gram: &'a Gram,
    diagonal: Vec<f64>,
}

impl ActivationStats for Factored<'_> {
    fn features(&self) -> usize {
        self.gram.features()
    }

    fn tokens(&self) -> u64 {
        self.gram.tokens()
    }

    fn sums_of_squares(&self) -> &[f64] {
        self.gram.sums_of_squares()
    }

    fn gram(&self) -> Option<&Gram> {
        Some(self.gram)
    }

    fn factor_diagonal(&self) -> Option<&[f64]> {
        Some(&self.diagonal)
    }
}

/// What stays the same from block to block.
struct Sweep<'a, T: Real> {
    task: &'a UpdateTask<'a, T>,
    keep_zeros: bool,
    factor: &'a Factor<T>,
    scorer: &'a dyn Scorer<T>,
    /// Set if the pattern decides within groups of columns.
    rule: Option<Box<dyn RowRule<T> + 'a>>,
    /// Inputs that were zero throughout.
    dead: Vec<bool>,
    /// Brings weights near 1 where they are squared.
    scale: f64,
}

impl<T: Real> Sweep<'_, T> {
    /// Column by column, turns the dense weights into what is to be subtracted from them.
    fn run(&self, gram: &Gram, dense: Vec<T>, block: usize) -> Result<Updated<T>> {
        let (rows, columns) = self.task.weights.dim();
        let total = gram.output_energy(&dense, self.scale);
        let mut removed = dense;
        let mut mask = Mask::none(rows, columns)?;
        let mut lost = 0.0;
        let mut updated = Vec::new();
        let mut buffer = Vec::new();
        for block in parallel::runs(columns, block) {
            let inverse = self.factor.inverse_block(block.clone());
            self.update_block(&removed, &block, &inverse, &mut updated, &mut buffer);
            let chosen = self.decide_block(&removed, &updated, &block, &mut buffer)?;
            let block = Block {
                columns: block,
                inverse: &inverse,
                chosen: chosen.as_ref(),
            };
            lost += self.sweep_block(&block, &mut updated, &mut removed, &mut mask)?;
        }
        let removed = Array2::from_shape_vec((rows, columns), removed)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        Ok(Updated {
            removed,
            mask,
            relative_error: (total > 0.0).then(|| lost.max(0.0) / total),
            damping: Some(self.factor.damping),
        })
    }

    /// Computes the weights of a block as what has been pruned before makes them: W₁, row-major.
    fn update_block(
        &self,
        removed: &[T],
        block: &Range<usize>,
        inverse: &[T],
        updated: &mut Vec<T>,
        product: &mut Vec<T>,
    ) {
        let (rows, columns) = self.task.weights.dim();
        let width = block.len();
        updated.clear();
        for dense in removed.chunks_exact(columns) {
            updated.extend_from_slice(&dense[block.clone()]);
        }
        if block.start == 0 {
            return;
        }
        product.clear();
        product.resize(rows * width, T::zero());
        let before = Panel::new(removed, columns).columns_of(0..block.start);
        let out = PanelMut::new(product, width);
        self.factor
            .multiply(out, before, 0..block.start, block.clone());
        self.factor.product(
            PanelMut::new(updated, width),
            Panel::new(product, width),
            Panel::new(inverse, width),
        );
    }

    /// What the pattern prunes of a block, unless it decides group by group as the sweep goes.
    fn decide_block(
        &self,
        removed: &[T],
        updated: &[T],
        block: &Range<usize>,
        scores: &mut Vec<T>,
    ) -> Result<Option<Mask>> {
        if self.rule.is_some() {
            return Ok(None);
        }
        let (rows, columns) = self.task.weights.dim();
        let width = block.len();
        scores.resize(rows * width, T::zero());
        let work = scores
            .chunks_exact_mut(width)
            .zip(updated.chunks_exact(width))
            .zip(removed.chunks_exact(columns))
            .enumerate();
        let results = parallel::map(
            work.collect(),
            || vec![false; width],
            |pinned, (row, ((scores, weights), dense))| {
                self.find_pinned(row, block.start, &dense[block.clone()], pinned);
                self.score(row, block.start, weights, pinned, scores)
            },
        );
        results.into_iter().collect::<Result<()>>()?;
        let scores = ArrayView2::from_shape((rows, width), &scores[..])
            .map_err(|_| Error::TooLarge { rows, columns })?;
        let pattern = self.task.pattern;
        let chosen = pattern.project_block(&scores, block.clone(), columns)?;
        crate::mask::check_shape((rows, width), &chosen)?;
        Ok(Some(chosen))
    }

    /// Prunes a block, marks in `mask` what the pattern pruned, and returns what that costs: the
    /// block's share of tr(E G Eᵀ), scaled.
    fn sweep_block(
        &self,
        block: &Block<'_, T>,
        updated: &mut [T],
        removed: &mut [T],
        mask: &mut Mask,
    ) -> Result<f64> {
        let (_, columns) = self.task.weights.dim();
        let width = block.columns.len();
        let rows = updated
            .chunks_exact_mut(width)
            .zip(removed.chunks_exact_mut(columns))
            .zip(mask.rows_mut())
            .enumerate();
        let lost = parallel::map(
            rows.collect(),
            || RowScratch::new(width),
            |scratch, (row, ((weights, removed), mut marks))| {
                let removed = &mut removed[block.columns.clone()];
                scratch.chosen.fill(0);
                if let Some(chosen) = block.chosen {
                    scratch.chosen.copy_from_slice(chosen.row_words(row));
                }
                self.find_pinned(row, block.columns.start, removed, &mut scratch.pinned);
                let lost = self.sweep_row(row, block, weights, scratch)?;
                marks.set_run(block.columns.start, width, &scratch.chosen);
                Ok(lost - self.replace_dense(block.columns.start, removed, weights))
            },
        );
        lost.into_iter().sum()
    }

    /// Prunes the weights of a row of a block from left to right, each made up for by those on
    /// its right, and rounds those that stay. Returns Σ e², scaled.
    fn sweep_row(
        &self,
        row: usize,
        block: &Block<'_, T>,
        weights: &mut [T],
        scratch: &mut RowScratch<T>,
    ) -> Result<f64> {
        let width = weights.len();
        let start = block.columns.start;
        let mut lost = 0.0;
        for column in 0..width {
            self.decide_group(row, start, column, weights, scratch)?;
            let goes = scratch.pinned[column] || bit(&scratch.chosen, column);
            let weight = weights[column];
            let stored = if goes {
                T::zero()
            } else {
                (self.task.stored)(weight)
            };
            if !(weight.is_finite() && stored.is_finite()) {
                return Err(Error::Overflow {
                    row,
                    column: start + column,
                    value: weight.as_f64(),
                });
            }
            weights[column] = stored;
            // A dead input has no part in any output.
            if stored != weight && !self.dead[start + column] {
                let line = &block.inverse[column * width + column..(column + 1) * width];
                let error = (weight - stored) / line[0];
                kernels::subtract_scaled(&mut weights[column + 1..], error, &line[1..]);
                lost += (error.as_f64() * self.scale).powi(2);
            }
        }
        Ok(lost)
    }

    /// Lets a pattern that decides in groups of columns decide the group that starts here, if
    /// one does.
    fn decide_group(
        &self,
        row: usize,
        start: usize,
        column: usize,
        weights: &[T],
        scratch: &mut RowScratch<T>,
    ) -> Result<()> {
        let Some(rule) = &self.rule else {
            return Ok(());
        };
        let of = rule.group().unwrap_or(weights.len());
        if !column.is_multiple_of(of) {
            return Ok(());
        }
        let group = column..weights.len().min(column.saturating_add(of));
        let len = group.len();
        let scores = &mut scratch.scores[..len];
        let weights = &weights[group.clone()];
        let pinned = &scratch.pinned[group];
        self.score(row, start + column, weights, pinned, scores)?;
        let words = &mut scratch.group[..words_for(len)];
        words.fill(0);
        rule.select(scores, &mut MaskRow::new(words, len));
        for j in (0..len).filter(|&j| bit(words, j)) {
            let column = column + j;
            scratch.chosen[column / 64] |= 1 << (column % 64);
        }
        Ok(())
    }

    /// Scores updated weights. Those that are pinned at zero score 0, protected ones infinity.
    fn score(
        &self,
        row: usize,
        start: usize,
        weights: &[T],
        pinned: &[bool],
        scores: &mut [T],
    ) -> Result<()> {
        self.scorer.score(row, start, weights, scores);
        settle_scores(self.task.metric.name(), (row, start), pinned, scores)?;
        if self.task.protected.is_some() {
            for (column, score) in (start..).zip(scores) {
                if self.is_protected(row, column) {
                    *score = T::infinity();
                }
            }
        }
        Ok(())
    }

    /// Finds the weights of a row that are zero from the start and must stay so, or whose input
    /// is dead.
    fn find_pinned(&self, row: usize, start: usize, dense: &[T], pinned: &mut [bool]) {
        let dead = &self.dead[start..start + dense.len()];
        for ((pinned, weight), &dead) in pinned.iter_mut().zip(dense).zip(dead) {
            *pinned = dead | (self.keep_zeros & weight.is_zero());
        }
        if self.task.protected.is_some() {
            for (column, pinned) in (start..).zip(pinned) {
                let zero = self.keep_zeros && dense[column - start].is_zero();
                *pinned = *pinned && (zero || !self.is_protected(row, column));
            }
        }
    }

    /// Replaces the dense weights of a row of a block by what is to be subtracted from them.
    /// Returns what damping adds to their part of Σ e², scaled.
    fn replace_dense(&self, start: usize, dense: &mut [T], stored: &[T]) -> f64 {
        let mut squares = 0.0;
        let dead = &self.dead[start..];
        for ((dense, &stored), &dead) in dense.iter_mut().zip(stored).zip(dead) {
            *dense = *dense - stored;
            if !dead {
                squares += (dense.as_f64() * self.scale).powi(2);
            }
        }
        self.factor.shift * squares
    }

    fn is_protected(&self, row: usize, column: usize) -> bool {
        let protected = self.task.protected;
        protected.is_some_and(|mask| mask.get(row, column) == Some(true))
    }
}

/// Columns that are decided together.
struct Block<'a, T> {
    columns: Range<usize>,
    /// U on these columns, row-major.
    inverse: &'a [T],
    /// What goes, unless that is decided group by group.
    chosen: Option<&'a Mask>,
}

/// The memory a thread works in.
struct RowScratch<T> {
    /// Weights of the block that the pattern prunes.
    chosen: Vec<u64>,
    /// Weights that become zero whatever the pattern says.
    pinned: Vec<bool>,
    scores: Vec<T>,
    group: Vec<u64>,
}

impl<T: Real> RowScratch<T> {
    fn new(width: usize) -> Self {
        Self {
            chosen: vec![0; words_for(width)],
            pinned: vec![false; width],
            scores: vec![T::zero(); width],
            group: vec![0; words_for(width)],
        }
    }
}

fn bit(words: &[u64], column: usize) -> bool {
    words[column / 64] >> (column % 64) & 1 == 1
}
