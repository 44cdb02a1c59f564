//! One threshold for all weights of a model.

use super::{Allocation, LayerSummary, ScoreHistogram, Target, check_parameter};
use crate::error::Result;
use crate::pattern::quota;

/// The lowest scores of all layers together are pruned, wherever they are, within limits.
///
/// # Formula
///
/// ```text
/// θ  = the score up to which s of the scores of all layers lie
/// tₗ = share of the scores of layer l up to θ    clipped to s − limit to s + limit, 0 to 0.99
/// ```
///
/// What lies in one bin of the [`ScoreHistogram`] with θ is shared out evenly, so a target is off
/// by at most the share of the layer's scores that are within 2⁻⁶ of θ. Layers without scores stay
/// at s.
///
/// The scores of all layers have to be on one scale: what the output of the *model* loses without
/// the weight. Saliencies of a Gram matrix come near to that where outputs are weighted. `Obs`
/// scales the scores of each layer by a power of two of its own, so its will not do as they are.
///
/// # Errors
///
/// [`Error::InvalidAllocation`](crate::Error::InvalidAllocation) if the limit is negative, infinite
/// or not a number.
///
/// # Example
///
/// ```
/// use wanda::allocate::{GlobalBudget, LayerSummary, allocate};
/// use wanda::ndarray::Array2;
///
/// // 1 to 1000, and twice that.
/// let scores = |factor| Array2::from_shape_fn((1, 1000), |(_, j)| factor * (j + 1) as f32);
/// let layers = [LayerSummary::new(0, &scores(1.0))?, LayerSummary::new(1, &scores(2.0))?];
/// // 300 scores are lowest: one up to 200, where the other has twice as many.
/// let shares = allocate(&GlobalBudget::default(), &layers, 0.15)?;
/// assert_eq!([shares[0].pruned(), shares[1].pruned()], [200, 100]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GlobalBudget {
    /// How far a layer may be from the sparsity of all layers: 0.15 by default.
    pub limit: f64,
}

impl Default for GlobalBudget {
    fn default() -> Self {
        Self { limit: 0.15 }
    }
}

impl Allocation for GlobalBudget {
    fn name(&self) -> String {
        "global budget".to_owned()
    }

    fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> Result<Vec<Target>> {
        check_parameter("limit", self.limit)?;
        let mut all = ScoreHistogram::default();
        for scores in layers.iter().filter_map(LayerSummary::scores) {
            all.merge(scores);
        }
        let cut = Cut::new(&all, sparsity);
        let target = |layer: &LayerSummary| match layer.scores().filter(|s| !s.is_empty()) {
            Some(scores) => Target::free(cut.share(scores), sparsity).near(sparsity, self.limit),
            None => Target::fixed(sparsity),
        };
        Ok(layers.iter().map(target).collect())
    }
}

/// Where the lowest scores end.
struct Cut {
    /// What the highest of them counts as.
    threshold: f64,
    /// The part of the scores in its bin that are among them.
    part: f64,
}

impl Cut {
    fn new(scores: &ScoreHistogram, sparsity: f64) -> Self {
        let len = scores.len();
        let threshold = scores.of_rank(quota(len, sparsity)).unwrap_or(0.0);
        let (below, within) = around(scores, threshold);
        let wanted = len as f64 * sparsity;
        Self {
            threshold,
            part: ((wanted - below) / within.max(1.0)).clamp(0.0, 1.0),
        }
    }

    /// The share of these scores, of which there is at least one, that are among the lowest.
    fn share(&self, scores: &ScoreHistogram) -> f64 {
        let (below, within) = around(scores, self.threshold);
        (below + self.part * within) / scores.len() as f64
    }
}

/// How many scores count as less than `threshold`, and as just that.
fn around(scores: &ScoreHistogram, threshold: f64) -> (f64, f64) {
    let (mut below, mut within) = (0, 0);
    for (score, count) in scores.bins().take_while(|&(score, _)| score <= threshold) {
        if score < threshold {
            below += count;
        } else {
            within = count;
        }
    }
    (below as f64, within as f64)
}
