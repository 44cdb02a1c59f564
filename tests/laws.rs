//! The laws of pruning, as properties of every metric with every pattern on every element type,
//! against an oracle that sorts.

mod common;

use proptest::prelude::*;
use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, s};
use wanda::{
    ActivationStats, ColumnNorms, Error, ErrorBasis, Magnitude, Mask, NoStats, Pattern, Pruner,
    Wanda, validate,
};

use common::element::TestElement;
use common::few_cases;
use common::layer::{self, Case, Laid, Layout, Random, Values, bits_of, gathered};
use common::metric::{Factored, Placed};
use common::oracle::{self, Refusal};

type Outcome = Result<(), TestCaseError>;

/// Fails unless `found` is the way to report `expected`.
fn same_refusal<A: TestElement>(
    found: &Error,
    expected: Refusal,
    weights: &Array2<A>,
    pattern: Pattern,
) -> Outcome {
    let matches = match (found, expected) {
        (Error::NoCalibration { .. }, Refusal::NoCalibration) => true,
        (
            Error::InvalidScore {
                row, column, score, ..
            },
            Refusal::InvalidScore,
        ) => weights.get([*row, *column]).is_some() && !score.is_finite(),
        (Error::TooManyProtected { pattern: name, .. }, Refusal::TooManyProtected) => {
            *name == pattern.to_string()
        }
        _ => false,
    };
    prop_assert!(matches, "{expected:?} was to be reported, found {found:?}");
    Ok(())
}

/// Fails unless both masks are the same, and says where they first differ.
fn same_mask(found: &Mask, expected: &Mask) -> Outcome {
    prop_assert_eq!(found.dim(), expected.dim());
    let (rows, columns) = expected.dim();
    for row in 0..rows {
        for column in 0..columns {
            prop_assert_eq!(
                found.get(row, column),
                expected.get(row, column),
                "row {}, column {}",
                row,
                column
            );
        }
    }
    prop_assert_eq!(found, expected);
    Ok(())
}

/// Laws 1 and 2.
fn mask_is_the_oracles<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
) -> Outcome {
    let (weights, inputs) = (case.weights::<A>(), case.inputs::<A>());
    let laid = Laid::new(&weights, case.layout);
    let found = Pruner::new(metric, pattern).mask(&laid.view(), &gathered(&inputs));
    match (
        found,
        oracle::mask(metric, pattern, &weights, &oracle::sums_of_squares(&inputs)),
    ) {
        (Ok(found), Ok(expected)) => same_mask(&found, &expected),
        (Err(found), Err(expected)) => same_refusal(&found, expected, &weights, pattern),
        (found, expected) => Err(TestCaseError::fail(format!(
            "{found:?} instead of {expected:?}"
        ))),
    }
}

/// Layers so large that several tasks share them: the rows of each have to be counted on from those
/// of the one before.
#[test]
fn layers_of_many_tasks_are_decided_and_pruned_as_well() {
    for values in [Values::Spread, Values::Ties] {
        let case = Case {
            rows: 200,
            columns: 400,
            values,
            tokens: 40,
            layout: Layout::RowMajor,
            seed: 9,
        };
        let block = Pattern::Block {
            rows: 7,
            cols: 3,
            sparsity: 0.5,
        };
        for pattern in [
            Pattern::PerOutput(0.5),
            Pattern::PerLayer(0.37),
            Pattern::PerInput(0.6),
            Pattern::NOfM { keep: 3, of: 7 },
            block,
            Pattern::Cumulative(0.5),
            Pattern::Threshold(0.5),
        ] {
            let check = || {
                mask_is_the_oracles::<f32, _>(Wanda, pattern, &case)?;
                mask_is_the_oracles::<f32, _>(Placed, pattern, &case)?;
                pruning_is_deciding_then_zeroing::<f32, _>(Wanda, pattern, &case)?;
                pruning_is_deciding_then_zeroing::<f32, _>(Placed, pattern, &case)
            };
            if let Err(error) = check() {
                panic!("{pattern}, {values:?}: {error}");
            }
        }
    }
}

