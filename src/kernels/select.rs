//! Which are the lowest? Marks the lowest scores of a run, of equal scores the first ones.
//!
//! Scores are not negative and not NaN, so they order like their bits; see [`Real::key`].

use super::dispatch::kernel;
use super::mark::{MarkWriter, padded};
use super::simd::{Simd, WORD};
use crate::element::Real;

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

/// Scores up to this number are copied to be ranked.
const FEW: usize = 512;

/// What a run of more than [`SMALL`] scores is narrowed down to first.
const MANY: usize = 4096;

/// Up to this many scores it pays to go for [`FEW`] at once.
const SMALL: usize = 2048;

/// Finds the highest of the `count` lowest scores. `1 <= count <= scores.len()`.
///
/// The scores are narrowed down to those around the wanted one, see [`Search`], until they are so
/// few that they can be ranked.
pub(crate) fn cut<T: Real>(scores: &[T], count: usize) -> Cut<T> {
    if scores.len() <= SMALL {
        return cut_small(scores, count);
    }
    let mut room = [T::zero(); MANY + WORD];
    match narrow_down(scores, count, &mut room) {
        Narrowed::Found(cut) => cut,
        Narrowed::Held { len, count } => cut_small(&room[..len], count),
    }
}

fn cut_small<T: Real>(scores: &[T], count: usize) -> Cut<T> {
    let mut room = [T::zero(); FEW + WORD];
    if scores.len() <= FEW {
        room[..scores.len()].copy_from_slice(scores);
        return rank(&mut room[..scores.len()], count);
    }
    match narrow_down(scores, count, &mut room) {
        Narrowed::Found(cut) => cut,
        Narrowed::Held { len, count } => rank(&mut room[..len], count),
    }
}

/// Ranks scores, which are brought in another order.
pub(crate) fn rank<T: Real>(scores: &mut [T], count: usize) -> Cut<T> {
    let rank = count - 1;
    let (lower, &mut threshold, _) = scores.select_nth_unstable_by_key(rank, |score| score.key());
    let strictly_lower = lower.iter().filter(|&&score| score < threshold).count();
    Cut {
        threshold,
        ties: count - strictly_lower,
    }
}

/// What is left of a run of scores.
enum Narrowed<T> {
    /// Only scores that are all equal.
    Found(Cut<T>),
    /// So few that there is room for them, with the wanted one of rank `count`.
    Held { len: usize, count: usize },
}

