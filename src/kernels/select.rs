//! Which are the lowest? Marks the lowest scores of a run, of equal scores the first ones.
//!
//! Scores are not negative and not NaN, so they order like their bits; see [`Real::key`].

use super::dispatch::kernel;
use super::mark::{MarkWriter, padded};
use super::score::{Scaled, Words};
use super::simd::{Simd, WORD};
use crate::element::{Element, Real};

/// Marks the `count` lowest of `scores`; score `j` is bit `start + j` of `marks`.
pub(crate) fn mark_lowest<T: Real>(scores: &[T], count: usize, marks: &mut [u64], start: usize) {
    if count == 0 {
        return;
    }
    let cut = if count < scores.len() {
        cut(scores, count)
    } else {
        // Above all of them, so that all are marked.
        Cut {
            threshold: T::infinity(),
            ties: scores.len(),
        }
    };
    mark_up_to_cut(scores, cut.threshold, cut.ties, marks, start);
}

/// Where the lowest end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut<T> {
    /// The highest of the lowest.
    pub(crate) threshold: T,
    /// How many scores equal to it are among the lowest.
    pub(crate) ties: usize,
}

/// Up to this many scores little room will do.
const SMALL: usize = 2048;

/// Finds the highest of the `count` lowest scores. `1 <= count <= scores.len()`.
///
/// The scores are narrowed down to those around the wanted one, see [`Search`], again and again,
/// until all that are left are equal or fill no more than a word.
pub(crate) fn cut<T: Real>(scores: &[T], count: usize) -> Cut<T> {
    cut_between(scores, count, (T::zero(), T::infinity()))
}

/// The same for scores that lie between two of `range`, or are equal to one of these.
pub(crate) fn cut_between<T: Real>(scores: &[T], count: usize, range: (T, T)) -> Cut<T> {
    let zero = T::zero();
    let search = Search::between(scores.len(), count, range);
    if scores.len() <= SMALL {
        let (mut held, mut room) = ([zero; 1024 + WORD], [zero; 256 + WORD]);
        narrow_down(scores, search, &mut held, &mut room)
    } else {
        let (mut held, mut room) = ([zero; 4096 + WORD], [zero; 1024 + WORD]);
        narrow_down(scores, search, &mut held, &mut room)
    }
}

/// Finds the wanted score with room for the scores that are left, and room for those that are left
/// of these.
pub(super) fn narrow_down<T: Real>(
    scores: &[T],
    search: Search,
    held: &mut [T],
    room: &mut [T],
) -> Cut<T> {
    let (mut held, mut room) = (held, room);
    let (mut scores, mut search) = (scores, search);
    let mut len;
    loop {
        if scores.len() <= WORD {
            return rank(scores, search.count);
        }
        match hold(scores, &mut search, held) {
            Narrowed::Found(cut) => return cut,
            Narrowed::Held(left) => len = left,
        }
        search = Search::between(len, search.count - search.below, search.range::<T>());
        std::mem::swap(&mut held, &mut room);
        scores = &room[..len];
    }
}

/// What is left of a run of scores.
enum Narrowed<T> {
    /// Only scores that are all equal.
    Found(Cut<T>),
    /// So many, which are held.
    Held(usize),
}

/// Narrows scores down until there are fewer and there is `room` for them.
fn hold<T: Real>(scores: &[T], search: &mut Search, room: &mut [T]) -> Narrowed<T> {
    loop {
        let (low, high) = if let Some(bracket) = search.bracket_by_place() {
            bracket
        } else if scores.len() > SORTED {
            search.bracket(&mut sample(scores, search.rounds), DEVIATIONS)
        } else {
            search.bracket_by_pivots(scores.len(), |places, sample| {
                for (start, run) in places.of_runs(sample) {
                    run.copy_from_slice(&scores[start..][..run.len()]);
                }
            })
        };
        let found = survey(scores, low, high, room);
        if search.narrow(low, high, &found)
            && let Some(len) = found.held
            // Many equal scores are better met on their own.
            && len < scores.len() / 4 * 3
        {
            return Narrowed::Held(len);
        }
        if let Some(cut) = search.found() {
            return Narrowed::Found(cut);
        }
    }
}