/// Law 3, and what the report says. Also the part of law 5 about errors of scoring.
fn pruning_is_deciding_then_zeroing<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
) -> Outcome {
    let (weights, stats) = (case.weights::<A>(), gathered(&case.inputs::<A>()));
    let pruner = Pruner::new(metric, pattern);
    let mut laid = Laid::new(&weights, case.layout);
    let before = laid.memory_bits();
    let decided = pruner.mask(&laid.view(), &stats);
    prop_assert_eq!(
        laid.memory_bits(),
        before.clone(),
        "deciding changes nothing"
    );

    let report = pruner.prune(&mut laid.view_mut(), &stats);
    let (mask, report) = match (decided, report) {
        (Ok(mask), Ok(report)) => (mask, report),
        (Err(from_mask), Err(from_prune)) => {
            prop_assert_eq!(from_mask, from_prune);
            prop_assert_eq!(laid.memory_bits(), before, "an error changes nothing");
            return Ok(());
        }
        (mask, report) => {
            return Err(TestCaseError::fail(format!("{mask:?} but {report:?}")));
        }
    };

    let mut zeros = 0;
    for ((row, column), before) in weights.indexed_iter() {
        let after = laid.view()[[row, column]];
        let expected = if mask.get(row, column) == Some(true) {
            0
        } else {
            before.bits()
        };
        prop_assert_eq!(after.bits(), expected, "row {}, column {}", row, column);
        zeros += usize::from(after.exact() == 0.0);
    }
    prop_assert_eq!(laid.untouched_gaps(), laid.gaps());

    let mut applied = Laid::new(&weights, case.layout);
    prop_assert_eq!(mask.apply(&mut applied.view_mut()), Ok(()));
    prop_assert_eq!(applied.memory_bits(), laid.memory_bits());

    prop_assert_eq!((report.rows(), report.columns()), weights.dim());
    prop_assert_eq!(report.pruned(), mask.count());
    prop_assert_eq!(report.zeros(), zeros);
    let all = weights.len();
    let sparsity = if all == 0 {
        0.0
    } else {
        zeros as f64 / all as f64
    };
    prop_assert_eq!(report.sparsity().to_bits(), sparsity.to_bits());
    let sums = stats.sums_of_squares();
    prop_assert_eq!(
        report.dead_inputs(),
        sums.iter().filter(|&&sum| sum == 0.0).count()
    );
    let expected = oracle::relative_error(&weights, &laid.view(), sums);
    prop_assert_eq!(report.relative_error().is_some(), expected.is_some());
    if let (Some(found), Some(expected)) = (report.relative_error(), expected) {
        prop_assert_eq!(found.basis(), ErrorBasis::InputNorms);
        let off = (found.value() - expected).abs();
        prop_assert!(
            off <= 1e-12 * expected,
            "an error of {}, not {}",
            found.value(),
            expected
        );
    }

    let report = pruner.prune(&mut laid.view_mut(), &stats);
    prop_assert!(report.is_ok(), "{report:?} when pruned again");
    if !matches!(pattern, Pattern::Cumulative(_)) {
        prop_assert_eq!(laid.memory_bits(), applied.memory_bits(), "pruned again");
    }
    Ok(())
}

