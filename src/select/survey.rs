//! How many scores are below a bracket, and which are in it?

use crate::element::{Element, Real};
use crate::kernels::{Scaled, Words};
use crate::simd::{Simd, WORD, kernel};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simd::on_each;

    proptest! {
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
