//! Which are the lowest? Marks the lowest scores of a run, of equal scores the first ones.
//!
//! Scores are not negative and not NaN, so they order like their bits; see
//! [`RealNumber::key`](crate::number::RealNumber::key).

use super::search::{Cut, DEVIATIONS, Search};
use super::survey::survey;
use crate::element::{Element, Real};
use crate::kernels::{MarkWriter, Scaled, Words, padded};
use crate::simd::{Simd, WORD, kernel};

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
            return rank(scores, search.rank());
        }
        match hold(scores, &mut search, held) {
            Narrowed::Found(cut) => return cut,
            Narrowed::Held(left) => len = left,
        }
        search = Search::between(len, search.rank(), search.range::<T>());
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
    use crate::number::RealNumber;
    use crate::simd::on_each;

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
    }
}