/// Protected weights stay, and the pattern finds its count among the others.
fn protected_weights_stay<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
    one_in: u64,
) -> Outcome {
    let (weights, inputs) = (case.weights::<A>(), case.inputs::<A>());
    let protected = case.protected(one_in);
    let sums = oracle::sums_of_squares(&inputs);
    let expected = oracle::scores(metric, &weights, &sums)
        .and_then(|scores| oracle::pruned(pattern, &scores, &protected));

    let stats = gathered(&inputs);
    let pruner = Pruner::new(metric, pattern).protect(oracle::to_mask(&protected));
    let mut laid = Laid::new(&weights, case.layout);
    let before = laid.memory_bits();
    let decided = pruner.mask(&laid.view(), &stats);
    let report = pruner.prune(&mut laid.view_mut(), &stats);
    match (decided, report, expected) {
        (Ok(mask), Ok(report), Ok(expected)) => {
            same_mask(&mask, &oracle::to_mask(&expected))?;
            prop_assert_eq!(report.pruned(), mask.count());
            for ((row, column), &protected) in protected.indexed_iter() {
                if protected {
                    let (before, after) = (weights[[row, column]], laid.view()[[row, column]]);
                    prop_assert_eq!(before.bits(), after.bits());
                }
            }
            let mut applied = Laid::new(&weights, case.layout);
            prop_assert_eq!(mask.apply(&mut applied.view_mut()), Ok(()));
            prop_assert_eq!(applied.memory_bits(), laid.memory_bits());
            Ok(())
        }
        (Err(from_mask), Err(from_prune), Err(expected)) => {
            same_refusal(&from_mask, expected, &weights, pattern)?;
            if let Error::TooManyProtected { row, column, .. } = from_mask {
                prop_assert_eq!(protected.get([row, column]), Some(&true));
            }
            prop_assert_eq!(from_mask, from_prune);
            prop_assert_eq!(laid.memory_bits(), before);
            Ok(())
        }
        other => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

/// A pruned matrix is valid, and no longer so once a weight comes back where it must not.
fn pruned_matrices_validate<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
) -> Outcome {
    let (weights, stats) = (case.weights::<A>(), gathered(&case.inputs::<A>()));
    let mut laid = Laid::new(&weights, case.layout);
    let pruner = Pruner::new(metric, pattern);
    let Ok(mask) = pruner.mask(&laid.view(), &stats) else {
        return Ok(());
    };
    prop_assert_eq!(mask.apply(&mut laid.view_mut()), Ok(()));
    if let Pattern::Cumulative(sparsity) = pattern {
        let zeros = laid.view().iter().filter(|w| w.exact() == 0.0).count();
        if (zeros as f64) < (sparsity - 0.001) * weights.len() as f64 {
            // A layer too small or too uneven to be cut that finely.
            return Ok(());
        }
    }

    // Zeros that the pattern did not prune keep their sign, and the first negative one is named.
    let minus = |w: &A| w.exact() == 0.0 && w.exact().is_sign_negative();
    if let Some(((row, column), _)) = laid.view().indexed_iter().find(|(_, w)| minus(w)) {
        prop_assert_eq!(
            validate(&laid.view(), &pattern),
            Err(Error::NegativeZero { row, column })
        );
        laid.view_mut()
            .mapv_inplace(|w| if minus(&w) { A::ZERO } else { w });
    }
    prop_assert_eq!(validate(&laid.view(), &pattern), Ok(()));

    // Fill every zero beyond what was pruned: still valid, and not one zero to spare, since every
    // one of the pruned is needed.
    let one = A::round(1.0);
    for ((row, column), w) in laid.view_mut().indexed_iter_mut() {
        if mask.get(row, column) == Some(false) && w.exact() == 0.0 {
            *w = one;
        }
    }
    if matches!(pattern, Pattern::Cumulative(_)) {
        return Ok(());
    }
    prop_assert_eq!(validate(&laid.view(), &pattern), Ok(()));
    if matches!(pattern, Pattern::Threshold(_)) {
        // It prunes all ties, so there may be zeros to spare.
        return Ok(());
    }
    if let Some((row, column)) = mask.iter().nth(mask.count() / 2) {
        laid.view_mut()[[row, column]] = one;
        let error = validate(&laid.view(), &pattern);
        prop_assert!(
            matches!(&error, Err(Error::PatternViolated { pattern: name, .. })
                if *name == pattern.to_string()),
            "{error:?} with a weight too many in row {row}, column {column}"
        );
    }
    Ok(())
}

/// Something infinite or undefined among the weights is named, and nothing is pruned.
fn broken_weights_are_named<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
    value: f64,
) -> Outcome {
    let mut weights = case.weights::<A>();
    if weights.is_empty() {
        return Ok(());
    }
    let mut random = Random::new(case.seed);
    let places: Vec<_> = (0..3)
        .map(|_| {
            let row = random.bits() % case.rows as u64;
            let column = random.bits() % case.columns as u64;
            (
                usize::try_from(row).expect("a row"),
                usize::try_from(column).expect("a column"),
            )
        })
        .collect();
    for &(row, column) in &places {
        weights[[row, column]] = A::round(value);
    }
    let first = *places.iter().min().expect("three places");

    // Inputs that are not all dead, so that nothing else is wrong.
    let stats = gathered(&Array2::from_elem((1, case.columns), 1.0_f32));
    let pruner = Pruner::new(metric, pattern);
    let mut laid = Laid::new(&weights, case.layout);
    let before = laid.memory_bits();
    let from_mask = pruner.mask(&laid.view(), &stats).err();
    let from_prune = pruner.prune(&mut laid.view_mut(), &stats).err();
    for error in [from_mask, from_prune] {
        let Some(Error::NonFiniteWeight {
            row,
            column,
            value: found,
        }) = error
        else {
            return Err(TestCaseError::fail(format!("{error:?}")));
        };
        prop_assert_eq!((row, column), first);
        prop_assert_eq!(found.to_string(), value.to_string());
    }
    prop_assert_eq!(laid.memory_bits(), before);
    Ok(())
}