/// With more scores than these it pays to sort a large sample.
const SORTED: usize = 1 << 16;

/// Scores from here and there, another place of each stride every round.
fn sample<T: Real>(scores: &[T], round: usize) -> [T; 1024] {
    let stride = scores.len() / 1024;
    std::array::from_fn(|i| scores[i * stride + round % stride])
}

kernel! {
    /// The score of rank `count` among no more than 64: each that is tried leaves only those on one
    /// side of it.
    fn rank<T: Real>(simd; scores: &[T], count: usize) -> Cut<T> {
        // What is added comes last.
        let run = padded(scores, T::infinity());
        // Those that may be the wanted one.
        let mut left = u64::MAX;
        while left != 0 {
            let score = run[left.trailing_zeros() as usize];
            let below = T::below(simd, &run, score);
            let up_to = !T::above(simd, &run, score);
            let lower = below.count_ones() as usize;
            if count <= lower {
                left &= below;
            } else if count > up_to.count_ones() as usize {
                left &= !up_to;
            } else {
                return Cut { threshold: score, ties: count - lower };
            }
        }
        Cut { threshold: T::infinity(), ties: count }
    }
}

/// Scores that others are compared with.
const PIVOTS: usize = 16;

kernel! {
    /// How many scores are below each pivot.
    fn ranks<T: Real>(
        simd; words: &[[T; WORD]], pivots: &[T; PIVOTS],
    ) -> [u32; PIVOTS] {
        let mut ranks = [0; PIVOTS];
        for word in words {
            for (rank, &pivot) in ranks.iter_mut().zip(pivots) {
                *rank += T::below(simd, word, pivot).count_ones();
            }
        }
        ranks
    }
}

kernel! {
    /// How many scores are no higher than a pivot.
    fn rank_up_to<T: Real>(simd; words: &[[T; WORD]], pivot: T) -> u32 {
        let mut rank = 0;
        for word in words {
            rank += T::above(simd, word, pivot).count_zeros();
        }
        rank
    }
}

/// Words of scores that pivots are ranked among, and how many are next to each other.
const SAMPLE: usize = 2;
const RUN: usize = 16;

/// So few words of scores are ranked among themselves.
const ALL: usize = 4;

/// Where the scores of a sample are: in runs, so far apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    run: usize,
    offset: usize,
    stride: usize,
}

impl Places {
    /// Places of `size` of `len` scores, others each round.
    fn new(len: usize, size: usize, round: usize) -> Self {
        if size == len {
            return Self {
                run: len.max(1),
                offset: 0,
                stride: 0,
            };
        }
        let stride = len / (size / RUN);
        Self {
            run: RUN,
            offset: round * RUN % (stride - RUN + 1),
            stride,
        }
    }

    /// The runs of a sample, and where they start.
    pub(crate) fn of_runs<T>(self, sample: &mut [T]) -> impl Iterator<Item = (usize, &mut [T])> {
        let runs = sample.chunks_mut(self.run).enumerate();
        runs.map(move |(i, run)| (i * self.stride + self.offset, run))
    }
}

kernel! {
    /// Fills a sample with scores from some places.
    pub(crate) fn sample_scaled<A: Element>(
        _simd; scores: Scaled<'_, A>, places: Places, sample: &mut [A::Compute],
    ) {
        for (start, run) in places.of_runs(sample) {
            let weights = &scores.weights[start..][..run.len()];
            let factors = &scores.factors[start..][..run.len()];
            for ((score, weight), &factor) in run.iter_mut().zip(weights).zip(factors) {
                *score = num_traits::Float::abs(weight.widen()) * factor;
            }
        }
    }
}

