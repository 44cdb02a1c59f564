//! Patterns and updates of users, and boxes of ours, in a sweep.

use std::ops::Range;

use wanda::{
    ComparisonGroup, Gram, Mask, Obs, ObsSweep, Pattern, Pruner, Result, SparsityPattern,
    WeightUpdate,
};

use super::{KeepOfRow, WholeColumns, row_by_row};
use crate::common::layer::{correlated_inputs, gram_of, normal_weights};

const ROWS: usize = 11;
const COLUMNS: usize = 13;

fn stats() -> Gram {
    gram_of(&correlated_inputs::<f32>((50, COLUMNS), 1))
}

/// The mask that a sweep in blocks of four columns gives.
fn swept(pattern: &dyn SparsityPattern) -> Result<Mask> {
    swept_in_blocks(pattern, 4)
}

fn swept_in_blocks(pattern: &dyn SparsityPattern, columns: usize) -> Result<Mask> {
    let w = normal_weights::<f32>((ROWS, COLUMNS), 1);
    Pruner::new(Obs::new(), pattern)
        .update(ObsSweep::new().block_size(columns))
        .mask(&w, &stats())
}

/// How many weights of every row the mask leaves in each run of `len` columns.
fn left(mask: &Mask, len: usize) -> Vec<Vec<usize>> {
    let runs: Vec<Range<usize>> = (0..COLUMNS)
        .step_by(len)
        .map(|start| start..COLUMNS.min(start + len))
        .collect();
    let left = |row, run: &Range<usize>| {
        let kept = run
            .clone()
            .filter(|&column| mask.get(row, column) == Some(false));
        kept.count()
    };
    (0..ROWS)
        .map(|row| runs.iter().map(|run| left(row, run)).collect())
        .collect()
}

#[test]
fn the_sweep_works_behind_references_and_boxes() {
    let sweep = |update: &dyn WeightUpdate| {
        let mut w = normal_weights::<f32>((ROWS, COLUMNS), 1);
        let report = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
            .update(update)
            .prune(&mut w, &stats())
            .expect("a fine layer");
        (w, report.pruned(), report.damping())
    };
    let plain = sweep(&ObsSweep::new());
    assert_eq!(plain.1, ROWS * 6);
    let boxed: Box<dyn WeightUpdate> = Box::new(ObsSweep::new());
    assert_eq!(sweep(&boxed), plain);
    assert_eq!(sweep(&&boxed), plain);
}

#[test]
fn a_users_code_for_rows_decides_the_rows_of_a_block() {
    let best = row_by_row(|scores, marks| marks.mark_lowest(0, scores, scores.len() - 1));
    let mask = swept(&best).expect("a fine layer");
    assert_eq!(left(&mask, 4), vec![vec![1; 4]; ROWS]);
}

/// What goes up to the end of a block, less what goes up to its start, adds up.
#[test]
fn a_users_count_of_rows_is_exact_over_all_blocks() {
    for keep in [0, 1, 5, 13] {
        let mask = swept(&KeepOfRow { keep }).expect("a fine layer");
        assert_eq!(left(&mask, COLUMNS), vec![vec![keep]; ROWS], "{keep}");
    }
}

#[test]
fn a_users_pattern_decides_a_block_like_a_layer() {
    let mask = swept(&WholeColumns { columns: 1 }).expect("a fine layer");
    assert_eq!(mask.count(), 4 * ROWS);
    let columns = (0..COLUMNS).filter(|&column| mask.get(0, column) == Some(true));
    for column in columns {
        assert!((0..ROWS).all(|row| mask.get(row, column) == Some(true)));
    }
}

/// Keeps the highest score of every group.
#[derive(Debug, Clone, Copy)]
struct BestOf(ComparisonGroup);

impl SparsityPattern for BestOf {
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(self.0)
    }

    fn count(&self, size: usize) -> usize {
        size.saturating_sub(1)
    }
}

/// Runs are counted from column 0, so it is for the sweep to see that blocks are whole runs.
#[test]
fn a_users_pattern_of_runs_decides_every_run() {
    for run in [1, 2, 3, 5, 13, 20] {
        for block in [1, 3, 4, 7, 128] {
            let pattern = BestOf(ComparisonGroup::Run(run));
            let mask = swept_in_blocks(&pattern, block).expect("a fine layer");
            let runs = COLUMNS.div_ceil(run);
            let expected = vec![vec![1; runs]; ROWS];
            assert_eq!(
                left(&mask, run),
                expected,
                "runs of {run}, blocks of {block}"
            );
        }
    }
}

/// Groups without columns are groups of one.
#[test]
fn groups_of_no_columns_are_no_reason_to_panic() {
    let blocks = |rows, columns| ComparisonGroup::Blocks { rows, columns };
    let mask = swept(&BestOf(ComparisonGroup::Run(0))).expect("a fine layer");
    assert_eq!(mask.count(), 0);
    for (empty, of_one) in [((0, 0), (1, 1)), ((0, 3), (1, 3)), ((5, 0), (5, 1))] {
        let mask = swept(&BestOf(blocks(empty.0, empty.1))).expect("a fine layer");
        let expected = swept(&BestOf(blocks(of_one.0, of_one.1)));
        assert_eq!(Ok(mask), expected, "{empty:?}");
    }
}