macro_rules! laws {
    ($element:ident, $metric:ident, $pattern:ident, $name:ident) => {
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(few_cases())]

                #[test]
                fn mask_is_the_oracles(
                    case in layer::layers(),
                    pattern in layer::$pattern(),
                ) {
                    super::mask_is_the_oracles::<$element, _>($metric, pattern, &case)?;
                }

                #[test]
                fn pruning_is_deciding_then_zeroing(
                    case in layer::layers(),
                    pattern in layer::$pattern(),
                ) {
                    super::pruning_is_deciding_then_zeroing::<$element, _>(
                        $metric, pattern, &case,
                    )?;
                }

                #[test]
                fn protected_weights_stay(
                    case in layer::tame_layers(),
                    pattern in layer::$pattern(),
                    one_in in 1..40_u64,
                ) {
                    super::protected_weights_stay::<$element, _>(
                        $metric, pattern, &case, one_in,
                    )?;
                }

                #[test]
                fn pruned_matrices_validate(
                    case in layer::tame_layers(),
                    pattern in layer::$pattern(),
                ) {
                    super::pruned_matrices_validate::<$element, _>($metric, pattern, &case)?;
                }

                #[test]
                fn broken_weights_are_named(
                    case in layer::tame_layers(),
                    pattern in layer::$pattern(),
                    value in prop::sample::select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY]),
                ) {
                    super::broken_weights_are_named::<$element, _>(
                        $metric, pattern, &case, value,
                    )?;
                }
            }
        }
    };
    ($element:ident, $metric:ident) => {
        laws!($element, $metric, per_output, per_output);
        laws!($element, $metric, per_layer, per_layer);
        laws!($element, $metric, per_input, per_input);
        laws!($element, $metric, n_of_m, n_of_m);
        laws!($element, $metric, block, block);
        laws!($element, $metric, cumulative, cumulative);
        laws!($element, $metric, threshold, threshold);
    };
    ($element:ident in $name:ident) => {
        mod $name {
            use super::*;

            mod magnitude {
                use super::*;
                laws!($element, Magnitude);
            }
            mod wanda {
                use super::*;
                laws!($element, Wanda);
            }
            mod placed {
                use super::*;
                laws!($element, Placed);
            }
        }
    };
}

laws!(f32 in on_f32);
laws!(f64 in on_f64);
laws!(f16 in on_f16);
laws!(bf16 in on_bf16);

/// The bits of all sums.
fn sum_bits(stats: &ColumnNorms) -> Vec<u64> {
    stats
        .sums_of_squares()
        .iter()
        .map(|sum| sum.to_bits())
        .collect()
}

/// Cuts `tokens` into batches at random, some of them empty.
fn cuts(tokens: usize, seed: u64) -> Vec<(usize, usize)> {
    let mut random = Random::new(seed);
    let mut batches = Vec::new();
    let mut start = 0;
    while start < tokens {
        let end = tokens.min(start + random.pick(&[0, 1, 2, 3, 7, 20]));
        batches.push((start, end));
        start = end;
    }
    batches
}

fn statistics_are_plain_sums<A: TestElement>(case: &Case) -> Outcome {
    let inputs = case.inputs::<A>();
    let mut stats = ColumnNorms::new(case.columns);
    for (start, end) in cuts(case.tokens, case.seed) {
        let batch = Laid::new(&inputs.slice(s![start..end, ..]).to_owned(), case.layout);
        prop_assert_eq!(stats.update(&batch.view()), Ok(()));
    }
    let expected = oracle::sums_of_squares(&inputs);
    let expected: Vec<_> = expected.iter().map(|sum| sum.to_bits()).collect();
    prop_assert_eq!(sum_bits(&stats), expected);
    prop_assert_eq!(stats.tokens(), case.tokens as u64);
    prop_assert_eq!(stats.features(), case.columns);
    prop_assert_eq!(&stats, &gathered(&inputs), "in one batch");
    for ((norm, mean), sum) in stats
        .norms()
        .iter()
        .zip(stats.mean_squares())
        .zip(stats.sums_of_squares())
    {
        prop_assert_eq!(norm.to_bits(), sum.sqrt().to_bits());
        prop_assert_eq!(mean.to_bits(), (sum / case.tokens as f64).to_bits());
    }
    Ok(())
}

