//! Patterns and metrics of users that say enough of themselves to be decided while they are scored
//! give what they give without.

use std::cmp::Ordering;
use std::ops::Range;

use wanda::ndarray::Array2;
use wanda::pattern::mark_rows;
use wanda::{
    ComparisonGroup, ImportanceMetric, Magnitude, Mask, NoStats, Pruner, Result, Rows,
    SparsityPattern,
};

use crate::metrics::Weighted;

const ROWS: usize = 9;
const COLUMNS: usize = 203;

/// Weights of which many are equal.
fn weights() -> Array2<f32> {
    Array2::from_shape_fn((ROWS, COLUMNS), |(row, column)| {
        let size = ((row * 31 + column * 17) % 23) as f32;
        if column % 3 == 0 { -size } else { size }
    })
}

/// What pruning makes of the weights, and of the same with a mask decided beforehand.
pub(crate) fn pruned_and_masked(
    metric: &dyn ImportanceMetric,
    pattern: &dyn SparsityPattern,
) -> (Array2<f32>, Array2<f32>) {
    let pruner = Pruner::new(metric, pattern);
    let mask = pruner.mask(&weights(), &NoStats).expect("a fine layer");
    let masked = Array2::from_shape_fn((ROWS, COLUMNS), |(row, column)| {
        if mask.get(row, column) == Some(true) {
            0.0
        } else {
            weights()[[row, column]]
        }
    });
    let mut at_once = weights();
    let report = pruner.prune(&mut at_once, &NoStats).expect("a fine layer");
    assert_eq!(report.pruned(), mask.count());
    (at_once, masked)
}

/// Prunes the lowest of every run of columns, all but one.
#[derive(Debug, Clone, Copy)]
struct BestOf(usize);

impl SparsityPattern for BestOf {
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Run(self.0))
    }

    fn count(&self, size: usize) -> usize {
        size.saturating_sub(1)
    }
}

#[test]
fn groups_that_lose_their_lowest() {
    for size in [1, 2, 3, 4, 8, 16, 32, 64, 150, 300] {
        let (pruned, masked) = pruned_and_masked(&Magnitude, &BestOf(size));
        assert_eq!(pruned, masked, "{size}");
        assert!(pruned.iter().any(|&w| w != 0.0), "{size}");
    }
}

#[test]
fn groups_of_no_columns_are_no_reason_to_panic() {
    let pruner = Pruner::new(Magnitude, BestOf(0));
    assert!(pruner.prune(&mut weights(), &NoStats).is_ok());
}

/// Prunes so many of the whole layer.
#[derive(Debug, Clone, Copy)]
struct OfLayer(usize);

impl SparsityPattern for OfLayer {
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Layer)
    }

    fn count(&self, _: usize) -> usize {
        self.0
    }
}

#[test]
fn layers_lose_any_number_of_weights() {
    const ALL: usize = ROWS * COLUMNS;
    for count in [0, 1, 2, 79, 80, ALL / 2, ALL - 1, ALL, ALL + 1, usize::MAX] {
        for metric in [&Magnitude as &dyn ImportanceMetric, &Weighted::Code] {
            let (pruned, masked) = pruned_and_masked(metric, &OfLayer(count));
            assert_eq!(pruned, masked, "{count}");
            let pruner = Pruner::new(metric, OfLayer(count));
            let mask = pruner.mask(&weights(), &NoStats).expect("a fine layer");
            assert_eq!(mask.count(), count.min(ALL));
        }
    }
}

/// Prunes up to a place that is known beforehand.
#[derive(Debug, Clone, Copy)]
struct UpTo {
    threshold: f32,
    /// A row and a column: of the scores that equal the threshold, those go that stand in a column
    /// before this one, or in this column in a row before this one.
    ties_before: (usize, usize),
}

impl SparsityPattern for UpTo {
    fn project(&self, scores: &dyn Rows<f32>, _: Range<usize>) -> Result<Mask> {
        let (edge_row, edge) = self.ties_before;
        mark_rows(scores, |row, scores, marks| {
            marks.fill(|column| match scores[column].partial_cmp(&self.threshold) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => (column, row) < (edge, edge_row),
                _ => false,
            });
        })
    }
}

#[test]
fn layers_are_cut_at_any_place() {
    for threshold in [-1.0, 0.0, 7.0, 7.5, 100.0, f32::INFINITY, f32::NAN] {
        for ties_before in [
            (0, 0),
            (3, 0),
            (4, 64),
            (0, 65),
            (ROWS, 202),
            (0, COLUMNS),
            (usize::MAX, usize::MAX),
        ] {
            let cut = UpTo {
                threshold,
                ties_before,
            };
            let magnitudes = weights().mapv(f32::abs);
            let expected = Mask::from_fn(ROWS, COLUMNS, |row, column| {
                let score = magnitudes[[row, column]];
                let (edge_row, edge) = ties_before;
                let ties = column < edge || (column == edge && row < edge_row);
                // Nothing equals a threshold that is not a number.
                #[allow(clippy::float_cmp, reason = "ties are meant")]
                let equal = score == threshold;
                score < threshold || (equal && ties)
            });
            let mask = Pruner::new(Magnitude, cut).mask(&weights(), &NoStats);
            assert_eq!(mask, expected, "{cut:?}");
            for metric in [&Magnitude as &dyn ImportanceMetric, &Weighted::Code] {
                let (pruned, masked) = pruned_and_masked(metric, &cut);
                assert_eq!(pruned, masked, "{cut:?}");
            }
        }
    }
}
