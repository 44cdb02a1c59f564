//! Which are the lowest of each group? The rule of N:M patterns.

use super::dispatch::kernel;
use super::select::mark_lowest;
use super::simd::{Simd, WORD};
use crate::element::Real;

/// Marks the lowest of every run of `of` scores, all but `keep`; score `j` is bit `j` of `marks`,
/// which is clear.
///
/// A short last run loses only what it has in excess of `keep`. Of equal scores the first go.
pub(crate) fn mark_lowest_of_groups<T: Real>(
    scores: &[T],
    keep: usize,
    of: usize,
    marks: &mut [u64],
) {
    // Groups that fill words are ranked a word at a time.
    let whole = if of.is_power_of_two() && of <= SMALL_GROUP {
        scores.len() / WORD * WORD
    } else {
        0
    };
    let (words, rest) = scores.split_at(whole);
    mark_lowest_in_words(words, keep, of, marks);
    for (i, group) in rest.chunks(of).enumerate() {
        let excess = group.len().saturating_sub(keep);
        let first = whole + i * of;
        if group.len() > SMALL_GROUP {
            mark_lowest(group, excess, marks, first);
            continue;
        }
        for (j, score) in group.iter().enumerate() {
            let rank = group[..j].iter().filter(|other| *other <= score).count()
                + group[j + 1..].iter().filter(|other| *other < score).count();
            let column = first + j;
            marks[column / 64] |= u64::from(rank < excess) << (column % 64);
        }
    }
}

/// Up to this many scores, comparing all with all is the quickest way to rank them.
const SMALL_GROUP: usize = 16;

kernel! {
    /// Marks the lowest of every group, all but `keep`, where groups are small and fill words.
    ///
    /// # Algorithm
    ///
    /// ```text
    /// for each distance d below the size of a group
    ///     less = for every score, whether the one d places on is lower
    ///     where both are of one group
    ///         less       says of the earlier one that it outranks one more
    ///         not less   says of the later one that it outranks one more
    /// rank = how often that was said
    /// a score goes if its rank is less than the number of those to go
    /// ```
    ///
    /// All are words, of a bit a score. A rank is as many words as it has bits, and adding to all
    /// ranks of a word is what adders are made of: and, exclusive or.
    fn mark_lowest_in_words<T: Real>(
        simd; scores: &[T], keep: usize, of: usize, marks: &mut [u64],
    ) {
        // With these numbers known, compilers write every step out.
        match of {
            2 => rank_words::<T, 2, 1>(simd, scores, keep, marks),
            4 => rank_words::<T, 4, 2>(simd, scores, keep, marks),
            8 => rank_words::<T, 8, 3>(simd, scores, keep, marks),
            16 => rank_words::<T, 16, 4>(simd, scores, keep, marks),
            _ => {}
        }
    }
}

/// Scores that are looked at to rank 64: as many, and those that the last of them are compared with.
const WINDOW: usize = WORD + SMALL_GROUP;

/// Marks groups of `OF` scores, which is 2 to the power of `BITS`.
#[inline(always)]
fn rank_words<T: Real, const OF: usize, const BITS: usize>(
    simd: impl Simd,
    scores: &[T],
    keep: usize,
    marks: &mut [u64],
) {
    let excess = OF.saturating_sub(keep);
    for (i, mark) in marks.iter_mut().enumerate().take(scores.len() / WORD) {
        let scores = &scores[i * WORD..];
        if let Some(window) = scores.first_chunk() {
            *mark = rank_word::<T, OF, BITS>(simd, window, excess);
        } else {
            // Past the end there are no scores, and none that those before are compared with.
            let mut window = [T::zero(); WINDOW];
            window[..scores.len()].copy_from_slice(scores);
            *mark = rank_word::<T, OF, BITS>(simd, &window, excess);
        }
    }
}

/// Marks groups among the first 64 of some scores.
#[inline(always)]
fn rank_word<T: Real, const OF: usize, const BITS: usize>(
    simd: impl Simd,
    scores: &[T; WINDOW],
    excess: usize,
) -> u64 {
    let mut rank = [0_u64; BITS];
    for distance in 1..OF {
        let (Some(run), Some(other)) = (scores.first_chunk(), scores[distance..].first_chunk())
        else {
            continue;
        };
        let less = T::less(simd, other, run);
        let earlier = starts(OF, OF - distance);
        let later = earlier << distance;
        add(&mut rank, less & earlier, !(less << distance) & later);
    }
    is_below(&rank, excess)
}

/// A word whose every run of `of` bits begins with `ones` ones.
#[inline(always)]
const fn starts(of: usize, ones: usize) -> u64 {
    let every = u64::MAX / (u64::MAX >> (64 - of));
    ((1 << ones) - 1) * every
}

/// Adds two bits to each of 64 numbers.
#[inline(always)]
fn add<const BITS: usize>(numbers: &mut [u64; BITS], one: u64, other: u64) {
    let sum = numbers[0] ^ one;
    let mut carry = (numbers[0] & one) | (sum & other);
    numbers[0] = sum ^ other;
    for digit in &mut numbers[1..] {
        (*digit, carry) = (*digit ^ carry, *digit & carry);
    }
}

/// Which of 64 numbers are less than `bound`.
#[inline(always)]
fn is_below<const BITS: usize>(numbers: &[u64; BITS], bound: usize) -> u64 {
    let (mut less, mut equal) = (0, u64::MAX);
    for (bit, &digit) in numbers.iter().enumerate().rev() {
        if bound >> bit & 1 == 1 {
            less |= equal & !digit;
            equal &= digit;
        } else {
            equal &= !digit;
        }
    }
    less
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dispatch::tests::on_each;

    /// Sorts each group and marks what comes first.
    fn naive(scores: &[f32], keep: usize, of: usize) -> Vec<u64> {
        let mut marks = vec![0; scores.len().div_ceil(64)];
        for (i, group) in scores.chunks(of).enumerate() {
            let mut order: Vec<usize> = (0..group.len()).collect();
            order.sort_by(|&a, &b| group[a].total_cmp(&group[b]));
            for j in &order[..group.len().saturating_sub(keep)] {
                let column = i * of + j;
                marks[column / 64] |= 1 << (column % 64);
            }
        }
        marks
    }

    proptest! {
        #[test]
        fn groups_lose_what_sorting_puts_first_on_every_instruction_set(
            few_values: bool,
            mut scores in prop::collection::vec(0.0..1.0_f32, 0..400),
            (keep, of) in (1..40_usize).prop_flat_map(|of| (1..=of, Just(of))),
        ) {
            if few_values {
                for s in &mut scores {
                    *s = (*s * 3.0).floor();
                }
            }
            let expected = naive(&scores, keep, of);
            for (set, marks) in on_each(|| {
                let mut marks = vec![0; expected.len()];
                mark_lowest_of_groups(&scores, keep, of, &mut marks);
                marks
            }) {
                prop_assert_eq!(&marks, &expected, "{:?}", set);
            }
        }
    }
}
