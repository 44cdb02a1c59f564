//! Layers row by row: checked, scored and decided, pruned.
//!
//! Rows go to threads in runs. How many a run has depends on the shape of the layer alone, so that
//! what is summed over runs has the same bits on any number of threads.

use ndarray::{ArrayRef2, ArrayView1, ArrayViewMut2, Axis, s};
use num_traits::Float;

use super::cost::Gauge;
use crate::element::{Element, Real, widened, widened_run};
use crate::error::{Error, Result};
use crate::kernels::{self, RowCost, Scaled, Stream, WORD};
use crate::mask::{Mask, MaskRow, words_for};
use crate::matrix::{change_row, stride};
use crate::metric::Scorer;
use crate::parallel::{self, rows_a_task};
use crate::pattern::{LayerCut, RowRule};

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

/// Columns that go through all steps together, where a pattern allows it: few enough for all that
/// belongs to them to stay in the fastest cache. A multiple of 64.
const CHUNK: usize = 1024;

/// Rows that go through each step together, so that what belongs to a column is read once for all
/// of them. They stay in the second cache, and so do the next ones, which are fetched meanwhile.
const TOGETHER: usize = 4;

/// Scores, decides and prunes in one go.
pub(super) fn prune<A: Element>(
    w: &mut ArrayRef2<A>,
    scorer: &dyn Scorer<A::Compute>,
    rule: Rule<'_, A::Compute>,
    gauge: &Gauge,
) -> Outcome {
    let columns = w.ncols();
    let width = rule.group().map_or(columns, |group| {
        let group = group.max(1);
        group.saturating_mul(CHUNK.div_ceil(group)).min(columns)
    });
    let decision = Decision {
        scorer,
        rule,
        factors: scorer.factors(),
    };
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
                decider.mark((row + j, i * width), &weights, &decision, marks);
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
    for (i, mut few) in few.axis_chunks_iter_mut(Axis(1), CHUNK).enumerate() {
        let first = start + i * CHUNK;
        // Without statistics there is no cost to be known.
        let energies = gauge
            .energies
            .get(first..first + few.ncols())
            .unwrap_or(&[]);
        for (mut weights, marks) in few.rows_mut().into_iter().zip(marks.chunks_exact(words)) {
            let marks = &marks[i * (CHUNK / WORD)..];
            let (zeros, cost) = change_row(&mut weights, buffer, |run| {
                kernels::zero_marked(run, marks, gauge.weight_scale, energies, ahead)
            });
            outcome.zeros += zeros;
            outcome.cost.add(cost);
        }
    }
    outcome
}

/// Which weights of a row go.
#[derive(Clone, Copy)]
pub(super) enum Rule<'a, T> {
    /// What is said of the row alone.
    Row(&'a dyn RowRule<T>),
    /// What is said of the whole layer.
    Layer(LayerCut<T>),
}

impl<T: Real> Rule<'_, T> {
    fn group(&self) -> Option<usize> {
        match self {
            Self::Row(rule) => rule.group(),
            Self::Layer(_) => None,
        }
    }
}

/// How rows are decided.
struct Decision<'a, T> {
    scorer: &'a dyn Scorer<T>,
    rule: Rule<'a, T>,
    /// The factors that magnitudes are multiplied by, if those are the scores.
    factors: Option<&'a [T]>,
}

impl<'a, T: Real> Decision<'a, T> {
    /// A run of weights from column `start` on with the factors of its scores, if they have any.
    fn scaled<A: Element<Compute = T>>(
        &self,
        start: usize,
        weights: &'a [A],
    ) -> Option<Scaled<'a, A>> {
        let factors = self.factors?.get(start..start + weights.len())?;
        Some(Scaled { weights, factors })
    }
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
            decider: Decider {
                widened: Vec::new(),
                scores: Vec::new(),
                stream: Stream::new(),
            },
            marks: Vec::new(),
            stored: Vec::new(),
        }
    }
}

/// The memory that rows are decided in.
struct Decider<T> {
    widened: Vec<T>,
    scores: Vec<T>,
    stream: Stream<T>,
}

