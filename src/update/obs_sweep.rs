//! The sweep of SparseGPT: prunes column by column and lets later columns make up for it.

use std::ops::Range;

use ndarray::Array2;

use super::{UpdateTask, Updated, WeightUpdate};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::linalg::{Backend, Factor, Panel, PanelMut, factorize};
use crate::mask::{Mask, MaskRow, words_for};
use crate::matrix::{Rows, check_bounds};
use crate::metric::Scorer;
use crate::metric::obs::DAMPING;
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
        let (rows, columns) = task.weights.dim();
        if self.block_size == 0 {
            return Err(Error::InvalidBlockSize);
        }
        if !(self.damping.is_finite() && self.damping >= 0.0) {
            return Err(Error::InvalidDamping {
                damping: self.damping,
            });
        }
        crate::stats::required_sums(task.stats, "obs sweep", (rows, columns))?;
        let gram = task.stats.gram().ok_or_else(|| Error::NoGram {
            what: "obs sweep".to_owned(),
        })?;
        let energies = gram.sums_of_squares();
        let factor = factorize::<T>(self.backend, &gram.upper()?, columns, self.damping)?;
        let factored = Factored {
            gram,
            diagonal: factor.diagonal(),
        };
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
            energies,
        };
        let group = task.pattern.block_columns();
        let block = self.block_size.div_ceil(group).saturating_mul(group);
        sweep.run(block.min(columns)).map(Some)
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

/// Columns of a product that no block limits.
const WIDE: usize = 512;

/// What stays the same from block to block.
struct Sweep<'a, T: Real> {
    task: &'a UpdateTask<'a, T>,
    keep_zeros: bool,
    factor: &'a Factor<T>,
    scorer: &'a dyn Scorer<T>,
    /// Set if the pattern decides within groups of columns.
    rule: Option<Box<dyn RowRule<T> + 'a>>,
    energies: &'a [f64],
}

/// Squared norms whose differences make up the errors that are reported.
#[derive(Default)]
struct Energy {
    /// ‖A R‖²
    damped: f64,
    /// ‖A‖², and on dead inputs the share that their stand-in diagonal of 1 adds.
    shift: f64,
    dead: f64,
}

impl Energy {
    fn add(&mut self, other: &Self) {
        self.damped += other.damped;
        self.shift += other.shift;
        self.dead += other.dead;
    }

    /// tr(A G Aᵀ), from R Rᵀ = G + λI + (1 on the diagonal of dead inputs).
    fn undamped(&self, shift: f64) -> f64 {
        (self.damped - shift * self.shift - self.dead).max(0.0)
    }
}