/// Weights of 0 hide garbage; other weights multiply.
fn token_weights_multiply_squares<A: TestElement>(case: &Case) -> Outcome {
    let mut inputs = case.inputs::<A>();
    let mut random = Random::new(case.seed ^ 0xaaaa);
    let weights: Vec<f32> = (0..case.tokens)
        .map(|_| random.pick(&[0.0, -0.0, 1.0, 1.0, 0.5, 3.0, 0.1]))
        .collect();
    let mut sums = vec![0.0_f64; case.columns];
    let mut seen = 0;
    for (mut token, &weight) in inputs.rows_mut().into_iter().zip(&weights) {
        if weight == 0.0 {
            token.fill(A::round(random.pick(&[f64::NAN, f64::INFINITY, 1e4])));
            continue;
        }
        seen += 1;
        for (sum, x) in sums.iter_mut().zip(token.iter()) {
            *sum += f64::from(weight) * (x.exact() * x.exact());
        }
    }
    if seen == 0 {
        sums.clear();
    }

    let mut stats = ColumnNorms::new(case.columns);
    for (start, end) in cuts(case.tokens, case.seed) {
        let batch = Laid::new(&inputs.slice(s![start..end, ..]).to_owned(), case.layout);
        prop_assert_eq!(
            stats.update_weighted(&batch.view(), &weights[start..end]),
            Ok(())
        );
    }
    prop_assert_eq!(stats.tokens(), seen);
    let expected: Vec<_> = sums.iter().map(|sum| sum.to_bits()).collect();
    prop_assert_eq!(sum_bits(&stats), expected);
    let all: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (mean, sum) in stats.mean_squares().iter().zip(stats.sums_of_squares()) {
        let expected = sum / all;
        prop_assert!((mean - expected).abs() <= 1e-14 * expected);
    }
    Ok(())
}

fn weights_of_one_change_nothing<A: TestElement>(case: &Case) -> Outcome {
    let inputs = case.inputs::<A>();
    let mut stats = ColumnNorms::new(case.columns);
    prop_assert_eq!(
        stats.update_weighted(&inputs, &vec![1.0; case.tokens]),
        Ok(())
    );
    prop_assert_eq!(stats, gathered(&inputs));
    Ok(())
}

/// Law 7, with the bound that the documentation gives.
fn merged_halves_equal_the_whole<A: TestElement>(case: &Case, at: usize) -> Outcome {
    let inputs = case.inputs::<A>();
    let at = at.min(case.tokens);
    let (first, second) = inputs.view().split_at(wanda::ndarray::Axis(0), at);
    let mut merged = ColumnNorms::new(case.columns);
    let mut other = ColumnNorms::new(case.columns);
    prop_assert_eq!(merged.update(&first), Ok(()));
    prop_assert_eq!(other.update(&second), Ok(()));
    prop_assert_eq!(merged.merge(&other), Ok(()));
    let whole = gathered(&inputs);
    prop_assert_eq!(merged.tokens(), whole.tokens());
    prop_assert_eq!(
        merged.sums_of_squares().len(),
        whole.sums_of_squares().len()
    );
    for (merged, whole) in merged.sums_of_squares().iter().zip(whole.sums_of_squares()) {
        let bound = case.tokens as f64 * f64::EPSILON / 2.0 * whole;
        prop_assert!((merged - whole).abs() <= bound, "{merged} and {whole}");
    }
    Ok(())
}

