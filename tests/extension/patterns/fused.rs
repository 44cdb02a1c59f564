//! Patterns and metrics of users that say enough of themselves to be decided while they are scored
//! give what they give without.

use std::cmp::Ordering;

use wanda::ndarray::Array2;
use wanda::{
    ImportanceMetric, LayerCut, Magnitude, Mask, MaskRow, NoStats, Pruner, Result, RowRule, Rows,
    SparsityPattern,
};

use super::RowByRow;
use crate::metrics::Weighted;

const ROWS: usize = 9;
pub(crate) const COLUMNS: usize = 203;

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

/// Prunes the lowest of every group, all but one, and says so.
#[derive(Debug, Clone, Copy)]
struct BestOf(usize);

impl RowRule for BestOf {
    fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
        for (i, run) in scores.chunks(self.0.max(1)).enumerate() {
            marks.mark_lowest(i * self.0, run, run.len() - 1);
        }
    }

    fn group(&self) -> Option<usize> {
        Some(self.0)
    }

    fn lowest(&self, columns: usize) -> Option<usize> {
        Some(columns.saturating_sub(1))
    }
}

#[test]
fn groups_that_lose_their_lowest() {
    for size in [1, 2, 3, 4, 8, 16, 32, 64, 150, 300] {
        let (pruned, masked) = pruned_and_masked(&Magnitude, &RowByRow(BestOf(size)));
        assert_eq!(pruned, masked, "{size}");
        assert!(pruned.iter().any(|&w| w != 0.0), "{size}");
    }
}

#[test]
fn groups_of_no_columns_are_no_reason_to_panic() {
    let pruner = Pruner::new(Magnitude, RowByRow(BestOf(0)));
    assert!(pruner.prune(&mut weights(), &NoStats).is_ok());
}

/// Prunes up to a place that is known beforehand.
#[derive(Debug, Clone, Copy)]
struct UpTo(LayerCut<f32>);

impl SparsityPattern for UpTo {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        let mut all = Array2::zeros((rows, columns));
        for (row, mut scored) in all.rows_mut().into_iter().enumerate() {
            scores.read(row, 0, scored.as_slice_mut().expect("a run"))?;
        }
        let (edge_row, edge) = self.0.ties_before;
        Mask::from_fn(rows, columns, |row, column| {
            let comes_before = (column, row) < (edge, edge_row);
            match all[[row, column]].partial_cmp(&self.0.threshold) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => comes_before,
                _ => false,
            }
        })
    }

    fn layer_cut(&self, _: &dyn Rows<f32>) -> Result<Option<LayerCut<f32>>> {
        Ok(Some(self.0))
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
            let cut = LayerCut {
                threshold,
                ties_before,
            };
            for metric in [&Magnitude as &dyn ImportanceMetric, &Weighted { told: 0 }] {
                let (pruned, masked) = pruned_and_masked(metric, &UpTo(cut));
                assert_eq!(pruned, masked, "{cut:?}");
            }
        }
    }
}
