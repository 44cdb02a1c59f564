//! Which are the lowest? Marks the lowest scores of a run, of equal scores the first ones.
//!
//! Scores are not negative and not NaN, so they order like their bits; see [`Real::key`].

use super::dispatch::kernel;
use crate::element::Real;

/// Marks the `count` lowest of `scores`; score `j` is bit `start + j` of `marks`.
///
/// # Algorithm
///
/// ```text
/// low, high = the least and the greatest score
/// while more than a few scores lie in low..=high, and low < high
///     pivot = a guess between them
///     if at most `count` scores are below pivot: low = pivot, else: high = just below pivot
/// threshold = the score of rank `count` among those few
/// mark all below the threshold, and as many of those equal to it as are still missing
/// ```
///
/// Each round is one pass that only compares and counts.
pub(crate) fn mark_lowest<T: Real>(scores: &[T], count: usize, marks: &mut [u64], start: usize) {
    if count == 0 {
        return;
    }
    if count >= scores.len() {
        for column in start..start + scores.len() {
            marks[column / 64] |= 1 << (column % 64);
        }
        return;
    }
    let Cut {
        threshold,
        mut ties,
    } = cut(scores, count);
    let mut set = |column: usize| marks[column / 64] |= 1 << (column % 64);
    for (j, &score) in scores.iter().enumerate() {
        if score < threshold {
            set(start + j);
        } else if score == threshold && ties > 0 {
            ties -= 1;
            set(start + j);
        }
    }
}

/// Marks the lowest of every run of `of` scores, all but `keep`; score `j` is bit `j` of `marks`.
///
/// A short last run loses only what it has in excess of `keep`.
pub(crate) fn mark_lowest_of_groups<T: Real>(
    scores: &[T],
    keep: usize,
    of: usize,
    marks: &mut [u64],
) {
    for (i, group) in scores.chunks(of).enumerate() {
        let excess = group.len().saturating_sub(keep);
        if group.len() > SMALL_GROUP {
            mark_lowest(group, excess, marks, i * of);
            continue;
        }
        for (j, score) in group.iter().enumerate() {
            let rank = group[..j].iter().filter(|other| *other <= score).count()
                + group[j + 1..].iter().filter(|other| *other < score).count();
            let column = i * of + j;
            marks[column / 64] |= u64::from(rank < excess) << (column % 64);
        }
    }
}

/// Up to this many scores, comparing all with all is the quickest way to rank them.
const SMALL_GROUP: usize = 16;

/// Where the lowest end.
pub(crate) struct Cut<T> {
    /// The highest of the lowest.
    pub(crate) threshold: T,
    /// How many scores equal to it are among the lowest.
    pub(crate) ties: usize,
}

/// The keys of the scores that are left.
struct Few {
    keys: [u64; FEW],
    len: usize,
}

/// How many scores are sorted rather than narrowed down further.
const FEW: usize = 256;

/// Finds the highest of the `count` lowest scores. `1 <= count <= scores.len()`.
pub(crate) fn cut<T: Real>(scores: &[T], count: usize) -> Cut<T> {
    let mut low = 0;
    let mut high = T::infinity().key();
    // Scores below `low`, and scores up to `high`.
    let mut below = 0;
    let mut up_to = scores.len();
    let mut halve = false;
    while low < high && up_to - below > FEW {
        let pivot = if halve {
            low + (high - low).div_ceil(2)
        } else {
            interpolate(low, high, count - below, up_to - below)
        };
        let bound = T::from_key(pivot);
        let under = count_below(scores, bound);
        let before = up_to - below;
        if under < count {
            (low, below) = (pivot, under);
        } else {
            (high, up_to) = (pivot - 1, under);
        }
        // A guess that did not help is followed by a halving, so at most twice as many rounds
        // are needed as a key has bits.
        halve = up_to - below > before / 2;
    }
    if low == high {
        return Cut {
            threshold: T::from_key(low),
            ties: count - below,
        };
    }
    let mut few = Few {
        keys: [0; FEW],
        len: 0,
    };
    collect_between(scores, T::from_key(low), T::from_key(high), &mut few);
    let few = &mut few.keys[..few.len];
    let rank = count - below - 1;
    let (lower, &mut threshold, _) = few.select_nth_unstable(rank);
    let strictly_lower = lower.iter().filter(|&&key| key < threshold).count();
    Cut {
        threshold: T::from_key(threshold),
        ties: rank - strictly_lower + 1,
    }
}

kernel! {
    /// How many scores are less than `bound`.
    fn count_below<T: Real>(scores: &[T], bound: T) -> usize {
        // Counting in 32 bits keeps as many lanes busy as the scores fill.
        let runs = scores.chunks(1 << 20);
        runs.map(|run| run.iter().map(|&s| u32::from(s < bound)).sum::<u32>() as usize)
            .sum()
    }
}

kernel! {
    /// Adds the keys of all scores from `low` to `high`, for which there must be room.
    fn collect_between<T: Real>(scores: &[T], low: T, high: T, few: &mut Few) {
        // There are few of them, so most runs have none, which is found out for all at once.
        for run in scores.chunks(64) {
            let lies_between = |s: &T| *s >= low && *s <= high;
            if run.iter().fold(false, |any, s| any | lies_between(s)) {
                for score in run.iter().filter(|s| lies_between(s)) {
                    few.keys[few.len] = score.key();
                    few.len += 1;
                }
            }
        }
    }
}

kernel! {
    /// Sets the bit of every score up to `threshold`, and clears the others.
    pub(crate) fn mark_up_to<T: Real>(scores: &[T], threshold: T, marks: &mut [u64]) {
        for (word, scores) in marks.iter_mut().zip(scores.chunks(64)) {
            *word = 0;
            for (bit, &score) in scores.iter().enumerate() {
                *word |= u64::from(score <= threshold) << bit;
            }
        }
    }
}

/// A key between `low` (excluded) and `high` (included) where `rank` of `len` evenly spread keys
/// would lie below it.
fn interpolate(low: u64, high: u64, rank: usize, len: usize) -> u64 {
    let step = u128::from(high - low) * rank as u128 / len as u128;
    low + u64::try_from(step)
        .unwrap_or(high - low)
        .clamp(1, high - low)
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
        fn marks_up_to_a_threshold_are_the_same_on_every_instruction_set(
            scores in prop::collection::vec(0..9_u8, 1..300),
            threshold in 0..9_u8,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let threshold = f32::from(threshold);
            for (set, marks) in on_each(|| {
                let mut marks = vec![u64::MAX; scores.len().div_ceil(64)];
                mark_up_to(&scores, threshold, &mut marks);
                marks
            }) {
                for bit in 0..marks.len() * 64 {
                    let marked = marks[bit / 64] >> (bit % 64) & 1 == 1;
                    let expected = scores.get(bit).is_some_and(|&s| s <= threshold);
                    prop_assert_eq!(marked, expected, "{:?}, bit {}", set, bit);
                }
            }
        }
    }
}