/// Narrows scores down until there is `room` for them, which must be for more than a word.
fn narrow_down<T: Real>(scores: &[T], count: usize, room: &mut [T]) -> Narrowed<T> {
    let mut search = Search::new(scores.len(), count);
    let mut sample = [T::zero(); MOST];
    loop {
        let size = search.sample_size(room.len() / 2).min(scores.len());
        let stride = scores.len() / size;
        // Another place of each stride every time.
        let picked = scores.iter().skip(search.rounds % stride).step_by(stride);
        for (place, &score) in sample.iter_mut().zip(picked.take(size)) {
            *place = score;
        }
        let (low, high) = search.bracket(&mut sample[..size], DEVIATIONS);
        let found = survey(scores, low, high, room);
        if search.narrow(low, high, &found)
            && let Some(len) = found.held
        {
            let count = count - found.below;
            return Narrowed::Held { len, count };
        }
        if let Some(cut) = search.found() {
            return Narrowed::Found(cut);
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
    below: usize,
    /// How many scores are lower or left.
    up_to: usize,
    /// How many passes were made.
    rounds: usize,
}

/// Scores that a bracket is made from: at least and at most.
const LEAST: usize = 64;
const MOST: usize = 1024;

/// Rounds after which what is left is halved rather than guessed at.
const ROUNDS: usize = 16;

/// Half the width of a bracket, see [`Search::bracket`]. One that misses costs another pass, one
/// that is wide more to copy.
const DEVIATIONS: f64 = 2.0;

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

    /// How many scores of all to look at for a bracket that about `room` scores lie in.
    fn sample_size(&self, room: usize) -> usize {
        let part = room as f64 / self.up_to as f64;
        // A bracket is 2 * DEVIATIONS * sqrt(part (1 - part) / size) wide, and widest at 1 / 2.
        let size = (DEVIATIONS / part).powi(2);
        num_traits::cast(size).unwrap_or(MOST).clamp(LEAST, MOST)
    }

    /// From where to where the wanted score is likely to lie, judged from some of the scores.
    /// The wanted one stands within so many standard deviations of its place in the sample.
    pub(crate) fn bracket<T: Real>(&self, sample: &mut [T], deviations: f64) -> (T, T) {
        sample.sort_unstable_by_key(|score| score.key());
        let start = sample.partition_point(|score| score.key() < self.low);
        let end = sample.partition_point(|score| score.key() <= self.high);
        let sample = &sample[start..end];
        if sample.is_empty() || self.rounds > ROUNDS {
            let (low, high) = self.range::<T>();
            return (low, T::from_key(low.key().midpoint(high.key())));
        }
        // The wanted one is so far into what is left.
        let part = (self.count - self.below) as f64 / self.left() as f64;
        let len = sample.len() as f64;
        let aside = if self.rounds % 2 == 1 {
            0.0
        } else {
            deviations * (len * part * (1.0 - part)).sqrt() + 1.0
        };
        let at = |place: f64| {
            let place = num_traits::cast(place.max(0.0)).unwrap_or(0);
            sample[place.min(sample.len() - 1)]
        };
        let place = len * part;
        (at(place - aside), at(place + aside))
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
    pub(crate) fn survey<T: Real>(simd; scores: &[T], low: T, high: T, room: &mut [T]) -> Survey {
        let mut found = Survey::default();
        let (words, rest) = scores.as_chunks();
        for run in words {
            found.add_word(simd, run, WORD, (low, high), room);
        }
        if !rest.is_empty() {
            found.add_word(simd, &padded(rest, T::infinity()), rest.len(), (low, high), room);
        }
        found
    }
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

    /// Adds 64 scores, of which the first `len` count.
    #[inline(always)]
    fn add_word<T: Real>(
        &mut self,
        simd: impl Simd,
        run: &[T; WORD],
        len: usize,
        (low, high): (T, T),
        room: &mut [T],
    ) {
        let counted = u64::MAX >> (WORD - len);
        let below = T::below(simd, run, low);
        let within = !(below | T::above(simd, run, high)) & counted;
        self.below += (below & counted).count_ones() as usize;
        self.within += within.count_ones() as usize;
        self.held = match self.held.and_then(|held| room.get_mut(held..)?.first_chunk_mut()) {
            Some(room) => {
                T::gather(simd, run, within, room);
                Some(self.within)
            }
            None => None,
        };
    }
}

kernel! {
    /// Marks the scores below `threshold`, and the first `ties` of those equal to it; score `j` is
    /// bit `start + j` of `marks`.
    fn mark_up_to_cut<T: Real>(
        simd; scores: &[T], threshold: T, ties: usize, marks: &mut [u64], start: usize,
    ) {
        let mut ties = ties;
        let mut marks = MarkWriter::new(marks, start);
        let (words, rest) = scores.as_chunks();
        for run in words {
            marks.write(up_to_cut(simd, run, threshold, &mut ties), WORD);
        }
        if !rest.is_empty() {
            // What is padded with comes last, so it takes no tie from a score.
            let word = up_to_cut(simd, &padded(rest, T::infinity()), threshold, &mut ties);
            marks.write(word & ((1 << rest.len()) - 1), rest.len());
        }
    }
}

/// Which of 64 scores are below `threshold` or among the first `ties` equal to it. Takes those it
/// finds from `ties`.
#[inline(always)]
fn up_to_cut<T: Real>(
    simd: impl Simd,
    run: &[T; WORD],
    threshold: T,
    ties: &mut usize,
) -> u64 {
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

kernel! {
    /// Sets the bits of the scores below `threshold` in one run of words and of those equal to it
    /// in another, and clears all others.
    pub(crate) fn mark_split<T: Real>(
        simd; scores: &[T], threshold: T, lower: &mut [u64], equal: &mut [u64],
    ) {
        let (words, rest) = scores.as_chunks();
        for ((run, lower), equal) in words.iter().zip(&mut *lower).zip(&mut *equal) {
            *lower = T::below(simd, run, threshold);
            *equal = !(*lower | T::above(simd, run, threshold));
        }
        if !rest.is_empty() {
            let (i, run) = (words.len(), padded(rest, T::infinity()));
            let counted = (1 << rest.len()) - 1;
            lower[i] = T::below(simd, &run, threshold) & counted;
            equal[i] = !(lower[i] | T::above(simd, &run, threshold)) & counted;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

    proptest! {
        #[test]
        fn the_cut_is_where_sorting_puts_it_on_every_instruction_set(
            few_values: bool,
            mut scores in prop::collection::vec(0.0..1.0_f32, 1..2000),
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
        fn scores_are_split_at_a_threshold_on_every_instruction_set(
            scores in prop::collection::vec(0..9_u8, 1..300),
            threshold in 0..9_u8,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let threshold = f32::from(threshold);
            for (set, marks) in on_each(|| {
                let mut marks = [0, 1].map(|_| vec![u64::MAX; scores.len().div_ceil(64)]);
                let [lower, equal] = &mut marks;
                mark_split(&scores, threshold, lower, equal);
                marks
            }) {
                for bit in 0..marks[0].len() * 64 {
                    let marked = marks.each_ref().map(|marks| marks[bit / 64] >> (bit % 64) & 1 == 1);
                    let score = scores.get(bit);
                    let expected = [
                        score.is_some_and(|&s| s < threshold),
                        score.is_some_and(|&s| s == threshold),
                    ];
                    prop_assert_eq!(marked, expected, "{:?}, bit {}", set, bit);
                }
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
            for (set, (found, copied)) in on_each(|| {
                let mut copied = vec![0.0; room];
                (survey(&scores, low.into(), high.into(), &mut copied), copied)
            }) {
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
