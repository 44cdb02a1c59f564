//! Where is the score of a given rank? Guesses from a few scores, and what passes over all make of
//! them.

use num_traits::Float;

use super::survey::Survey;
use crate::element::{Element, Real};
use crate::kernels::Scaled;
use crate::simd::{WORD, kernel};

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
                *score = weight.widen().abs() * factor;
            }
        }
    }
}

/// Where the lowest end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut<T> {
    /// The highest of the lowest.
    pub(crate) threshold: T,
    /// How many scores equal to it are among the lowest.
    pub(crate) ties: usize,
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
    below: usize,
    /// How many scores are lower or left.
    up_to: usize,
    /// How many passes were made.
    pub(super) rounds: usize,
}

/// Rounds after which what is left is halved rather than guessed at.
const ROUNDS: usize = 16;

/// Half the width of a bracket, see [`Search::bracket`]. One that misses costs another pass, one
/// that is wide more to copy.
pub(super) const DEVIATIONS: f64 = 2.5;

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
            low: key(low).min(key(high)),
            high: key(high),
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
        let place = self.rank() as f64;
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
            if (self.low..=self.high).contains(&key(sample[i])) {
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
        let part = self.rank() as f64 / self.left() as f64;
        let place = len as f64 * part;
        let aside = if self.rounds % 2 == 1 {
            0.0
        } else {
            deviations * (place * (1.0 - part)).sqrt() + 1.0
        };
        let mut at = |place: f64| {
            let place = num_traits::cast(place.max(0.0)).unwrap_or(0).min(len - 1);
            let (_, score, _) = sample.select_nth_unstable_by_key(place, |&score| key(score));
            T::from_key(key(*score))
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
            && let Some(value) = only_value(&pivots, low, high)
        {
            return (value, value);
        }
        if self.rounds % 2 == 1 {
            let pivot = nearest(&pivots, &ranks, place, low, high);
            return pivot.map_or(halves, |pivot| (pivot, pivot));
        }
        let around = |place: f64| around(words, &pivots, &ranks, place);
        let from = around(place - aside).0.unwrap_or(low).max(low).min(high);
        let to = around(place + aside).1.unwrap_or(high).max(from).min(high);
        (from, to)
    }

    /// Keeps the scores from `low` to `high` if the wanted one is among them, or else those on the
    /// side of them where it is. Returns whether it is among them.
    ///
    /// One value is left at least, so that a search comes to an end even if what it is given are no
    /// scores, and the wanted one is nowhere.
    pub(crate) fn narrow<T: Real>(&mut self, low: T, high: T, found: &Survey) -> bool {
        self.rounds += 1;
        if self.count <= found.below {
            self.high = key(low).saturating_sub(1).max(self.low);
            self.up_to = found.below;
            return false;
        }
        let up_to = found.below + found.within;
        if self.count > up_to {
            self.low = (key(high) + 1).min(self.high);
            self.below = up_to;
            return false;
        }
        (self.low, self.high) = (key(low), key(high));
        (self.below, self.up_to) = (found.below, up_to);
        true
    }

    /// The rank of the wanted score among those that are left, counted from 1.
    pub(super) fn rank(&self) -> usize {
        self.count - self.below
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
            ties: self.rank(),
        })
    }
}

/// The key of a score, and that of one for what is none.
fn key<T: Real>(score: T) -> u64 {
    // Without the sign of zero.
    (score + T::zero()).key().min(T::infinity().key())
}

/// The value of the pivots from `low` to `high`, if these are some and have but one.
fn only_value<T: Real>(pivots: &[T; PIVOTS], low: T, high: T) -> Option<T> {
    let mut left = pivots.iter().filter(|pivot| (low..=high).contains(*pivot));
    let value = *left.next()?;
    let mut others = left.peekable();
    others.peek()?;
    others.all(|pivot| *pivot == value).then_some(value)
}

/// The pivot next to a place in the sample, of those from `low` to `high`.
fn nearest<T: Real>(
    pivots: &[T; PIVOTS],
    ranks: &[u32; PIVOTS],
    place: f64,
    low: T,
    high: T,
) -> Option<T> {
    let is_left = |pivot: &T| (low..=high).contains(pivot);
    let mut ranks = *ranks;
    for (rank, _) in ranks.iter_mut().zip(pivots).filter(|(_, p)| !is_left(p)) {
        *rank = NOWHERE;
    }
    let pivot = highest_below(&ranks, place).or_else(|| lowest_from(&ranks, place));
    pivot.map(|i| pivots[i]).filter(is_left)
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

/// A number less than `len`, which is not 0. It jumps about while `i` counts up.
pub(super) fn scattered(i: usize, len: usize) -> usize {
    /// The multiples of an odd number jump about.
    const MIXER: usize = 0x9E37_79B9;
    (i.wrapping_mul(MIXER) >> 16) % len
}
