//! Outlier weighed layerwise sparsity.

use super::blocks::spread;
use super::{Allocation, LayerSummary, ScoreHistogram, Target, check_parameter};
use crate::error::Result;

/// Blocks with more outliers among their scores are pruned less: OWL.
///
/// # Formula
///
/// ```text
/// xₗ = share of the scores of block l that are above M times their mean
/// kₗ = (xₗ − min x) / (max x − min x) · 2a       0 if all x are equal
/// tₗ = s − (kₗ − mean k)                         clipped to 0 to 0.99
/// ```
///
/// The layers of a block share its target, and the mean of k is weighted by the weights of blocks,
/// so that the targets add up to s unless some are clipped. The scores are those of
/// [`Wanda`](crate::Wanda) in the paper; any others will do, and each block may have a scale of its
/// own. They count as the middle of their bin in a [`ScoreHistogram`], so a score may be taken for
/// one on the other side of the threshold if it is within 1.6 % of it. Layers without scores stay
/// at s.
///
/// # Errors
///
/// [`Error::InvalidAllocation`](crate::Error::InvalidAllocation) if a parameter is negative,
/// infinite or not a number.
///
/// # Example
///
/// ```
/// use wanda::allocate::{LayerSummary, Owl, allocate};
/// use wanda::ndarray::Array2;
///
/// // The larger i, the more outliers.
/// let scores = |i| Array2::from_shape_fn((40, 50), |(_, j)| if j < i { 99.0_f32 } else { 1.0 });
/// let layers = [0, 1, 2].map(|i| LayerSummary::new(i, &scores(i)).expect("finite scores"));
/// let shares = allocate(&Owl::default(), &layers, 0.5)?;
/// let pruned: Vec<usize> = shares.iter().map(|share| share.pruned()).collect();
/// assert_eq!(pruned, [1160, 1000, 840]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Yin et al., "Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs
/// to High Sparsity", arXiv 2310.05175. The published code weights all blocks alike, has no upper
/// limit, and divides by zero if all blocks are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Owl {
    /// M, the multiple of the mean above which a score is an outlier: 5 by default.
    pub threshold: f64,
    /// a, half the difference between the sparsest and the densest block: 0.08 by default.
    pub width: f64,
}

impl Default for Owl {
    fn default() -> Self {
        Self {
            threshold: 5.0,
            width: 0.08,
        }
    }
}

impl Allocation for Owl {
    fn name(&self) -> String {
        "owl".to_owned()
    }

    fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> Result<Vec<Target>> {
        check_parameter("threshold", self.threshold)?;
        check_parameter("width", self.width)?;
        let outliers = |scores: &ScoreHistogram| share_above(scores, self.threshold);
        Ok(spread(layers, sparsity, self.width, outliers))
    }
}

/// The share of scores above a multiple of their mean.
fn share_above(scores: &ScoreHistogram, multiple: f64) -> f64 {
    let len = scores.len() as f64;
    // The shares first: a sum of scores may overflow.
    let mean: f64 = scores
        .bins()
        .map(|(score, count)| score * (count as f64 / len))
        .sum();
    let threshold = multiple * mean;
    let above = scores.bins().filter(|&(score, _)| score > threshold);
    above.map(|(_, count)| count).sum::<usize>() as f64 / len
}