/// A score of a given rank, to be found by narrowing down the range it lies in.
///
/// # Algorithm
///
/// ```text
/// low, high = the least and the greatest score there may be
/// while more scores lie in low..=high than there is room for, and low < high
///     sample = scores here and there that lie in low..=high, in order
///     bracket = from somewhat before to somewhat after where the wanted one would stand in it
///     in one pass over all scores, count those below the bracket, and count and hold those in it
///     low..=high = the bracket, or what is below or above it, wherever the wanted one is
/// ```
///
/// A pass only compares, counts and copies. One or two will do with most data, the second over
/// what the first one held. Many equal scores are met by a bracket of one value every other time.
#[derive(Debug)]
pub(crate) struct Search {
    /// The rank of the wanted score among all, counted from 1.
    count: usize,
    /// Keys of the least and the greatest score that are left.
    low: u64,
    high: u64,
    /// How many scores are lower than that.
    pub(crate) below: usize,
    /// How many scores are lower or left.
    up_to: usize,
    /// How many passes were made.
    rounds: usize,
}

/// Rounds after which what is left is halved rather than guessed at.
const ROUNDS: usize = 16;

/// Half the width of a bracket, see [`Search::bracket`]. One that misses costs another pass, one
/// that is wide more to copy.
const DEVIATIONS: f64 = 2.5;

/// Which part of the scores of a narrow range may lie elsewhere than if they were spread evenly.
const UNEVEN: f64 = 20.0;

impl Search {
    /// The search for the score of rank `count`, counted from 1, among `len`.
    pub(crate) fn new(len: usize, count: usize) -> Self {
        Self {
            count,
            low: 0,
            high: u64::MAX,
            below: 0,
            up_to: len,
            rounds: 0,
        }
    }

    /// The same where the scores are known to lie in a range.
    pub(crate) fn between<T: Real>(len: usize, count: usize, (low, high): (T, T)) -> Self {
        Self {
            low: low.key(),
            high: high.key(),
            ..Self::new(len, count)
        }
    }

    /// Begins with a bracket of one value.
    pub(super) fn expect_ties(&mut self) {
        self.rounds = 1;
    }

    /// From where to where the wanted score is likely to lie, if scores are spread evenly over the
    /// range they lie in. That is only tried once, and where the range has an end.
    pub(crate) fn bracket_by_place<T: Real>(&self) -> Option<(T, T)> {
        let (low, high) = self.range::<T>();
        if self.rounds > 0 || !high.is_finite() {
            return None;
        }
        let len = self.left() as f64;
        let place = (self.count - self.below) as f64;
        let part = place / len;
        let aside = DEVIATIONS * (place * (1.0 - part)).sqrt() + len / UNEVEN;
        let at = |place: f64| {
            let part = T::from_f64((place / len).clamp(0.0, 1.0));
            (low + (high - low) * part).min(high)
        };
        Some((at(place - aside), at(place + aside)))
    }

    /// From where to where the wanted score is likely to lie, judged from some of the scores.
    /// The wanted one stands within so many standard deviations of its place in the sample.
    pub(crate) fn bracket<T: Real>(&self, sample: &mut [T], deviations: f64) -> (T, T) {
        let mut len = 0;
        for i in 0..sample.len() {
            if (self.low..=self.high).contains(&sample[i].key()) {
                sample.swap(len, i);
                len += 1;
            }
        }
        let sample = &mut sample[..len];
        if len == 0 || self.rounds > ROUNDS {
            let (low, high) = self.range::<T>();
            return (low, T::from_key(low.key().midpoint(high.key())));
        }
        // The wanted one is so far into what is left.
        let part = (self.count - self.below) as f64 / self.left() as f64;
        let place = len as f64 * part;
        let aside = if self.rounds % 2 == 1 {
            0.0
        } else {
            deviations * (place * (1.0 - part)).sqrt() + 1.0
        };
        let mut at = |place: f64| {
            let place = num_traits::cast(place.max(0.0)).unwrap_or(0).min(len - 1);
            *sample
                .select_nth_unstable_by_key(place, |score| score.key())
                .1
        };
        (at(place - aside), at(place + aside))
    }