impl<T: Real> Sweep<'_, T> {
    fn run(&self, block: usize) -> Result<Updated<T>> {
        let (rows, columns) = self.task.weights.dim();
        let mut mask = Mask::none(rows, columns)?;
        let mut removed = self.dense()?;
        let mut total = Energy::default();
        for wide in parallel::runs(columns, WIDE) {
            let image = self.multiply(&removed, 0..wide.end, &wide);
            total.add(&self.energy(&image, &removed, &wide));
        }

        let mut lost = Energy::default();
        for block in parallel::runs(columns, block) {
            // E R on the columns of the block, as far as the columns before it make it up.
            let mut image = self.multiply(&removed, 0..block.start, &block);
            let updated = self.updated(&removed, &image, &block);
            let chosen = self.decide(&updated, &block)?;
            self.sweep_block(updated, &mut removed, chosen, &block, &mut mask)?;
            self.add_product(&mut image, &removed, block.clone(), &block);
            lost.add(&self.energy(&image, &removed, &block));
        }
        let shift = self.factor.shift;
        let total = total.undamped(shift);
        let removed = Array2::from_shape_vec((rows, columns), removed)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        Ok(Updated {
            removed,
            mask,
            relative_error: (total > 0.0).then(|| lost.undamped(shift) / total),
            damping: Some(self.factor.damping),
        })
    }

    /// A copy of the dense weights. Column by column, the sweep turns it into E.
    fn dense(&self) -> Result<Vec<T>> {
        let (rows, columns) = self.task.weights.dim();
        let mut dense = Vec::new();
        dense
            .try_reserve_exact(rows * columns)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        dense.resize(rows * columns, T::zero());
        let work = dense.chunks_exact_mut(columns).enumerate().collect();
        let results = parallel::map(
            work,
            || (),
            |(), (row, out)| self.task.weights.read(row, 0, out),
        );
        results.into_iter().collect::<Result<()>>()?;
        Ok(dense)
    }

    /// A[:, from] · R[from, columns], where A is as large as the layer.
    fn multiply(&self, a: &[T], from: Range<usize>, columns: &Range<usize>) -> Vec<T> {
        let mut image = vec![T::zero(); self.task.weights.dim().0 * columns.len()];
        self.add_product(&mut image, a, from, columns);
        image
    }

    /// Adds A[:, from] · R[from, columns] to `image`.
    fn add_product(&self, image: &mut [T], a: &[T], from: Range<usize>, columns: &Range<usize>) {
        if from.is_empty() {
            return;
        }
        let (rows, n) = self.task.weights.dim();
        let a = Panel::new(a, n).part(0..rows, from.clone());
        let image = PanelMut::new(image, columns.len());
        self.factor.multiply(image, a, from, columns.clone());
    }

    /// The energy of some columns of A, whose image under R is given.
    fn energy(&self, image: &[T], a: &[T], columns: &Range<usize>) -> Energy {
        let (_, n) = self.task.weights.dim();
        let energies = &self.energies[columns.clone()];
        let rows = image.chunks_exact(columns.len()).zip(a.chunks_exact(n));
        let parts = parallel::map(
            rows.collect(),
            || (),
            |(), (image, a): (&[T], &[T])| {
                let a = &a[columns.clone()];
                let dead = a.iter().zip(energies).filter(|(_, energy)| **energy == 0.0);
                Energy {
                    damped: kernels::sum_of_squares(image),
                    shift: kernels::sum_of_squares(a),
                    dead: dead.map(|(x, _)| x.as_f64().powi(2)).sum(),
                }
            },
        );
        parts.iter().fold(Energy::default(), |mut sum, part| {
            sum.add(part);
            sum
        })
    }

    /// The weights of a block as what has been pruned before makes them: W₁, rows x block.
    fn updated(&self, removed: &[T], image: &[T], block: &Range<usize>) -> Vec<T> {
        let (_, n) = self.task.weights.dim();
        let width = block.len();
        let mut updated = Vec::with_capacity(image.len());
        for dense in removed.chunks_exact(n) {
            updated.extend_from_slice(&dense[block.clone()]);
        }
        if block.start > 0 {
            let inverse = self.factor.inverse_block(block.clone());
            self.factor.product(
                PanelMut::new(&mut updated, width),
                Panel::new(image, width),
                Panel::new(&inverse, width),
            );
        }
        updated
    }

    /// What the pattern prunes of a block, unless it decides group by group as the sweep goes.
    fn decide(&self, updated: &[T], block: &Range<usize>) -> Result<Option<Mask>> {
        if self.rule.is_some() {
            return Ok(None);
        }
        let scores = BlockScores {
            sweep: self,
            updated,
            block,
        };
        let (rows, columns) = self.task.weights.dim();
        let pattern = self.task.pattern;
        let chosen = pattern.project_block(&scores, block.clone(), columns)?;
        crate::mask::check_shape((rows, block.len()), &chosen)?;
        Ok(Some(chosen))
    }

    /// Prunes a block column by column, which turns the dense weights in `removed` into E.
    fn sweep_block(
        &self,
        mut updated: Vec<T>,
        removed: &mut [T],
        chosen: Option<Mask>,
        block: &Range<usize>,
        mask: &mut Mask,
    ) -> Result<()> {
        let (_, n) = self.task.weights.dim();
        let width = block.len();
        let inverse = self.factor.inverse_block(block.clone());
        let rows = updated
            .chunks_exact_mut(width)
            .zip(removed.chunks_exact_mut(n))
            .zip(mask.rows_mut())
            .enumerate();
        let results = parallel::map(
            rows.collect(),
            || RowScratch::new(width),
            |scratch, (row, ((weights, removed), mut marks))| {
                let removed = &mut removed[block.clone()];
                scratch.start(self, row, block.start, removed);
                if let Some(chosen) = &chosen {
                    scratch.chosen.copy_from_slice(chosen.row_words(row));
                }
                for column in 0..width {
                    self.decide_group(row, block.start, column, weights, scratch)?;
                    let goes = bit(&scratch.chosen, column) || scratch.pinned[column];
                    if goes {
                        let error = weights[column] / inverse[column * width + column];
                        let line = &inverse[column * width + column + 1..(column + 1) * width];
                        kernels::subtract_scaled(&mut weights[column + 1..], error, line);
                        weights[column] = T::zero();
                    }
                }
                marks.set_run(block.start, width, &scratch.chosen);
                self.finish_row(row, block.start, weights, removed)
            },
        );
        results.into_iter().collect()
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
        for j in (0..len).filter(|&j| words[j / 64] >> (j % 64) & 1 == 1) {
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
        for (j, score) in scores.iter_mut().enumerate() {
            if self.is_protected(row, start + j) {
                *score = T::infinity();
            } else if pinned[j] || score.is_zero() {
                *score = T::zero();
            } else if !(score.is_finite() && *score > T::zero()) {
                return Err(Error::InvalidScore {
                    metric: self.task.metric.name().to_owned(),
                    row,
                    column: start + j,
                    score: score.as_f64(),
                });
            }
        }
        Ok(())
    }

    /// Rounds the finished weights to what will be stored, and replaces the dense weights by the
    /// difference.
    fn finish_row(&self, row: usize, start: usize, weights: &[T], removed: &mut [T]) -> Result<()> {
        for (j, (dense, &weight)) in removed.iter_mut().zip(weights).enumerate() {
            let stored = (self.task.stored)(weight);
            if !stored.is_finite() {
                return Err(Error::Overflow {
                    row,
                    column: start + j,
                    value: weight.as_f64(),
                });
            }
            *dense = *dense - stored;
        }
        Ok(())
    }

    fn is_protected(&self, row: usize, column: usize) -> bool {
        let protected = self.task.protected;
        protected.is_some_and(|mask| mask.get(row, column) == Some(true))
    }

    /// Whether the weight is zero from the start and must stay so.
    fn is_pinned(&self, row: usize, column: usize, dense: T) -> bool {
        (self.keep_zeros && dense.is_zero())
            || (self.energies[column] == 0.0 && !self.is_protected(row, column))
    }
}