/// Law 6 for activations: the first bad value is named, and the statistics stay as they were.
fn broken_activations_are_named<A: TestElement>(case: &Case, value: f64) -> Outcome {
    if case.columns == 0 {
        return Ok(());
    }
    let mut inputs = case.inputs::<A>();
    let mut stats = gathered(&inputs);
    let before = stats.clone();
    let mut random = Random::new(case.seed);
    let token = usize::try_from(random.bits() % case.tokens as u64).expect("a token");
    let feature = usize::try_from(random.bits() % case.columns as u64).expect("a feature");
    inputs[[token, feature]] = A::round(value);
    inputs[[case.tokens - 1, case.columns - 1]] = A::round(value);

    let error = stats.update(&Laid::new(&inputs, case.layout).view()).err();
    let Some(Error::NonFiniteActivation {
        token: t,
        feature: f,
        value: found,
    }) = error
    else {
        return Err(TestCaseError::fail(format!("{error:?}")));
    };
    prop_assert_eq!((t, f), (token, feature));
    prop_assert_eq!(found.to_string(), value.to_string());
    prop_assert_eq!(stats, before);
    Ok(())
}

macro_rules! statistics_laws {
    ($element:ident, $name:ident) => {
        mod $name {
            use super::*;

            /// More tokens than a pruning test needs, of fewer features.
            fn many_tokens() -> impl Strategy<Value = Case> {
                (layer::layers(), 1..=60_usize).prop_map(|(case, tokens)| Case {
                    tokens,
                    columns: case.columns.min(600),
                    ..case
                })
            }

            proptest! {
                #![proptest_config(few_cases())]

                #[test]
                fn statistics_are_plain_sums(case in many_tokens()) {
                    super::statistics_are_plain_sums::<$element>(&case)?;
                }

                #[test]
                fn token_weights_multiply_squares(case in many_tokens()) {
                    super::token_weights_multiply_squares::<$element>(&case)?;
                }

                #[test]
                fn weights_of_one_change_nothing(case in many_tokens()) {
                    super::weights_of_one_change_nothing::<$element>(&case)?;
                }

                #[test]
                fn merged_halves_equal_the_whole(case in many_tokens(), at in 0..60_usize) {
                    super::merged_halves_equal_the_whole::<$element>(&case, at)?;
                }

                #[test]
                fn broken_activations_are_named(
                    case in many_tokens(),
                    value in prop::sample::select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY]),
                ) {
                    super::broken_activations_are_named::<$element>(&case, value)?;
                }
            }
        }
    };
}

statistics_laws!(f32, statistics_of_f32);
statistics_laws!(f64, statistics_of_f64);
statistics_laws!(f16, statistics_of_f16);
statistics_laws!(bf16, statistics_of_bf16);