    /// The same from a few pivots among `len` scores, for which nothing is sorted. `read` gives the
    /// scores at some places.
    pub(crate) fn bracket_by_pivots<T: Real>(
        &self,
        len: usize,
        read: impl FnOnce(Places, &mut [T]),
    ) -> (T, T) {
        // What is added to fill words comes last.
        let mut words = [[T::infinity(); WORD]; ALL];
        let sample = words.as_flattened_mut();
        let (size, aside) = if len <= ALL * WORD {
            // No doubt is left.
            (len, 0.0)
        } else {
            let size = SAMPLE * WORD;
            let part = self.count as f64 / len as f64;
            let deviation = (size as f64 * part * (1.0 - part)).sqrt();
            (size, DEVIATIONS * deviation + 1.0)
        };
        read(Places::new(len, size, self.rounds), &mut sample[..size]);
        let pivots: [T; PIVOTS] = std::array::from_fn(|i| sample[i * size / PIVOTS]);
        let words = &words[..size.div_ceil(WORD)];
        let ranks = ranks(words, &pivots);

        // The wanted one is not below a pivot that fewer are below, and not above one that as many
        // are below.
        let place = self.count as f64 * size as f64 / len as f64;
        let (low, high) = self.range::<T>();
        let halves = (low, T::from_key(low.key().midpoint(high.key())));
        if self.rounds > ROUNDS {
            return halves;
        }
        if self.rounds > 0
            && let Some(value) = shared(&pivots, low, high)
        {
            return (value, value);
        }
        if self.rounds % 2 == 1 {
            // The pivot next to the place, of those in the range that is left.
            let is_left = |pivot: &T| (low..=high).contains(pivot);
            let mut ranks = ranks;
            for (rank, _) in ranks.iter_mut().zip(&pivots).filter(|(_, p)| !is_left(p)) {
                *rank = NOWHERE;
            }
            let pivot = highest_below(&ranks, place).or_else(|| lowest_from(&ranks, place));
            let pivot = pivot.map(|i| pivots[i]).filter(is_left);
            return pivot.map_or(halves, |pivot| (pivot, pivot));
        }
        let around = |place: f64| around(words, &pivots, &ranks, place);
        let below = around(place - aside).0.unwrap_or(low);
        let above = around(place + aside).1.unwrap_or(high);
        (below.max(low).min(high), above.max(low).min(high))
    }

    /// Keeps the scores from `low` to `high` if the wanted one is among them, or else those on the
    /// side of them where it is. Returns whether it is among them.
    pub(crate) fn narrow<T: Real>(&mut self, low: T, high: T, found: &Survey) -> bool {
        self.rounds += 1;
        if self.count <= found.below {
            self.high = low.key() - 1;
            self.up_to = found.below;
            return false;
        }
        let up_to = found.below + found.within;
        if self.count > up_to {
            self.low = high.key() + 1;
            self.below = up_to;
            return false;
        }
        (self.low, self.high) = (low.key(), high.key());
        (self.below, self.up_to) = (found.below, up_to);
        true
    }

    /// How many scores are left.
    pub(crate) fn left(&self) -> usize {
        self.up_to - self.below
    }

    /// The least and the greatest score that are left.
    pub(crate) fn range<T: Real>(&self) -> (T, T) {
        let highest = self.high.min(T::infinity().key());
        (T::from_key(self.low), T::from_key(highest))
    }

    /// The wanted score, if only one value is left.
    pub(crate) fn found<T: Real>(&self) -> Option<Cut<T>> {
        (self.low == self.high).then(|| Cut {
            threshold: T::from_key(self.low),
            ties: self.count - self.below,
        })
    }
}

/// The value of the pivots from `low` to `high`, if these are some and have but one.
fn shared<T: Real>(pivots: &[T; PIVOTS], low: T, high: T) -> Option<T> {
    let mut left = pivots.iter().filter(|pivot| (low..=high).contains(*pivot));
    let value = *left.next()?;
    let mut others = left.peekable();
    others.peek()?;
    others.all(|pivot| *pivot == value).then_some(value)
}

/// From where to where the score is that as many of a sample are below as `place` says. Between two
/// pivots it is where it would be if scores were spread evenly.
fn around<T: Real>(
    words: &[[T; WORD]],
    pivots: &[T; PIVOTS],
    ranks: &[u32; PIVOTS],
    place: f64,
) -> (Option<T>, Option<T>) {
    let after = lowest_from(ranks, place);
    let Some(before) = highest_below(ranks, place) else {
        return (None, after.map(|i| pivots[i]));
    };
    let score = pivots[before];
    // Many may be equal to it.
    let up_to = f64::from(rank_up_to(words, score));
    if up_to >= place {
        return (Some(score), Some(score));
    }
    let Some(after) = after else {
        return (Some(score), None);
    };
    let part = (place - up_to) / (f64::from(ranks[after]) - up_to);
    let score = score + (pivots[after] - score) * T::from_f64(part);
    (Some(score), Some(score))
}