impl<T: Real> Decider<T> {
    /// Marks what is to be pruned of a run of weights, which begins at `place`, a row and a column.
    /// What was marked before is forgotten.
    fn mark<A: Element<Compute = T>>(
        &mut self,
        place: (usize, usize),
        weights: &ArrayView1<'_, A>,
        decision: &Decision<'_, T>,
        marks: &mut [u64],
    ) {
        let decided = weights
            .as_slice()
            .map_or(0, |run| self.mark_in_passing(place, run, decision, marks));
        if decided == weights.len() {
            return;
        }
        let (row, start) = (place.0, place.1 + decided);
        let rest = weights.slice(s![decided..]);
        let run = widened(&rest, &mut self.widened);
        let scores = kernels::aligned(&mut self.scores, run.len());
        decision.scorer.score(row, start, run, scores);
        let marks = &mut marks[decided / WORD..];
        marks.fill(0);
        match decision.rule {
            Rule::Row(rule) => rule.select(scores, &mut MaskRow::new(marks, run.len())),
            Rule::Layer(cut) => cut.mark(row, scores, marks),
        }
    }

    /// Marks what is to be pruned of a run of weights while they are scored, if that can be done.
    /// Returns how many of the weights are decided.
    fn mark_in_passing<A: Element<Compute = T>>(
        &mut self,
        place: (usize, usize),
        run: &[A],
        decision: &Decision<'_, T>,
        marks: &mut [u64],
    ) -> usize {
        let rule = match decision.rule {
            Rule::Row(rule) => rule,
            Rule::Layer(cut) => return mark_up_to(place, run, decision, cut, marks),
        };
        let reach = rule.group().unwrap_or(run.len());
        let Some(count) = rule.lowest(reach).filter(|n| (1..reach).contains(n)) else {
            return 0;
        };
        let Some(of) = rule.group() else {
            let done = self.mark_stream(place, run, decision, count, marks);
            return if done { run.len() } else { 0 };
        };
        let whole = kernels::whole_words(run.len(), of);
        let Some(scores) = decision.scaled(place.1, &run[..whole]) else {
            return 0;
        };
        kernels::mark_lowest_of_scaled_groups(scores, of - count, of, marks);
        whole
    }

    /// Marks the `count` lowest of a run of weights while they are scored. Returns whether that
    /// succeeded, as it mostly does.
    fn mark_stream<A: Element<Compute = T>>(
        &mut self,
        (row, start): (usize, usize),
        run: &[A],
        decision: &Decision<'_, T>,
        count: usize,
        marks: &mut [u64],
    ) -> bool {
        let mut score = |from: usize, out: &mut [T]| {
            let weights = widened_run(&run[from..from + out.len()], &mut self.widened);
            decision.scorer.score(row, start + from, weights, out);
        };
        self.stream.begin(run.len(), count, |places, sample| {
            if let Some(scores) = decision.scaled(start, run) {
                kernels::sample_scaled(scores, places, sample);
                return;
            }
            for (from, run) in places.of_runs(sample) {
                score(from, run);
            }
        });
        for from in (0..run.len()).step_by(CHUNK) {
            let len = CHUNK.min(run.len() - from);
            let marks = &mut marks[from / WORD..][..words_for(len)];
            if let Some(scores) = decision.scaled(start + from, &run[from..from + len]) {
                self.stream.add_scaled(scores, marks);
                continue;
            }
            let chunk = kernels::aligned(&mut self.scores, len);
            score(from, chunk);
            self.stream.add(chunk, marks);
        }
        self.stream.finish(marks)
    }
}

/// Marks what a cut of the layer takes of a whole row. Returns how many weights are decided.
fn mark_up_to<A: Element>(
    (row, start): (usize, usize),
    run: &[A],
    decision: &Decision<'_, A::Compute>,
    cut: LayerCut<A::Compute>,
    marks: &mut [u64],
) -> usize {
    marks.fill(0);
    let end = cut.ties_end(row).min(run.len());
    let (before, after) = run.split_at(end);
    for (first, run, ties) in [(0, before, usize::MAX), (end, after, 0)] {
        let Some(scores) = decision.scaled(start + first, run) else {
            return 0;
        };
        kernels::mark_scaled_up_to_cut(scores, cut.threshold, ties, marks, first);
    }
    run.len()
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