/// The scores of the updated weights of a block, for a pattern that sees all rows of it.
struct BlockScores<'a, T: Real> {
    sweep: &'a Sweep<'a, T>,
    updated: &'a [T],
    block: &'a Range<usize>,
}

impl<T: Real> Rows<T> for BlockScores<'_, T> {
    fn dim(&self) -> (usize, usize) {
        (self.sweep.task.weights.dim().0, self.block.len())
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        check_bounds(self.dim(), row, start, out.len())?;
        let column = self.block.start + start;
        // The dense weights tell which are pinned at zero.
        self.sweep.task.weights.read(row, column, out)?;
        let pinned: Vec<bool> = out
            .iter()
            .enumerate()
            .map(|(j, &dense)| self.sweep.is_pinned(row, column + j, dense))
            .collect();
        let first = row * self.block.len() + start;
        let weights = &self.updated[first..first + out.len()];
        self.sweep.score(row, column, weights, &pinned, out)
    }
}

/// The memory a thread works in.
struct RowScratch<T> {
    /// Weights of the block that the pattern prunes.
    chosen: Vec<u64>,
    /// Weights that were zero before, or whose input is dead.
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

    fn start(&mut self, sweep: &Sweep<'_, T>, row: usize, start: usize, dense: &[T]) {
        self.chosen.fill(0);
        for (j, (pinned, &dense)) in self.pinned.iter_mut().zip(dense).enumerate() {
            *pinned = sweep.is_pinned(row, start + j, dense);
        }
    }
}

fn bit(words: &[u64], column: usize) -> bool {
    words[column / 64] >> (column % 64) & 1 == 1
}