proptest! {
    #[test]
    fn a_pattern_reads_back_from_its_text(pattern in layer::patterns()) {
        let text = pattern.to_string();
        prop_assert_eq!(text.parse(), Ok(pattern), "{}", text);
    }

    #[test]
    fn reading_any_text_as_a_pattern_is_an_error_or_a_pattern_that_checks_out(
        text in "([a-z]{0,6}-?(output|layer|input|block|cumulative)?)?:?[0-9x:.e+-]{0,12}",
    ) {
        match text.parse::<Pattern>() {
            Ok(pattern) => {
                let w = Array2::from_elem((2, 3), 1.0_f32);
                let decided = Pruner::new(Magnitude, pattern).mask(&w, &NoStats);
                prop_assert!(decided.is_ok(), "{pattern}: {decided:?}");
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_mask_is_the_set_of_places_it_was_made_from(case in layer::tame_layers(), one_in in 1..9_u64) {
        let marks = case.protected(one_in);
        let (rows, columns) = marks.dim();
        let mask = oracle::to_mask(&marks);
        let places: Vec<_> =
            marks.indexed_iter().filter(|(_, mark)| **mark).map(|(place, _)| place).collect();
        prop_assert_eq!(mask.iter().collect::<Vec<_>>(), places.clone());
        prop_assert_eq!(mask.count(), places.len());
        for (row, marks) in marks.rows().into_iter().enumerate() {
            prop_assert_eq!(mask.count_row(row), Some(marks.iter().filter(|&&mark| mark).count()));
        }

        let mut set = Mask::none(rows, columns).expect("a small mask");
        for &(row, column) in &places {
            prop_assert_eq!(set.set(row, column, true), Ok(()));
        }
        prop_assert_eq!(&set, &mask);

        let rest = mask.complement();
        prop_assert_eq!(rest.count(), rows * columns - mask.count());
        prop_assert_eq!(mask.differences(&rest), Ok(rows * columns));
        prop_assert_eq!(rest.complement(), mask.clone());

        let csr = rest.to_csr().expect("memory for a small layer");
        prop_assert_eq!(csr.row_starts.len(), rows + 1);
        let mut kept = Vec::new();
        for row in 0..rows {
            for &column in &csr.columns[csr.row_starts[row]..csr.row_starts[row + 1]] {
                kept.push((row, column as usize));
            }
        }
        prop_assert_eq!(kept, places);
    }

    #[test]
    fn a_mask_of_zeros_marks_zeros_of_either_sign(case in layer::tame_layers()) {
        let weights = case.weights::<bf16>();
        let found = Mask::of_zeros(&Laid::new(&weights, case.layout).view());
        let expected = oracle::to_mask(&weights.mapv(|w| w.exact() == 0.0));
        prop_assert_eq!(found, Ok(expected));
    }

    #[test]
    fn magnitudes_need_no_statistics_and_then_no_error_is_reported(
        case in layer::tame_layers(),
        pattern in layer::patterns(),
    ) {
        let mut without = case.weights::<f16>();
        let mut with = without.clone();
        let pruner = Pruner::new(Magnitude, pattern);
        let report = pruner.prune(&mut without, &NoStats).expect("finite weights");
        let with_report =
            pruner.prune(&mut with, &gathered(&case.inputs::<f16>())).expect("finite weights");
        prop_assert_eq!(bits_of(&without), bits_of(&with));
        prop_assert_eq!(report.relative_error(), None);
        prop_assert_eq!(report.dead_inputs(), 0);
        prop_assert_eq!(report.pruned(), with_report.pruned());
    }
}

#[test]
fn counts_are_rounded_down_in_double_precision() {
    // 100 · 0.29 is 28.999999999999996; in single precision it is 29.
    let w = Array2::from_shape_fn((3, 100), |(i, j)| (i * 100 + j + 1) as f32);
    let count = |pattern| {
        Pruner::new(Magnitude, pattern)
            .mask(&w, &NoStats)
            .expect("finite weights")
            .count()
    };
    assert_eq!(count(Pattern::PerOutput(0.29)), 3 * 28);
    assert_eq!(count(Pattern::PerLayer(0.29)), 87);
    assert_eq!(count(Pattern::PerInput(0.5)), 100);
    assert_eq!(count(Pattern::PerOutput(0.57)), 3 * 56);
}

#[test]
fn of_equal_scores_the_lower_column_goes_first_then_the_lower_row() {
    let w = Array2::from_elem((3, 4), -1.0_f32);
    let places = |pattern| {
        Pruner::new(Magnitude, pattern)
            .mask(&w, &NoStats)
            .expect("finite weights")
            .iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        places(Pattern::PerLayer(0.34)),
        [(0, 0), (0, 1), (1, 0), (2, 0)]
    );
    assert_eq!(places(Pattern::PerOutput(0.25)), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(
        places(Pattern::PerInput(0.34)),
        [(0, 0), (0, 1), (0, 2), (0, 3)]
    );
    let block = Pattern::Block {
        rows: 2,
        cols: 3,
        sparsity: 0.5,
    };
    // The sums of the four blocks are 6, 2, 3 and 1.
    assert_eq!(places(block), [(0, 3), (1, 3), (2, 3)]);
}

/// A norm is the root of a sum in double precision, rounded once; rounding the sum as well would
/// break ties or make some.
#[test]
#[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
fn a_norm_is_rounded_once() {
    let mut random = Random::new(3);
    let w = Array2::from_elem((1, 2), 1.0_f32);
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    let mut telling = 0;
    for _ in 0..1000 {
        let (a, b) = (random.unit() as f32, random.unit() as f32);
        let sum = a.exact() * a.exact() + b.exact() * b.exact();
        let norm = sum.sqrt() as f32;
        if (sum as f32).sqrt().to_bits() != norm.to_bits() {
            telling += 1;
        }
        // An input of that very norm: a tie, whichever of the two comes first.
        for inputs in [[[a, norm], [b, 0.0]], [[norm, a], [0.0, b]]] {
            let mask = pruner.mask(&w, &gathered(&Array2::from(inputs.to_vec())));
            let places: Vec<_> = mask.expect("a fine layer").iter().collect();
            assert_eq!(places, [(0, 0)], "{inputs:?}");
        }
    }
    assert!(
        telling > 100,
        "only {telling} sums would be rounded otherwise"
    );
}