/// Where the highest of the ranks is that are below `limit`.
fn highest_below(ranks: &[u32; PIVOTS], limit: f64) -> Option<usize> {
    let limit = whole(limit);
    // Rank and place in one number, so that nothing has to be decided on the way.
    let code = |(i, &rank)| {
        if rank < limit {
            (rank + 1) << PLACE | i
        } else {
            0
        }
    };
    let best = (0..).zip(ranks).map(code).fold(0, u32::max);
    (best > 0).then_some(best as usize % PIVOTS)
}

/// Where the lowest of the ranks is that are `limit` or above.
fn lowest_from(ranks: &[u32; PIVOTS], limit: f64) -> Option<usize> {
    let limit = whole(limit);
    let code = |(i, &rank)| {
        if rank < limit {
            u32::MAX
        } else {
            rank << PLACE | i
        }
    };
    let best = (0..).zip(ranks).map(code).fold(u32::MAX, u32::min);
    (best < u32::MAX).then_some(best as usize % PIVOTS)
}

/// Above all ranks.
const NOWHERE: u32 = u32::MAX >> PLACE;

/// Bits of the number of a pivot.
const PLACE: u32 = PIVOTS.ilog2();

/// The least whole number that is not below a limit of ranks.
fn whole(limit: f64) -> u32 {
    num_traits::cast(limit.ceil().max(0.0)).unwrap_or(u32::MAX)
}

/// What a pass over scores found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Survey {
    /// How many are below the bracket.
    pub(crate) below: usize,
    /// How many are in the bracket.
    pub(crate) within: usize,
    /// How many of those were copied, if there was room for all.
    pub(crate) held: Option<usize>,
}

kernel! {
    /// Counts the scores below `low`, and counts those from `low` to `high` and copies them to
    /// `room`, as long as a word more than those would fit there.
    pub(crate) fn survey<T: Real>(
        simd; scores: &[T], low: T, high: T, room: &mut [T],
    ) -> Survey {
        survey_words(simd, &scores, (low, high), room, |_, _, _| {})
    }
}

kernel! {
    /// The same, and says in words of bits which scores are below `low`, and which are from `low`
    /// to `high`.
    pub(crate) fn survey_marking<T: Real>(
        simd; scores: &[T], low: T, high: T, room: &mut [T], below: &mut [u64], within: &mut [u64],
    ) -> Survey {
        survey_words(simd, &scores, (low, high), room, |i, lower, inside| {
            below[i] = lower;
            within[i] = inside;
        })
    }
}

kernel! {
    /// The same of scores that are computed meanwhile.
    pub(crate) fn survey_scaled<A: Element>(
        simd;
        scores: Scaled<'_, A>,
        low: A::Compute,
        high: A::Compute,
        room: &mut [A::Compute],
        below: &mut [u64],
        within: &mut [u64],
    ) -> Survey {
        survey_words(simd, &scores, (low, high), room, |i, lower, inside| {
            below[i] = lower;
            within[i] = inside;
        })
    }
}

/// Surveys scores in words, and gives what was found in each to `note`.
#[inline(always)]
fn survey_words<T: Real>(
    simd: impl Simd,
    scores: &impl Words<T>,
    bracket: (T, T),
    room: &mut [T],
    mut note: impl FnMut(usize, u64, u64),
) -> Survey {
    let mut found = Survey::default();
    let (words, rest) = (scores.len() / WORD, scores.len() % WORD);
    for i in 0..words {
        let (below, within) = found.add_word(simd, &scores.word(i), bracket, room);
        note(i, below, within);
    }
    if rest > 0 {
        let (below, within) = found.add_word(simd, &scores.rest(), bracket, room);
        // What was added to fill the word was found last.
        if bracket.1 == T::infinity() {
            let excess = WORD - rest;
            found.within -= excess;
            found.held = found.held.map(|held| held - excess);
        }
        note(words, below, within & ((1 << rest) - 1));
    }
    found
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            below: 0,
            within: 0,
            held: Some(0),
        }
    }
}

