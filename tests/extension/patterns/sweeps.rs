//! Patterns and updates of users, and boxes of ours, in a sweep.

use std::ops::Range;

use wanda::pattern::project_rows;
use wanda::{
    Gram, Mask, MaskRow, Obs, ObsSweep, Pattern, Pruner, Result, RowRule, Rows, SparsityPattern,
    WeightUpdate,
};

use super::{KeepOfRow, WholeColumns};
use crate::common::layer::{correlated_inputs, gram_of, normal_weights};

const ROWS: usize = 11;
const COLUMNS: usize = 13;

fn stats() -> Gram {
    gram_of(&correlated_inputs::<f32>((50, COLUMNS), 1))
}

/// The mask that a sweep in blocks of four columns gives.
fn swept(pattern: &dyn SparsityPattern) -> Result<Mask> {
    let w = normal_weights::<f32>((ROWS, COLUMNS), 1);
    Pruner::new(Obs::new(), pattern)
        .update(ObsSweep::new().block_size(4))
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
fn a_users_row_rule_decides_the_rows_of_a_block() {
    let mask = swept(&KeepOfRow { keep: 1 }).expect("a fine layer");
    assert_eq!(left(&mask, 4), vec![vec![1; 4]; ROWS]);
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

/// Keeps the highest score of every run of columns.
#[derive(Debug, Clone, Copy)]
struct BestOf {
    run: usize,
    /// Whether a block is asked to be whole runs.
    whole: bool,
}

impl SparsityPattern for BestOf {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        project_rows(self, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
        Some(Box::new(*self))
    }

    fn block_columns(&self) -> usize {
        if self.whole { self.run } else { 1 }
    }
}

impl RowRule for BestOf {
    fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
        for (i, run) in scores.chunks(self.run).enumerate() {
            marks.mark_lowest(i * self.run, run, run.len() - 1);
        }
    }

    fn group(&self) -> Option<usize> {
        Some(self.run)
    }
}

#[test]
fn a_users_rule_for_groups_decides_every_group() {
    for run in [1, 2, 3, 5, 13, 20] {
        let mask = swept(&BestOf { run, whole: true }).expect("a fine layer");
        let runs = COLUMNS.div_ceil(run);
        assert_eq!(left(&mask, run), vec![vec![1; runs]; ROWS], "{run}");
    }
}

/// Runs are counted from column 0, so it is for the sweep to see that blocks are whole runs.
#[test]
fn a_users_rule_for_groups_need_not_ask_for_whole_groups() {
    for run in [3, 5] {
        let mask = swept(&BestOf { run, whole: false }).expect("a fine layer");
        let runs = COLUMNS.div_ceil(run);
        assert_eq!(left(&mask, run), vec![vec![1; runs]; ROWS], "{run}");
    }
}

/// Says of its blocks or groups that they have no columns.
#[derive(Debug, Clone, Copy)]
struct NoColumns {
    block: usize,
    group: Option<usize>,
}

impl SparsityPattern for NoColumns {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        project_rows(self, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
        Some(Box::new(*self))
    }

    fn block_columns(&self) -> usize {
        self.block
    }
}

impl RowRule for NoColumns {
    fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, scores.len() / 2);
    }

    fn group(&self) -> Option<usize> {
        self.group
    }
}

#[test]
fn blocks_and_groups_of_no_columns_are_no_reason_to_panic() {
    for (block, group) in [(1, Some(0)), (0, None), (0, Some(0))] {
        // Decided or refused.
        match swept(&NoColumns { block, group }) {
            Ok(mask) => assert_eq!(mask.dim(), (ROWS, COLUMNS)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
