//! What OWL and DLP have in common: a number for each block, and sparsities that follow from it.

use std::collections::BTreeMap;

use super::histogram::ScoreHistogram;
use super::layer::LayerSummary;
use super::target::Target;

/// Spreads the sparsities of blocks by their importance, a finite number that follows from the
/// scores of a block, of which there is at least one:
///
/// ```text
/// kₗ = (xₗ − min x) / (max x − min x) · 2a       0 if all x are equal
/// tₗ = s − (kₗ − mean k)                         the mean weighted by the weights of blocks
/// ```
pub(super) fn spread(
    layers: &[LayerSummary],
    sparsity: f64,
    width: f64,
    importance: impl Fn(&ScoreHistogram) -> f64,
) -> Vec<Target> {
    let mut blocks: BTreeMap<usize, ScoreHistogram> = BTreeMap::new();
    for (block, scores) in layers.iter().filter_map(scored) {
        blocks.entry(block).or_default().merge(scores);
    }
    let importance: BTreeMap<usize, f64> = blocks
        .iter()
        .map(|(&block, scores)| (block, importance(scores)))
        .collect();
    let least = importance.values().copied().fold(f64::INFINITY, f64::min);
    let most = importance
        .values()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    let kept_more = |block: &usize| {
        if most > least {
            (importance[block] - least) / (most - least) * 2.0 * width
        } else {
            0.0
        }
    };
    let size = |scores: &ScoreHistogram| scores.len() as f64;
    let weights: f64 = blocks.values().map(size).sum();
    let mean: f64 = blocks
        .iter()
        .map(|(block, scores)| kept_more(block) * (size(scores) / weights))
        .sum();
    let target = |layer: &LayerSummary| match scored(layer) {
        Some((block, _)) => Target::free(sparsity - (kept_more(&block) - mean), sparsity),
        None => Target::fixed(sparsity),
    };
    layers.iter().map(target).collect()
}

/// The block and the scores of a layer that has any.
fn scored(layer: &LayerSummary) -> Option<(usize, &ScoreHistogram)> {
    let scores = layer.scores().filter(|scores| !scores.is_empty())?;
    Some((layer.block()?, scores))
}
