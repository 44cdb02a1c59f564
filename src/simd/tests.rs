//! Every instruction set does what plain Rust does.

use proptest::prelude::*;

use super::instructions::{AddMarked, Clearable, Compare, Deposit, LANES, Simd, WORD};
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};

/// Numbers of which many are equal.
fn numbers() -> impl Strategy<Value = [f64; WORD]> {
    let number = prop_oneof![
        (0..6_u8).prop_map(f64::from),
        -2.0..8.0_f64,
        Just(f64::INFINITY),
        Just(f64::NAN),
    ];
    prop::collection::vec(number, WORD).prop_map(|numbers| numbers.try_into().expect("64 numbers"))
}

fn bits(bit: impl Fn(usize) -> bool) -> u64 {
    (0..WORD).fold(0, |word, i| word | u64::from(bit(i)) << i)
}

fn check_survey<T: Copy + PartialOrd + std::fmt::Debug>(
    simd: impl Compare<T>,
    run: &[T; WORD],
    low: T,
    high: T,
) {
    let mut out = *run;
    let (below, within) = simd.survey(run, low, high, &mut out);
    // Not the same as to be from `low` to `high`: what is not a number is neither side of them.
    let is_outside = |x: T| x < low || x > high;
    let inside: Vec<T> = run.iter().copied().filter(|&x| !is_outside(x)).collect();
    assert_eq!(below, bits(|i| run[i] < low));
    assert_eq!(within, bits(|i| !is_outside(run[i])));
    // And it is not equal to itself.
    let text = |run: &[T]| format!("{run:?}");
    assert_eq!(text(&out[..inside.len()]), text(&inside));
}

fn check<S: Simd>(simd: S, run: &[f64; WORD], bound: f64) {
    check_bound(simd, run, bound);
    // Scores are numbers, and not negative.
    let scores = run.map(|x| if x > 0.0 { x } else { 0.0 });
    let high = bound + 3.0;
    check_survey(simd, run, bound, high);
    check_order(simd, &scores);
    #[allow(clippy::cast_possible_truncation, reason = "any number will do")]
    let (run, bound, high) = (run.map(|x| x as f32), bound as f32, high as f32);
    #[allow(clippy::cast_possible_truncation, reason = "any number will do")]
    let scores = scores.map(|x| x as f32);
    check_bound(simd, &run, bound);
    check_survey(simd, &run, bound, high);
    check_order(simd, &scores);
}

fn check_bound<T: Copy + PartialOrd>(simd: impl Compare<T>, run: &[T; WORD], bound: T) {
    assert_eq!(simd.below(run, bound), bits(|i| run[i] < bound));
    assert_eq!(simd.above(run, bound), bits(|i| run[i] > bound));
    let mut bounds = *run;
    bounds.rotate_left(1);
    assert_eq!(simd.below_each(run, &bounds), bits(|i| run[i] < bounds[i]));
}

fn check_order<T: Copy + PartialOrd>(simd: impl Compare<T>, run: &[T; WORD]) {
    check_order_of_groups::<T, 2>(simd, run);
    check_order_of_groups::<T, 4>(simd, run);
    check_order_of_groups::<T, 8>(simd, run);
    check_order_of_groups::<T, 16>(simd, run);
}

fn check_order_of_groups<T: Copy + PartialOrd, const OF: usize>(
    simd: impl Compare<T>,
    run: &[T; WORD],
) {
    let mut order: Vec<usize> = (0..WORD).collect();
    for group in order.chunks_mut(OF) {
        group.sort_by(|&i, &j| run[i].partial_cmp(&run[j]).expect("numbers"));
    }
    let rank = |i| order.iter().position(|&j| j == i);
    for distance in 1..OF {
        let expected = bits(|i| rank(i / OF * OF + (i + distance) % OF) < rank(i));
        let mut found = [0; WORD / 8];
        simd.goes_before::<OF>(run, distance, &mut found);
        assert_eq!(u64::from_le_bytes(found), expected, "{OF}, {distance}");
    }
}

fn check_clear<B: Clearable + std::fmt::Debug>(simd: impl Simd, run: &[B; WORD], marks: u64) {
    let marked = |i: usize| marks >> i & 1 == 1;
    let expected: [B; WORD] = std::array::from_fn(|i| if marked(i) { B::zero() } else { run[i] });
    let zeros = expected
        .iter()
        .filter(|&&bits| bits << 1 == B::zero())
        .count();
    let mut cleared = *run;
    assert_eq!(B::clear(simd, &mut cleared, marks), zeros);
    assert_eq!(cleared, expected);
}

fn check_deposit(simd: impl Deposit, word: u64, places: u64) {
    let set = (0..WORD).filter(|i| places >> i & 1 == 1);
    let expected = set
        .enumerate()
        .fold(0, |bits, (from, to)| bits | (word >> from & 1) << to);
    assert_eq!(simd.deposit(word, places), expected);
}

fn check_add_marked(simd: impl AddMarked, sums: [f64; LANES], values: [f64; LANES], marks: u8) {
    let mut found = sums;
    simd.add_marked(&mut found, &values, marks);
    for (i, found) in found.iter().enumerate() {
        let sum = sums[i] + if marks >> i & 1 == 1 { values[i] } else { 0.0 };
        assert_eq!(found.to_bits(), sum.to_bits());
    }
}

/// Runs a check on every instruction set of the machine.
macro_rules! on_each {
    ($check:ident($($argument:expr),*)) => {
        $check(Portable, $($argument),*);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx2) = Avx2::detect() {
                $check(avx2, $($argument),*);
            }
            if let Some(avx512) = Avx512::detect() {
                $check(avx512, $($argument),*);
            }
        }
    };
}

proptest! {
    #[test]
    fn every_instruction_set_compares_alike(
        run in numbers(),
        bound in numbers()
            .prop_map(|numbers| numbers[0])
            .prop_filter("a number", |x| !x.is_nan()),
    ) {
        on_each!(check(&run, bound));
    }

    #[test]
    fn every_instruction_set_clears_alike(
        numbers in prop::collection::vec(
            prop_oneof![Just(0), Just(1_u64 << 63), any::<u64>()],
            WORD,
        ),
        marks: u64,
    ) {
        let run: [u64; WORD] = numbers.try_into().expect("64 numbers");
        on_each!(check_clear(&run, marks));
        on_each!(check_clear(&run.map(|bits| (bits >> 32) as u32), marks));
        on_each!(check_clear(&run.map(|bits| (bits >> 48) as u16), marks));
    }

    #[test]
    fn every_instruction_set_deposits_alike(word: u64, places: u64) {
        on_each!(check_deposit(word, places));
    }

    #[test]
    fn every_instruction_set_adds_alike(
        sums: [u16; LANES], values: [u16; LANES], marks: u8,
    ) {
        let (sums, values) = (sums.map(f64::from), values.map(|x| f64::from(x) / 3.0));
        on_each!(check_add_marked(sums, values, marks));
    }
}
