//! Layers row by row: checked, decided and pruned.
//!
//! Rows go to threads in runs. How many a run has depends on the shape of the layer alone, so that
//! what is summed over runs has the same bits on any number of threads.

use ndarray::{ArrayRef2, ArrayView1, ArrayViewMut2, Axis};
use num_traits::Float;

use super::cost::Gauge;
use super::decider::{COLUMNS_AT_ONCE, Decider, Deciding};
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::kernels::{self, RowCost};
use crate::mask::{Mask, words_for};
use crate::matrix::{change_row, stride};
use crate::parallel::{self, rows_a_task};
use crate::simd::WORD;

/// What became of some rows.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) pruned: usize,
    pub(super) zeros: usize,
    pub(super) cost: RowCost,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.pruned += other.pruned;
        self.zeros += other.zeros;
        self.cost.add(other.cost);
    }
}

/// Rows that go through each step together, so that what belongs to a column is read once for all
/// of them. They stay in the second cache, and so do the next ones, which are fetched meanwhile.
const TOGETHER: usize = 4;

/// Scores, decides and prunes in one go.
pub(super) fn prune<A: Element>(
    w: &mut ArrayRef2<A>,
    deciding: &Deciding<'_, A::Compute>,
    gauge: &Gauge,
) -> Outcome {
    let columns = w.ncols();
    let width = deciding.rule.group().map_or(columns, |group| {
        let groups = COLUMNS_AT_ONCE.div_ceil(group);
        group.saturating_mul(groups).min(columns)
    });
    for_each_few_rows(w, Scratch::new, |scratch, row, few| {
        let mut outcome = Outcome::default();
        for (i, mut few) in few.axis_chunks_iter_mut(Axis(1), width).enumerate() {
            let Scratch {
                decider,
                marks,
                stored,
            } = &mut *scratch;
            let words = words_for(few.ncols());
            let len = few.nrows() * words;
            if marks.len() < len {
                marks.resize(len, 0);
            }
            let marks = &mut marks[..len];
            let runs = few.rows().into_iter().zip(marks.chunks_exact_mut(words));
            for (j, (weights, marks)) in runs.enumerate() {
                decider.mark((row + j, i * width), &weights, deciding, marks);
            }
            outcome.add(&finish(&mut few, marks, i * width, gauge, stored));
        }
        outcome
    })
}

/// Prunes the weights that `mask` marks.
pub(super) fn apply<A: Element>(mask: &Mask, w: &mut ArrayRef2<A>, gauge: &Gauge) -> Outcome {
    for_each_few_rows(w, Vec::new, |buffer, row, few| {
        let marks = mask.words_of_rows(row..row + few.nrows());
        finish(few, marks, 0, gauge, buffer)
    })
}

/// Works on a few rows at a time, on all threads, given the number of the first.
fn for_each_few_rows<A: Element, S>(
    w: &mut ArrayRef2<A>,
    scratch: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, usize, &mut ArrayViewMut2<'_, A>) -> Outcome + Send + Sync,
) -> Outcome {
    let (rows, columns) = w.dim();
    let height = rows_a_task(rows, columns).next_multiple_of(TOGETHER);
    let tasks = w.axis_chunks_iter_mut(Axis(0), height).enumerate();
    let parts = parallel::map(tasks.collect(), scratch, |scratch, (i, mut run)| {
        let mut outcome = Outcome::default();
        for (j, mut few) in run.axis_chunks_iter_mut(Axis(0), TOGETHER).enumerate() {
            outcome.add(&work(scratch, i * height + j * TOGETHER, &mut few));
        }
        outcome
    });
    let mut total = Outcome::default();
    for part in &parts {
        total.add(part);
    }
    total
}

/// Zeroes the marked ones of the weights of a few rows from column `start` on, and says what that
/// did. `marks` are those of one row after the other, each from a new word on.
fn finish<A: Element>(
    few: &mut ArrayViewMut2<'_, A>,
    marks: &[u64],
    start: usize,
    gauge: &Gauge,
    buffer: &mut Vec<A>,
) -> Outcome {
    let mut outcome = Outcome {
        pruned: kernels::ones(marks),
        ..Outcome::default()
    };
    let ahead = TOGETHER * stride(few);
    let words = words_for(few.ncols());
    for (i, mut few) in few
        .axis_chunks_iter_mut(Axis(1), COLUMNS_AT_ONCE)
        .enumerate()
    {
        let first = start + i * COLUMNS_AT_ONCE;
        // Without statistics there is no cost to be known.
        let energies = gauge
            .energies
            .get(first..first + few.ncols())
            .unwrap_or(&[]);
        for (mut weights, marks) in few.rows_mut().into_iter().zip(marks.chunks_exact(words)) {
            let marks = &marks[i * (COLUMNS_AT_ONCE / WORD)..];
            let (zeros, cost) = change_row(&mut weights, buffer, |run| {
                kernels::zero_marked(run, marks, gauge.weight_scale, energies, ahead)
            });
            outcome.zeros += zeros;
            outcome.cost.add(cost);
        }
    }
    outcome
}

/// The memory a thread works in.
struct Scratch<A: Element> {
    decider: Decider<A::Compute>,
    marks: Vec<u64>,
    /// A row that is not a run, while it is zeroed.
    stored: Vec<A>,
}

impl<A: Element> Scratch<A> {
    fn new() -> Self {
        Self {
            decider: Decider::new(),
            marks: Vec::new(),
            stored: Vec::new(),
        }
    }
}

/// The largest magnitude of a weight.
///
/// # Errors
///
/// [`Error::NonFiniteWeight`] with the first weight, row by row, that is infinite or not a number.
pub(super) fn largest_weight<A: Element>(w: &ArrayRef2<A>) -> Result<A::Compute> {
    let height = rows_a_task(w.nrows(), w.ncols());
    let largest = parallel::map(
        w.axis_chunks_iter(Axis(0), height).collect(),
        Vec::new,
        |buffer, rows| {
            if let Some(run) = rows.as_slice() {
                return kernels::largest(run);
            }
            let mut largest = A::ZERO;
            for part in rows.axis_chunks_iter(Axis(1), COLUMNS_AT_ONCE) {
                for run in part.rows() {
                    let run = contiguous(&run, buffer);
                    largest = kernels::largest(&[largest, kernels::largest(run)]);
                }
            }
            largest
        },
    );
    let largest = kernels::largest(&largest).widen();
    if largest.is_finite() {
        return Ok(largest);
    }
    for (row, weights) in w.rows().into_iter().enumerate() {
        let mut values = weights.iter().map(|w| w.widen().as_f64()).enumerate();
        if let Some((column, value)) = values.find(|(_, value)| !value.is_finite()) {
            return Err(Error::NonFiniteWeight { row, column, value });
        }
    }
    Ok(largest)
}

/// A part of a row as a run: itself where it is one, else a copy.
fn contiguous<'a, A: Copy>(row: &'a ArrayView1<'_, A>, buffer: &'a mut Vec<A>) -> &'a [A] {
    if let Some(run) = row.as_slice() {
        return run;
    }
    buffer.clear();
    buffer.extend(row);
    buffer
}
