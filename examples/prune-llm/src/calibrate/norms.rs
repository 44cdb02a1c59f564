//! Inputs whose norms stand out: what makes the difference between magnitude and activations.

use super::inputs::InputStats;
use crate::model::module_name;
use serde::{Deserialize, Serialize};
use wanda::ActivationStats;

/// How many times the median a norm has to be to stand out.
pub const OUTLIER_FACTOR: f64 = 5.0;

/// How the norms of one input's features are spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputNorms {
    /// The first of the layers that read this input.
    pub name: String,
    /// The modules of all layers that read it.
    pub readers: Vec<String>,
    pub features: usize,
    pub median: f64,
    pub largest: f64,
    /// The feature that has the largest norm.
    pub largest_feature: usize,
    /// Features whose norm is more than [`OUTLIER_FACTOR`] times the median.
    pub outliers: usize,
}

impl InputNorms {
    /// How many times the median the largest norm is; `None` where most features are dead.
    pub fn ratio(&self) -> Option<f64> {
        (self.median > 0.0).then(|| self.largest / self.median)
    }

    fn new(name: String, readers: &[&str], sums: &[f64]) -> Option<Self> {
        let norms = sums.iter().map(|sum| sum.sqrt());
        let mut ranked: Vec<(usize, f64)> = norms.enumerate().collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
        let &(_, median) = ranked.get(ranked.len() / 2)?;
        let &(largest_feature, largest) = ranked.last()?;
        Some(Self {
            name,
            readers: readers.iter().map(ToString::to_string).collect(),
            features: ranked.len(),
            median,
            largest,
            largest_feature,
            outliers: ranked
                .iter()
                .filter(|(_, norm)| *norm > OUTLIER_FACTOR * median)
                .count(),
        })
    }
}

/// Of the inputs of a block that there are statistics of.
pub fn norms_of_block(block: usize, stats: &InputStats<'_>) -> impl Iterator<Item = InputNorms> {
    stats.known().filter_map(move |(readers, stats)| {
        let name = module_name(block, readers.first()?);
        InputNorms::new(name, &readers, stats.sums_of_squares())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_out_is_counted() {
        let norms = |sums: &[f64]| InputNorms::new(String::new(), &[], sums);
        let found = norms(&[1.0, 4.0, 1.0, 2500.0, 25.0, 1.0, 36.0]).unwrap();
        assert_eq!(
            (found.median, found.largest, found.largest_feature),
            (2.0, 50.0, 3)
        );
        assert_eq!((found.features, found.outliers), (7, 1));
        assert_eq!(found.ratio(), Some(25.0));
        assert_eq!(norms(&[0.0, 0.0, 1.0]).unwrap().ratio(), None);
        assert_eq!(norms(&[]), None);
    }
}
