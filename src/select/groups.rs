//! Which are the lowest of each group? The rule of N:M patterns.

use super::run::mark_lowest;
use crate::element::{Element, Real};
use crate::kernels::{Scaled, Words};
use crate::simd::{Simd, WORD, kernel, starts};

/// Marks the `count` lowest of every run of `of` scores, and the `of_last` lowest of a shorter one
/// at the end. Score `j` is bit `j` of `marks`, which are clear.
pub(crate) fn mark_runs<T: Real>(
    scores: &[T],
    of: usize,
    count: usize,
    of_last: usize,
    marks: &mut [u64],
) {
    let (whole, last) = scores.split_at(scores.len() / of * of);
    if count < of {
        mark_lowest_of_groups(whole, of - count, of, marks);
    } else {
        // Ranks are counted in bits, of which there are none for all.
        mark_lowest(whole, whole.len(), marks, 0);
    }
    mark_lowest(last, of_last.min(last.len()), marks, whole.len());
}

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
    let whole = whole_words(scores.len(), of);
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

/// How many of `len` scores are ranked a word at a time: those in whole words, if groups fill
/// words.
pub(crate) fn whole_words(len: usize, of: usize) -> usize {
    if of.is_power_of_two() && of <= SMALL_GROUP {
        len / WORD * WORD
    } else {
        0
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
    /// for each distance d up to half the size of a group
    ///     before = for every score, whether the one d places on, round the group, goes before it
    ///         before, says of the score that one more goes before it
    ///     not before, says so of the one d places on
    /// rank = how often that was said
    /// a score goes if its rank is less than the number of those to go
    /// ```
    ///
    /// All are words, of a bit a score. A rank is as many words as it has bits, and adding to all
    /// ranks of a word is what adders are made of: and, exclusive or.
    fn mark_lowest_in_words<T: Real>(
        simd; scores: &[T], keep: usize, of: usize, marks: &mut [u64],
    ) {
        rank_words(simd, &scores, keep, of, marks);
    }
}

kernel! {
    /// The same of scores that are computed meanwhile. There are whole words of them.
    pub(crate) fn mark_lowest_of_scaled_groups<A: Element>(
        simd; scores: Scaled<'_, A>, keep: usize, of: usize, marks: &mut [u64],
    ) {
        rank_words(simd, &scores, keep, of, marks);
    }
}

/// Marks groups in words of scores.
#[inline(always)]
fn rank_words<T: Real>(
    simd: impl Simd,
    scores: &impl Words<T>,
    keep: usize,
    of: usize,
    marks: &mut [u64],
) {
    let excess = of.saturating_sub(keep);
    // With the size of a group known, compilers write every step out.
    match of {
        2 => rank_each::<T, 2, 1, 1>(simd, scores, excess, marks),
        4 => rank_each::<T, 4, 2, 2>(simd, scores, excess, marks),
        8 => rank_each::<T, 8, 4, 3>(simd, scores, excess, marks),
        16 => rank_each::<T, 16, 8, 4>(simd, scores, excess, marks),
        _ => {}
    }
}

/// Words that are ranked together, so that vectors of words are added.
const BATCH: usize = 16;

/// Words of bits, the lowest byte of each first.
type Bits = [[u8; WORD / 8]; BATCH];

/// Marks groups of `OF` scores, which is twice `HALF` and 2 to the power of `BITS`.
#[inline(always)]
fn rank_each<T: Real, const OF: usize, const HALF: usize, const BITS: usize>(
    simd: impl Simd,
    scores: &impl Words<T>,
    excess: usize,
    marks: &mut [u64],
) {
    let words = scores.len() / WORD;
    for (i, marks) in marks[..words].chunks_mut(BATCH).enumerate() {
        let mut before: [Bits; HALF] = [[[0; WORD / 8]; BATCH]; HALF];
        for j in 0..marks.len() {
            let word = scores.word(i * BATCH + j);
            for (distance, before) in (1..).zip(&mut before) {
                T::goes_before::<OF>(simd, &word, distance, &mut before[j]);
            }
        }
        let lowest = lowest_of_groups::<OF, HALF, BITS>(&before, excess);
        marks.copy_from_slice(&lowest[..marks.len()]);
    }
}

/// Which scores have less than `excess` before them in their group. `before` says for each distance
/// up to half a group whether the score so many places on goes before a score.
#[inline(always)]
fn lowest_of_groups<const OF: usize, const HALF: usize, const BITS: usize>(
    before: &[Bits; HALF],
    excess: usize,
) -> [u64; BATCH] {
    let mut lowest = [0; BATCH];
    for (word, lowest) in lowest.iter_mut().enumerate() {
        let mut rank = [0_u64; BITS];
        for distance in 1..HALF {
            let before = u64::from_le_bytes(before[distance - 1][word]);
            add(&mut rank, before, rotate(!before, OF, distance));
        }
        // Half a group on is half a group back.
        let before = u64::from_le_bytes(before[HALF - 1][word]);
        add(&mut rank, before, 0);
        *lowest = is_below(&rank, excess);
    }
    lowest
}

/// Moves every bit `distance` places on in its group of `of`, and from the end of it to its start.
#[inline(always)]
const fn rotate(word: u64, of: usize, distance: usize) -> u64 {
    let first = starts(of, distance);
    (word << distance & !first) | (word >> (of - distance) & first)
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
    use crate::simd::on_each;

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