impl Survey {
    /// Adds what another pass found, which copied to the room behind that of this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.below += other.below;
        self.within += other.within;
        self.held = self.held.zip(other.held).map(|(held, more)| held + more);
    }

    /// Adds 64 scores, and returns which are below the bracket and which in it.
    #[inline(always)]
    fn add_word<T: Real>(
        &mut self,
        simd: impl Simd,
        run: &[T; WORD],
        (low, high): (T, T),
        room: &mut [T],
    ) -> (u64, u64) {
        let room = self
            .held
            .and_then(|held| room.get_mut(held..)?.first_chunk_mut());
        let enough = room.is_some();
        let (below, within) = if let Some(room) = room {
            T::survey(simd, run, low, high, room)
        } else {
            let below = T::below(simd, run, low);
            (below, !(below | T::above(simd, run, high)))
        };
        self.below += below.count_ones() as usize;
        self.within += within.count_ones() as usize;
        self.held = enough.then_some(self.within);
        (below, within)
    }
}

kernel! {
    /// Marks the scores below `threshold`, and the first `ties` of those equal to it; score `j` is
    /// bit `start + j` of `marks`.
    pub(crate) fn mark_up_to_cut<T: Real>(
        simd; scores: &[T], threshold: T, ties: usize, marks: &mut [u64], start: usize,
    ) {
        mark_words_up_to_cut(simd, &scores, Cut { threshold, ties }, marks, start);
    }
}

kernel! {
    /// The same of scores that are computed meanwhile.
    pub(crate) fn mark_scaled_up_to_cut<A: Element>(
        simd;
        scores: Scaled<'_, A>,
        threshold: A::Compute,
        ties: usize,
        marks: &mut [u64],
        start: usize,
    ) {
        mark_words_up_to_cut(simd, &scores, Cut { threshold, ties }, marks, start);
    }
}

/// Marks words of scores up to a cut, from bit `start` of `marks` on.
#[inline(always)]
fn mark_words_up_to_cut<T: Real>(
    simd: impl Simd,
    scores: &impl Words<T>,
    cut: Cut<T>,
    marks: &mut [u64],
    start: usize,
) {
    let Cut {
        threshold,
        mut ties,
    } = cut;
    let mut marks = MarkWriter::new(marks, start);
    for i in 0..scores.len() / WORD {
        marks.write(up_to_cut(simd, &scores.word(i), threshold, &mut ties), WORD);
    }
    let rest = scores.len() % WORD;
    if rest > 0 {
        // What is padded with comes last, so it takes no tie from a score.
        let word = up_to_cut(simd, &scores.rest(), threshold, &mut ties);
        marks.write(word & ((1 << rest) - 1), rest);
    }
}

/// Which of 64 scores are below `threshold` or among the first `ties` equal to it. Takes those it
/// finds from `ties`.
#[inline(always)]
fn up_to_cut<T: Real>(simd: impl Simd, run: &[T; WORD], threshold: T, ties: &mut usize) -> u64 {
    let lower = T::below(simd, run, threshold);
    let equal = !(lower | T::above(simd, run, threshold));
    let found = equal.count_ones() as usize;
    let taken = if found > *ties {
        first_bits(equal, *ties)
    } else {
        equal
    };
    *ties -= found.min(*ties);
    lower | taken
}

