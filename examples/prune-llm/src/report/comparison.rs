//! What a comparison of methods gave.

use super::run::Text;
use crate::plan::{Method, Recipe, Update};
use serde::{Deserialize, Serialize};
use wanda::Pattern;

/// The sparsities that every method is asked for. `None`: the method's own way to 50 %.
pub(super) const SPARSITIES: [(&str, Option<Pattern>); 3] = [
    ("50 %", None),
    ("4:8", Some(Pattern::NOfM { keep: 4, of: 8 })),
    ("2:4", Some(Pattern::NOfM { keep: 2, of: 4 })),
];

/// The methods in the order of the table, each with the pattern it was published with for 50 %.
const CONTENDERS: [(Method, Update, Pattern); 4] = [
    (Method::Magnitude, Update::None, Pattern::PerLayer(0.5)),
    (Method::Wanda, Update::None, Pattern::PerOutput(0.5)),
    (Method::SparseGpt, Update::Obs, Pattern::PerLayer(0.5)),
    (Method::Wanda, Update::Obs, Pattern::PerOutput(0.5)),
];

/// Every method at every one of the [`SPARSITIES`], method by method.
pub fn recipes() -> Vec<Recipe> {
    CONTENDERS
        .iter()
        .flat_map(|&(method, update, half)| {
            SPARSITIES
                .map(|(_, pattern)| Recipe::published(method, update, pattern.unwrap_or(half)))
        })
        .collect()
}

/// What the methods gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub model: String,
    pub seed: u64,
    pub calibration: Text,
    pub evaluation: Text,
    pub dense_perplexity: f64,
    /// Method by method, each at 50 %, 4:8 and 2:4.
    pub runs: Vec<Run>,
    pub seconds: f64,
    /// `None` where the operating system does not say.
    pub peak_memory_bytes: Option<u64>,
}

/// One pruned model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    #[serde(flatten)]
    pub recipe: Recipe,
    pub perplexity: f64,
    /// The fraction of zeros in the pruned layers.
    pub sparsity: f64,
    pub seconds: RunSeconds,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunSeconds {
    /// Forward passes and statistics.
    pub calibrate: f64,
    pub prune: f64,
    pub evaluate: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_at_every_sparsity() {
        let recipes: Vec<String> = recipes().iter().map(Recipe::to_string).collect();
        assert_eq!(
            recipes,
            [
                "magnitude, per-layer:0.5",
                "magnitude, 4:8",
                "magnitude, 2:4",
                "wanda, 0.5",
                "wanda, 4:8",
                "wanda, 2:4",
                "sparsegpt, per-layer:0.5",
                "sparsegpt, 4:8",
                "sparsegpt, 2:4",
                "wanda-obs, 0.5",
                "wanda-obs, 4:8",
                "wanda-obs, 2:4",
            ]
        );
    }
}
