//! Rows, decided: which of their weights go.

use ndarray::{ArrayView1, s};

use crate::element::{Element, Real, widened, widened_run};
use crate::kernels::{self, Scaled};
use crate::mask::{MaskRow, words_for};
use crate::metric::Scorer;
use crate::pattern::{LayerCut, RowRule};
use crate::select::{self, Stream};
use crate::simd::WORD;

/// Columns that go through all steps together, where a pattern allows it: few enough for all that
/// belongs to them to stay in the fastest cache. A multiple of 64.
pub(super) const CHUNK: usize = 1024;

/// Which weights of a row go.
#[derive(Clone, Copy)]
pub(super) enum Rule<'a, T> {
    /// What is said of the row alone.
    Row(&'a dyn RowRule<T>),
    /// What is said of the whole layer.
    Layer(LayerCut<T>),
}

impl<T: Real> Rule<'_, T> {
    /// How far one decision reaches, if not to the end of the row.
    pub(super) fn group(&self) -> Option<usize> {
        match self {
            Self::Row(rule) => rule.group(),
            Self::Layer(_) => None,
        }
    }
}

/// How rows are decided.
pub(super) struct Decision<'a, T> {
    scorer: &'a dyn Scorer<T>,
    rule: Rule<'a, T>,
    /// The factors that magnitudes are multiplied by, if those are the scores.
    factors: Option<&'a [T]>,
}

impl<'a, T: Real> Decision<'a, T> {
    pub(super) fn new(scorer: &'a dyn Scorer<T>, rule: Rule<'a, T>) -> Self {
        Self {
            scorer,
            rule,
            factors: scorer.factors(),
        }
    }

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

/// The memory that rows are decided in.
pub(super) struct Decider<T> {
    widened: Vec<T>,
    scores: Vec<T>,
    stream: Stream<T>,
}

impl<T: Real> Decider<T> {
    pub(super) fn new() -> Self {
        Self {
            widened: Vec::new(),
            scores: Vec::new(),
            stream: Stream::new(),
        }
    }

    /// Marks what is to be pruned of a run of weights, which begins at `place`, a row and a column.
    /// What was marked before is forgotten.
    pub(super) fn mark<A: Element<Compute = T>>(
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
        let whole = select::whole_words(run.len(), of);
        let Some(scores) = decision.scaled(place.1, &run[..whole]) else {
            return 0;
        };
        select::mark_lowest_of_scaled_groups(scores, of - count, of, marks);
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
                select::sample_scaled(scores, places, sample);
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
        select::mark_scaled_up_to_cut(scores, cut.threshold, ties, marks, first);
    }
    run.len()
}
