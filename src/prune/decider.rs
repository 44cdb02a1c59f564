//! Rows, decided: which of their weights go.

use ndarray::{ArrayView1, s};

use crate::element::{Element, Real, widened, widened_run};
use crate::kernels::{self, Scaled};
use crate::mask::{MaskRow, words_for};
use crate::metric::Prepared;
use crate::select::{self, LayerCut, Stream, mark_runs};
use crate::simd::WORD;

/// Columns that go through all steps together, where a pattern allows it: few enough for all that
/// belongs to them to stay in the fastest cache. A multiple of 64.
pub(super) const COLUMNS_AT_ONCE: usize = 1024;

/// Which weights of a row go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule<T> {
    /// So many, those with the lowest scores.
    Row { count: usize },
    /// So many of every run of `of` columns, and of the shorter one at the end of the row.
    Run {
        of: usize,
        count: usize,
        of_last: usize,
    },
    /// Those up to where the lowest of the whole layer end.
    Layer(LayerCut<T>),
}

impl<T> Rule<T> {
    /// How many columns are decided together, if not all of the row.
    pub(super) fn group(&self) -> Option<usize> {
        match *self {
            Self::Run { of, .. } => Some(of),
            Self::Row { .. } | Self::Layer(_) => None,
        }
    }
}

/// How rows are decided.
#[derive(Clone, Copy)]
pub(super) struct Deciding<'a, T: Real> {
    pub(super) prepared: &'a Prepared<'a, T>,
    pub(super) rule: Rule<T>,
}

/// A run of weights to decide, and where it begins.
#[derive(Clone, Copy)]
struct Run<'a, A: Element> {
    row: usize,
    start: usize,
    weights: &'a [A],
    /// The factors that magnitudes are multiplied by, if those are the scores.
    factors: Option<&'a [A::Compute]>,
}

impl<'a, A: Element> Run<'a, A> {
    /// A part of the run with the factors of its scores, if they have any.
    fn scaled(&self, from: usize, len: usize) -> Option<Scaled<'a, A>> {
        let factors = &self.factors?[from..from + len];
        let weights = &self.weights[from..from + len];
        Some(Scaled { weights, factors })
    }
}

/// The memory that rows are decided in.
pub(super) struct Decider<T> {
    factors: Vec<T>,
    memory: Memory<T>,
}

struct Memory<T> {
    widened: Vec<T>,
    scores: Vec<T>,
    stream: Stream<T>,
}

impl<T: Real> Decider<T> {
    pub(super) fn new() -> Self {
        Self {
            factors: Vec::new(),
            memory: Memory {
                widened: Vec::new(),
                scores: Vec::new(),
                stream: Stream::new(),
            },
        }
    }

    /// Marks what is to be pruned of a run of weights, which begins at `place`, a row and a column.
    /// What was marked before is forgotten.
    pub(super) fn mark<A: Element<Compute = T>>(
        &mut self,
        (row, start): (usize, usize),
        weights: &ArrayView1<'_, A>,
        deciding: &Deciding<'_, T>,
        marks: &mut [u64],
    ) {
        let Deciding { prepared, rule } = *deciding;
        let Self { factors, memory } = self;
        let decided = weights.as_slice().map_or(0, |run| {
            let columns = start..start + run.len();
            let run = Run {
                row,
                start,
                weights: run,
                factors: prepared.factors_of_row(row, columns, factors),
            };
            memory.mark_while_scoring(&run, deciding, marks)
        });
        if decided == weights.len() {
            return;
        }
        let rest = weights.slice(s![decided..]);
        let run = widened(&rest, &mut memory.widened);
        let scores = kernels::aligned(&mut memory.scores, run.len());
        prepared.score(row, start + decided, run, scores);
        let marks = &mut marks[decided / WORD..];
        marks.fill(0);
        match rule {
            Rule::Row { count } => MaskRow::new(marks, run.len()).mark_lowest(0, scores, count),
            Rule::Run { of, count, of_last } => mark_runs(scores, of, count, of_last, marks),
            Rule::Layer(cut) => cut.mark(row, scores, marks),
        }
    }
}

impl<T: Real> Memory<T> {
    /// Marks what is to be pruned of a run of weights while they are scored, if that can be done.
    /// Returns how many of the weights are decided.
    fn mark_while_scoring<A: Element<Compute = T>>(
        &mut self,
        run: &Run<'_, A>,
        deciding: &Deciding<'_, T>,
        marks: &mut [u64],
    ) -> usize {
        let len = run.weights.len();
        match deciding.rule {
            Rule::Row { count } if (1..len).contains(&count) => {
                let done = self.mark_stream(run, deciding.prepared, count, marks);
                if done { len } else { 0 }
            }
            Rule::Run { of, count, .. } if (1..of).contains(&count) => {
                let whole = select::whole_words(len, of);
                let Some(scores) = run.scaled(0, whole) else {
                    return 0;
                };
                select::mark_lowest_of_scaled_groups(scores, of - count, of, marks);
                whole
            }
            Rule::Row { .. } | Rule::Run { .. } => 0,
            Rule::Layer(cut) => mark_up_to(run, cut, marks),
        }
    }

    /// Marks the `count` lowest of a run of weights while they are scored. Returns whether that
    /// succeeded, as it mostly does.
    fn mark_stream<A: Element<Compute = T>>(
        &mut self,
        run: &Run<'_, A>,
        prepared: &Prepared<'_, T>,
        count: usize,
        marks: &mut [u64],
    ) -> bool {
        let len = run.weights.len();
        let mut score = |from: usize, out: &mut [T]| {
            let weights = &run.weights[from..from + out.len()];
            let weights = widened_run(weights, &mut self.widened);
            prepared.score(run.row, run.start + from, weights, out);
        };
        self.stream.begin(len, count, |places, sample| {
            if let Some(scores) = run.scaled(0, len) {
                select::sample_scaled(scores, places, sample);
                return;
            }
            for (from, out) in places.of_runs(sample) {
                score(from, out);
            }
        });
        for from in (0..len).step_by(COLUMNS_AT_ONCE) {
            let part = COLUMNS_AT_ONCE.min(len - from);
            let marks = &mut marks[from / WORD..][..words_for(part)];
            if let Some(scores) = run.scaled(from, part) {
                self.stream.add_scaled(scores, marks);
                continue;
            }
            let scores = kernels::aligned(&mut self.scores, part);
            score(from, scores);
            self.stream.add(scores, marks);
        }
        self.stream.finish(marks)
    }
}

/// Marks what a cut of the layer takes of a whole row. Returns how many weights are decided.
fn mark_up_to<A: Element>(run: &Run<'_, A>, cut: LayerCut<A::Compute>, marks: &mut [u64]) -> usize {
    marks.fill(0);
    let len = run.weights.len();
    let end = cut.ties_end(run.row).min(len);
    for (part, ties) in [(0..end, usize::MAX), (end..len, 0)] {
        let Some(scores) = run.scaled(part.start, part.len()) else {
            return 0;
        };
        select::mark_scaled_up_to_cut(scores, cut.threshold, ties, marks, part.start);
    }
    len
}