/// The first `count` of the ones in a word, which has more.
fn first_bits(word: u64, count: usize) -> u64 {
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    word & !rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

    /// More scores than a sample of them is ranked by pivots for.
    #[test]
    fn the_cut_of_very_many_scores_is_where_sorting_puts_it() {
        let spread = |i: usize| (i * 7919 % 200_003) as f32;
        let scores: [Vec<f32>; 3] = [
            (0..200_000).map(spread).collect(),
            (0..200_000)
                .map(|i| (spread(i) / 70_000.0).floor())
                .collect(),
            (0..200_000).map(|i| i as f32).collect(),
        ];
        for scores in scores {
            let mut sorted = scores.clone();
            sorted.sort_by(f32::total_cmp);
            for count in [1, 2, 77, 50_000, 100_000, 199_999, 200_000] {
                let threshold = sorted[count - 1];
                let lower = sorted.partition_point(|&score| score < threshold);
                let expected = Cut {
                    threshold,
                    ties: count - lower,
                };
                for (set, found) in on_each(|| cut(&scores, count)) {
                    assert_eq!(found, expected, "{set:?}, {count}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_cut_is_where_sorting_puts_it_on_every_instruction_set(
            few_values: bool,
            mut scores in prop_oneof![
                prop::collection::vec(0.0..1.0_f32, 1..3000),
                prop::collection::vec(0.0..1e-3_f32, 5000..9000),
            ],
            rank: prop::sample::Index,
        ) {
            if few_values {
                for s in &mut scores {
                    *s = (*s * 5.0).floor();
                }
            }
            let count = rank.index(scores.len()) + 1;
            let mut sorted = scores.clone();
            sorted.sort_by(f32::total_cmp);
            let threshold = sorted[count - 1];
            let ties = sorted[..count].iter().filter(|s| s.key() == threshold.key()).count();
            for (set, found) in on_each(|| cut(&scores, count)) {
                prop_assert_eq!((found.threshold, found.ties), (threshold, ties), "{:?}", set);
            }
        }

        #[test]
        fn the_lowest_are_those_that_sort_first_on_every_instruction_set(
            few_values: bool,
            mut scores in prop::collection::vec(0.0..1.0_f64, 1..700),
            rank: prop::sample::Index,
            start in 0..200_usize,
        ) {
            if few_values {
                for s in &mut scores {
                    *s = (*s * 5.0).floor();
                }
            }
            let count = rank.index(scores.len() + 1);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            let mut expected = vec![0_u64; (start + scores.len()).div_ceil(64)];
            for place in order[..count].iter().map(|i| start + i) {
                expected[place / 64] |= 1 << (place % 64);
            }
            for (set, marks) in on_each(|| {
                let mut marks = vec![0; expected.len()];
                mark_lowest(&scores, count, &mut marks, start);
                marks
            }) {
                prop_assert_eq!(&marks, &expected, "{:?}", set);
            }
        }

        #[test]
        fn a_survey_counts_and_copies_on_every_instruction_set(
            scores in prop::collection::vec(0..9_u8, 0..300),
            (low, high) in (0..9_u8, 0..9_u8).prop_map(|(a, b)| (a.min(b), a.max(b))),
            room in 0..400_usize,
        ) {
            let within: Vec<f64> =
                scores.iter().filter(|&&s| (low..=high).contains(&s)).map(|&s| s.into()).collect();
            let below = scores.iter().filter(|&&s| s < low).count();
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let marks_where = |marked: &dyn Fn(f64) -> bool| {
                let mut marks = vec![0_u64; scores.len().div_ceil(WORD)];
                for (i, _) in scores.iter().enumerate().filter(|(_, s)| marked(**s)) {
                    marks[i / WORD] |= 1 << (i % WORD);
                }
                marks
            };
            let (low, high) = (f64::from(low), f64::from(high));
            let expected = [marks_where(&|s| s < low), marks_where(&|s| low <= s && s <= high)];
            for (set, (found, copied, marks)) in on_each(|| {
                let mut copied = vec![0.0; room];
                let mut marks = [0, 1].map(|_| vec![u64::MAX; scores.len().div_ceil(WORD)]);
                let [lower, inside] = &mut marks;
                let found = survey_marking(&scores, low, high, &mut copied, lower, inside);
                (found, copied, marks)
            }) {
                prop_assert_eq!(&marks, &expected, "{:?}", set);
                let mut again = vec![0.0; room];
                prop_assert_eq!(survey(&scores, low, high, &mut again), found);
                prop_assert_eq!((found.below, found.within), (below, within.len()), "{:?}", set);
                // With a word to spare there is room enough.
                prop_assert!(found.held.is_some() || within.len() + WORD > room, "{:?}", set);
                if let Some(held) = found.held {
                    prop_assert_eq!(held, within.len(), "{:?}", set);
                    prop_assert_eq!(&copied[..held], &within[..], "{:?}", set);
                }
            }
        }
    }
}
