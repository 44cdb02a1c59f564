//! Layers row by row: checked, scored and decided, pruned.
//!
//! Rows go to threads in runs. How many a run has depends on the shape of the layer alone, so that
//! what is summed over runs has the same bits on any number of threads.

use ndarray::{ArrayRef2, ArrayView1, ArrayViewMut1, Axis};
use num_traits::Float;

use super::cost::Gauge;
use crate::element::{Element, Real, widened};
use crate::error::{Error, Result};
use crate::kernels::{self, RowCost};
use crate::mask::{Mask, MaskRow, words_for};
use crate::metric::Scorer;
use crate::parallel::{self, rows_a_task};
use crate::pattern::RowRule;

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

    fn total(parts: &[Self]) -> Self {
        let mut total = Self::default();
        for part in parts {
            total.add(part);
        }
        total
    }
}

/// Columns that go through all steps together, where a pattern allows it: few enough for all that
/// belongs to them to stay in the fastest cache. A multiple of 64.
const CHUNK: usize = 1024;

/// Scores, decides and prunes in one go.
pub(super) fn prune<A: Element>(
    w: &mut ArrayRef2<A>,
    scorer: &dyn Scorer<A::Compute>,
    rule: &dyn RowRule<A::Compute>,
    gauge: &Gauge,
) -> Outcome {
    let (rows, columns) = w.dim();
    let width = match rule.group() {
        Some(group) => group.saturating_mul(CHUNK.div_ceil(group)).min(columns),
        None => columns,
    };
    let height = rows_a_task(rows, columns);
    let parts = parallel::map(
        w.axis_chunks_iter_mut(Axis(0), height)
            .enumerate()
            .collect(),
        Scratch::new,
        |scratch, (i, mut run)| {
            let mut outcome = Outcome::default();
            for (row, mut weights) in run.rows_mut().into_iter().enumerate() {
                let chunks = weights.axis_chunks_iter_mut(Axis(0), width);
                for (chunk, mut weights) in chunks.enumerate() {
                    let start = chunk * width;
                    scratch.decide(i * height + row, start, &weights.view(), scorer, rule);
                    let Scratch { widened, marks, .. } = &mut *scratch;
                    outcome.add(&finish(&mut weights, marks, start, gauge, widened));
                }
            }
            outcome
        },
    );
    Outcome::total(&parts)
}

/// Prunes the weights that `mask` marks.
pub(super) fn apply<A: Element>(mask: &Mask, w: &mut ArrayRef2<A>, gauge: &Gauge) -> Outcome {
    let (rows, columns) = w.dim();
    let height = rows_a_task(rows, columns);
    let parts = parallel::map(
        w.axis_chunks_iter_mut(Axis(0), height)
            .enumerate()
            .collect(),
        Vec::new,
        |buffer, (i, mut run)| {
            let mut outcome = Outcome::default();
            for (row, mut weights) in run.rows_mut().into_iter().enumerate() {
                let marks = mask.row_words(i * height + row);
                outcome.add(&finish(&mut weights, marks, 0, gauge, buffer));
            }
            outcome
        },
    );
    Outcome::total(&parts)
}

/// Zeroes the marked ones of a run of weights, which starts at column `start`. Says what that did.
fn finish<A: Element>(
    weights: &mut ArrayViewMut1<'_, A>,
    marks: &[u64],
    start: usize,
    gauge: &Gauge,
    buffer: &mut Vec<A::Compute>,
) -> Outcome {
    let mut outcome = Outcome::default();
    // While this run is finished, the next one but for its beginning is fetched, and the beginning
    // of the one after it.
    let ahead = weights.len() + CHUNK;
    // Chunk by chunk, so that what is read for the cost is still at hand to be zeroed.
    let chunks = weights.axis_chunks_iter_mut(Axis(0), CHUNK);
    for ((i, mut weights), marks) in chunks.enumerate().zip(marks.chunks(CHUNK / 64)) {
        if let Some(run) = weights.as_slice() {
            kernels::prefetch_after(run, ahead);
        }
        let first = start + i * CHUNK;
        // Without statistics there is no cost to be known.
        if let Some(energies) = gauge.energies.get(first..first + weights.len()) {
            let run = widened(&weights.view(), buffer);
            outcome
                .cost
                .add(kernels::row_cost(run, gauge.weight_scale, energies, marks));
        }
        outcome.zeros += kernels::zero_marked(&mut weights, marks);
        outcome.pruned += marks
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum::<usize>();
    }
    outcome
}

/// The memory a thread works in.
struct Scratch<T> {
    widened: Vec<T>,
    scores: Vec<T>,
    marks: Vec<u64>,
}

impl<T: Real> Scratch<T> {
    fn new() -> Self {
        Self {
            widened: Vec::new(),
            scores: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Marks what is to be pruned of a run of weights, which stands in `row` from column `start`
    /// on.
    fn decide<A: Element<Compute = T>>(
        &mut self,
        row: usize,
        start: usize,
        weights: &ArrayView1<'_, A>,
        scorer: &dyn Scorer<T>,
        rule: &dyn RowRule<T>,
    ) {
        let run = widened(weights, &mut self.widened);
        let out = kernels::aligned(&mut self.scores, run.len());
        scorer.score(row, start, run, out);
        self.marks.clear();
        self.marks.resize(words_for(run.len()), 0);
        rule.select(out, &mut MaskRow::new(&mut self.marks, run.len()));
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
            rows.rows().into_iter().fold(A::ZERO, |largest, row| {
                kernels::largest(&[largest, kernels::largest(contiguous(&row, buffer))])
            })
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

/// A row as a run: the row itself where it is one, else a copy.
fn contiguous<'a, A: Copy>(row: &'a ArrayView1<'_, A>, buffer: &'a mut Vec<A>) -> &'a [A] {
    if let Some(run) = row.as_slice() {
        return run;
    }
    buffer.clear();
    buffer.extend(row);
    buffer
}
