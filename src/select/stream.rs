//! Which are the lowest of scores that come run by run, and are not kept?

use super::run::{mark_up_to_cut, narrow_down};
use super::search::{Places, Search};
use super::survey::{Survey, survey_marking, survey_scaled};
use crate::element::{Element, Real};
use crate::kernels::Scaled;
use crate::simd::{WORD, kernel};

/// Marks the lowest scores of a row that comes in runs.
///
/// # Algorithm
///
/// ```text
/// bracket = where the highest of the lowest is likely to be, judged from some scores
/// for each run
///     mark the scores below the bracket; note the places of those in it, and hold them
/// cut = the highest of the lowest, found among those held
/// mark the places of those held that are not above the cut
/// ```
///
/// So each score is looked at once, and again only if it is near the cut. A bracket that misses is
/// found out in the end: the row has to be decided in another way then.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    len: usize,
    count: usize,
    bracket: (T, T),
    found: Survey,
    held: Vec<T>,
    /// Room to search those held in.
    room: [Vec<T>; 2],
    /// Where scores in the bracket are, a bit a score, as far as scores came.
    within: Vec<u64>,
    /// So far.
    words: usize,
    /// Which of those held are to be marked, a bit a score.
    chosen: Vec<u64>,
}

impl<T: Real> Stream<T> {
    pub(crate) fn new() -> Self {
        Self {
            len: 0,
            count: 0,
            bracket: (T::zero(), T::zero()),
            found: Survey::default(),
            held: Vec::new(),
            room: [Vec::new(), Vec::new()],
            within: Vec::new(),
            words: 0,
            chosen: Vec::new(),
        }
    }

    /// Begins a row of `len` scores of which the `count` lowest are to be marked, at least one and
    /// not all. `read` gives the scores at some places.
    pub(crate) fn begin(&mut self, len: usize, count: usize, read: impl FnOnce(Places, &mut [T])) {
        (self.len, self.count) = (len, count);
        self.bracket = Search::new(len, count).bracket_by_pivots(len, read);
        self.found = Survey::default();
        self.words = 0;
        // A word more than is held has to fit.
        if self.held.len() < len + WORD {
            self.held.resize(len + WORD, T::zero());
        }
    }

    /// Adds a run of scores, and marks those that are surely among the lowest. All runs but the
    /// last are of whole words.
    pub(crate) fn add(&mut self, scores: &[T], marks: &mut [u64]) {
        self.survey(marks, |(low, high), room, marks, within| {
            survey_marking(scores, low, high, room, marks, within)
        });
    }

    /// The same of scores that are computed meanwhile.
    pub(crate) fn add_scaled<A: Element<Compute = T>>(
        &mut self,
        scores: Scaled<'_, A>,
        marks: &mut [u64],
    ) {
        self.survey(marks, |(low, high), room, marks, within| {
            survey_scaled(scores, low, high, room, marks, within)
        });
    }

    /// Surveys the next run, given the bracket, room for scores in it, and where to mark those
    /// below it and those in it.
    fn survey(
        &mut self,
        marks: &mut [u64],
        run: impl FnOnce((T, T), &mut [T], &mut [u64], &mut [u64]) -> Survey,
    ) {
        let words = self.words..self.words + marks.len();
        self.words = words.end;
        if self.within.len() < words.end {
            self.within.resize(words.end, 0);
        }
        let room = match self.found.held {
            // Equal scores are known without being held.
            Some(held) if self.bracket.0 < self.bracket.1 => &mut self.held[held..],
            _ => &mut [],
        };
        let found = run(self.bracket, room, marks, &mut self.within[words]);
        self.found.add(&found);
    }

    /// Marks the rest of the lowest, if the bracket did not miss. Returns whether it did not.
    pub(crate) fn finish(&mut self, marks: &mut [u64]) -> bool {
        let Survey {
            below,
            within,
            held,
        } = self.found;
        if self.count <= below || self.count > below + within {
            return false;
        }
        let count = self.count - below;
        self.chosen.clear();
        // A word more than is needed, see `keep`.
        self.chosen.resize(within / WORD + 2, 0);
        if let Some(held) = held {
            let held = &self.held[..held];
            let mut search = Search::between(held.len(), count, self.bracket);
            if within > self.len / 4 * 3 {
                // So narrow a bracket holds so many only if many are equal.
                search.expect_ties();
            }
            let [first, second] = &mut self.room;
            // As much as what is left of them is likely to need.
            first.resize(held.len() / 2 + WORD, T::zero());
            second.resize(held.len() / 8 + WORD, T::zero());
            let cut = narrow_down(held, search, first, second);
            mark_up_to_cut(held, cut.threshold, cut.ties, &mut self.chosen, 0);
        } else {
            self.chosen[..count / WORD].fill(u64::MAX);
            self.chosen[count / WORD] = (1 << (count % WORD)) - 1;
        }
        let within = &mut self.within[..self.words];
        keep(&self.chosen, within);
        for (marks, chosen) in marks.iter_mut().zip(&*within) {
            *marks |= chosen;
        }
        true
    }
}

