//! Dynamic layerwise pruning.

use super::blocks::spread;
use super::{Allocation, LayerSummary, ScoreHistogram, Target, check_parameter};
use crate::error::Result;

/// Blocks with a lower median score are pruned less: DLP.
///
/// # Formula
///
/// ```text
/// qₗ = median of the scores of block l           of two in the middle the lower one
/// xₗ = 1 − qₗ / Σ q
/// kₗ = (xₗ − min x) / (max x − min x) · 2a       0 if all x are equal
/// tₗ = s − (kₗ − mean k)                         clipped to 0 to 0.99
/// ```
///
/// The layers of a block share its target, and the mean of k is weighted by the weights of blocks,
/// so that the targets add up to s unless some are clipped. The scores are those of
/// [`Wanda`](crate::Wanda) in the paper. Any others will do that are on one scale in all blocks;
/// `Obs` scales the scores of each layer by a power of two of its own, so its are not. A median is
/// that of a [`ScoreHistogram`], at most 2⁻⁷ of it off. Layers without scores stay at s.
///
/// # Errors
///
/// [`Error::InvalidAllocation`](crate::Error::InvalidAllocation) if the width is negative, infinite
/// or not a number.
///
/// # Example
///
/// ```
/// use wanda::allocate::{Dlp, LayerSummary, allocate};
/// use wanda::ndarray::Array2;
///
/// let scores = |median| Array2::from_elem((40, 50), median);
/// let layers = [1.0_f32, 3.0].map(|q| LayerSummary::new(q as usize, &scores(q)));
/// let layers = layers.into_iter().collect::<Result<Vec<_>, _>>()?;
/// let shares = allocate(&Dlp::default(), &layers, 0.5)?;
/// assert_eq!([shares[0].pruned(), shares[1].pruned()], [700, 1300]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Chen et al., "DLP: Dynamic Layerwise Pruning in Large Language Models", ICML 2025,
/// arXiv 2505.23807.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dlp {
    /// a, half the difference between the sparsest and the densest block: 0.15 by default.
    pub width: f64,
}

impl Default for Dlp {
    fn default() -> Self {
        Self { width: 0.15 }
    }
}

impl Allocation for Dlp {
    fn name(&self) -> String {
        "dlp".to_owned()
    }

    fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> Result<Vec<Target>> {
        check_parameter("width", self.width)?;
        // Of 1 − q / Σ q only the order and the ratios of differences count, and −q has the same.
        let importance = |scores: &ScoreHistogram| -median(scores);
        Ok(spread(layers, sparsity, self.width, importance))
    }
}

/// The median, of two scores in the middle the lower one; 0 if there are none.
fn median(scores: &ScoreHistogram) -> f64 {
    scores
        .of_rank(scores.len().saturating_sub(1) / 2)
        .unwrap_or(0.0)
}
