//! What is asked of scores that are computed meanwhile, and layers to find the lowest scores of.

use half::{bf16, f16};
use ndarray::Array2;
use num_traits::{Float, Zero, cast};
use proptest::prelude::*;

use super::groups::{mark_lowest_of_groups, mark_lowest_of_scaled_groups, whole_words};
use super::run::{mark_scaled_up_to_cut, mark_up_to_cut};
use super::survey::{survey_marking, survey_scaled};
use crate::element::{Element, Real};
use crate::kernels::Scaled;
use crate::simd::{WORD, on_each};

/// Checks that what takes scaled weights does what is done with their scores, which are
/// computed one by one.
fn check<A: Element>(weights: &[(f32, f32)], of: usize) -> Result<(), TestCaseError> {
    let (weights, factors): (Vec<A>, Vec<A::Compute>) = weights
        .iter()
        .map(|&(weight, factor)| {
            let [weight, factor] = [weight, factor].map(|x| A::Compute::from_f64(x.into()));
            (A::narrow(weight), factor)
        })
        .unzip();
    let scores = weights.iter().zip(&factors);
    let scores: Vec<_> = scores.map(|(w, &f)| w.widen().abs() * f).collect();
    let scaled = Scaled {
        weights: &weights,
        factors: &factors,
    };
    let words = weights.len().div_ceil(WORD);
    let (low, high) = (scores[0].min(scores[scores.len() / 2]), scores[0]);
    let whole = whole_words(scores.len(), of);
    let none = || vec![0_u64; words];

    let (mut surveyed, mut cut, mut groups) = ([none(), none()], none(), none());
    let mut held = vec![A::Compute::zero(); scores.len() + WORD];
    let [below, within] = &mut surveyed;
    let survey = survey_marking(&scores, low, high, &mut held, below, within);
    mark_up_to_cut(&scores, high, 2, &mut cut, 0);
    mark_lowest_of_groups(&scores[..whole], of / 2, of, &mut groups);

    for (set, found) in on_each(|| {
        let (mut surveyed, mut cut, mut groups) = ([none(), none()], none(), none());
        let mut copied = vec![A::Compute::zero(); held.len()];
        let [below, within] = &mut surveyed;
        let survey = survey_scaled(scaled, low, high, &mut copied, below, within);
        copied.truncate(survey.within);
        mark_scaled_up_to_cut(scaled, high, 2, &mut cut, 0);
        let scaled = Scaled {
            weights: &weights[..whole],
            factors: &factors[..whole],
        };
        mark_lowest_of_scaled_groups(scaled, of / 2, of, &mut groups);
        (survey, copied, surveyed, cut, groups)
    }) {
        prop_assert_eq!(found.0, survey, "{:?}", set);
        prop_assert_eq!(&found.1, &held[..survey.within], "{:?}", set);
        prop_assert_eq!(&found.2, &surveyed, "{:?}", set);
        prop_assert_eq!(&found.3, &cut, "{:?}", set);
        prop_assert_eq!(&found.4, &groups, "{:?}", set);
    }
    Ok(())
}

proptest! {
    #[test]
    fn scores_computed_meanwhile_are_decided_like_stored_ones_on_every_instruction_set(
        weights in prop::collection::vec(
            (prop_oneof![-2.0..2.0_f32, Just(-0.0), Just(1.0)], 0.0..3.0_f32),
            1..400,
        ),
        of in prop::sample::select(vec![2_usize, 3, 4, 8, 16, 32]),
    ) {
        check::<f32>(&weights, of)?;
        check::<f64>(&weights, of)?;
        check::<bf16>(&weights, of)?;
        check::<f16>(&weights, of)?;
    }
}

/// A score, from its row and column and a random number from 0 to 1.
type Score = fn(usize, usize, f32) -> f32;

/// Scores of different kinds.
const KINDS: [(&str, Score); 11] = [
    ("spread", |_, _, x| x),
    ("few values", |_, _, x| (x * 4.0).floor()),
    ("one value", |_, _, _| 2.0),
    ("alike in a row", |row, _, x| row as f32 + x),
    ("alike in every other row", |row, _, x| (row % 2) as f32 + x),
    ("alike in a column", |_, column, x| column as f32 + x),
    ("zero in a column", |_, column, x| x * column as f32),
    (
        "one row far below",
        |row, _, x| if row == 9 { x } else { 1e6 + x },
    ),
    (
        "few of many values",
        |row, _, x| if row % 500 == 3 { x } else { 1.0 },
    ),
    ("of all sizes", |_, _, x| (x * 80.0 - 40.0).exp()),
    (
        "some protected",
        |_, _, x| if x > 0.9 { f32::INFINITY } else { x },
    ),
];

/// A layer of each kind, the same every time.
pub(super) fn layers(shape: (usize, usize)) -> impl Iterator<Item = (String, Array2<f32>)> {
    KINDS.into_iter().map(move |(kind, score)| {
        let mut state = 1_u64;
        let scores = Array2::from_shape_fn(shape, |(row, column)| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            score(row, column, (state >> 40) as f32 / (1_u64 << 24) as f32)
        });
        (format!("{kind}, {shape:?}"), scores)
    })
}

/// So large a part of `count`, rounded down.
pub(super) fn part_of(count: usize, part: f64) -> usize {
    cast(count as f64 * part).expect("a part of a number of scores")
}