kernel! {
    /// Keeps those ones of `places` whose bit in `chosen`, which has one for each, is set.
    /// `chosen` is a word longer than it need be.
    pub(crate) fn keep(simd; chosen: &[u64], places: &mut [u64]) {
        let mut next = 0;
        for places in places {
            let (first, shift) = (next / WORD, next % WORD);
            // Shifted twice, as no word can be shifted by its whole size at once.
            let run = chosen[first] >> shift | chosen[first + 1] << 1 << (WORD - 1 - shift);
            next += places.count_ones() as usize;
            *places = simd.deposit(run, *places);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::run::mark_lowest;
    use super::*;
    use crate::simd::on_each;

    /// Marks what streams by in runs of `words` words; `None` if the bracket missed.
    fn mark_stream(scores: &[f32], count: usize, words: usize) -> Option<Vec<u64>> {
        let mut marks = vec![0; scores.len().div_ceil(WORD)];
        let mut stream = Stream::new();
        stream.begin(scores.len(), count, |places, sample| {
            for (start, run) in places.of_runs(sample) {
                run.copy_from_slice(&scores[start..][..run.len()]);
            }
        });
        for (run, marks) in scores.chunks(words * WORD).zip(marks.chunks_mut(words)) {
            stream.add(run, marks);
        }
        stream.finish(&mut marks).then_some(marks)
    }

    /// Scores of which many are equal, or few, or all.
    fn scores() -> impl Strategy<Value = Vec<f32>> {
        let scores = prop_oneof![
            prop::collection::vec(0.0..1.0_f32, 2..2000),
            prop::collection::vec(0.0..1.0_f32, 2000..5000),
        ];
        (scores, prop::sample::select(vec![0.0_f32, 1.0, 5.0])).prop_map(|(mut scores, values)| {
            if values > 0.0 {
                for score in &mut scores {
                    *score = (*score * values).floor();
                }
            }
            scores
        })
    }

    proptest! {
        #[test]
        fn the_lowest_of_a_stream_are_those_of_the_row_on_every_instruction_set(
            scores in scores(),
            rank: prop::sample::Index,
            words in 1..20_usize,
        ) {
            let count = rank.index(scores.len() - 1) + 1;
            let mut expected = vec![0; scores.len().div_ceil(WORD)];
            mark_lowest(&scores, count, &mut expected, 0);
            for (set, marks) in on_each(|| mark_stream(&scores, count, words)) {
                if let Some(marks) = marks {
                    prop_assert_eq!(&marks, &expected, "{:?}, {}", set, count);
                }
            }
        }

        #[test]
        fn chosen_places_are_kept_on_every_instruction_set(
            words in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40),
        ) {
            let (places, mut chosen): (Vec<u64>, Vec<u64>) = words.into_iter().unzip();
            chosen.push(0);
            let mut next = 0;
            let expected: Vec<u64> = places.iter().map(|word| {
                (0..WORD).filter(|bit| word >> bit & 1 == 1).fold(0, |kept, bit| {
                    next += 1;
                    kept | (chosen[(next - 1) / WORD] >> ((next - 1) % WORD) & 1) << bit
                })
            }).collect();
            for (set, kept) in on_each(|| {
                let mut kept = places.clone();
                keep(&chosen, &mut kept);
                kept
            }) {
                prop_assert_eq!(&kept, &expected, "{:?}", set);
            }
        }
    }

    #[test]
    fn brackets_seldom_miss() {
        let mut state = 1_u64;
        let mut missed = 0;
        for count in (100..4000).step_by(2) {
            let scores: Vec<f32> = (0..4096)
                .map(|_| {
                    // xorshift64
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 40) as f32
                })
                .collect();
            missed += usize::from(mark_stream(&scores, count, 16).is_none());
        }
        assert!(missed < 1950 / 50, "{missed} of 1950");
    }
}
