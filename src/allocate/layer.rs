//! What an allocation is told of a layer, and what the layer gets.

use super::histogram::ScoreHistogram;
use crate::element::Real;
use crate::error::Result;
use crate::matrix::Rows;
use crate::pattern::quota;

/// What an allocation is told of a layer: its size, and how its scores are distributed.
///
/// # Complexity
///
/// The memory of a [`ScoreHistogram`], whatever the size of the layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSummary {
    weights: usize,
    scored: Option<(usize, ScoreHistogram)>,
}

impl LayerSummary {
    /// Sums up a layer by its scores, such as those of [`Scoring::of`](crate::Scoring::of). It is
    /// part of transformer block number `block`: [`Owl`](super::Owl) and [`Dlp`](super::Dlp) treat
    /// the layers of a block alike.
    ///
    /// # Errors
    ///
    /// As [`ScoreHistogram::of`].
    ///
    /// # Complexity
    ///
    /// Scores are read once, a run of them at a time a thread.
    pub fn new<T: Real>(block: usize, scores: &(impl Rows<T> + ?Sized)) -> Result<Self> {
        let scores = ScoreHistogram::of(scores)?;
        Ok(Self {
            weights: scores.len(),
            scored: Some((block, scores)),
        })
    }

    /// A layer of so many weights whose scores are not known. [`Uniform`](super::Uniform) needs no
    /// more. The other allocations leave such a layer at the sparsity of all layers together.
    #[must_use]
    pub fn unscored(weights: usize) -> Self {
        Self {
            weights,
            scored: None,
        }
    }

    /// How many weights the layer has.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// The transformer block it is part of, unless it is unscored.
    #[must_use]
    pub fn block(&self) -> Option<usize> {
        self.scored.as_ref().map(|&(block, _)| block)
    }

    /// How its scores are distributed, unless it is unscored.
    #[must_use]
    pub fn scores(&self) -> Option<&ScoreHistogram> {
        self.scored.as_ref().map(|(_, scores)| scores)
    }
}

/// What a layer has to lose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerShare {
    pruned: usize,
    sparsity: f64,
}

impl LayerShare {
    /// So many of so many weights, but not all of them.
    pub(super) fn new(pruned: usize, weights: usize) -> Self {
        let mut sparsity = pruned as f64 / weights.max(1) as f64;
        // What a pattern multiplies may round to less than what was divided.
        while quota(weights, sparsity) < pruned {
            sparsity = sparsity.next_up();
        }
        Self { pruned, sparsity }
    }

    /// How many weights to prune.
    #[must_use]
    pub fn pruned(&self) -> usize {
        self.pruned
    }

    /// The sparsity with which [`Pattern::PerLayer`](crate::Pattern::PerLayer) prunes exactly
    /// [so many](Self::pruned) weights. Patterns that round the count of each group down, such as
    /// [`Pattern::PerOutput`](crate::Pattern::PerOutput) that of each row, prune up to one weight a
    /// group less.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        self.sparsity
    }
}
