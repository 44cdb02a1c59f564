//! Gram matrices: the sum of products that they should be, however the tokens come.
#![cfg(feature = "second-order")]

mod common;

use proptest::prelude::*;
use wanda::LayerStats;
use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, Axis, array, s};
use wanda::{
    ActivationStats, ColumnNorms, Error, GatherStats, Gram, NoStats, Pattern, Pruner, Wanda,
};

use common::element::TestElement;
use common::few_cases;
use common::layer::{
    Case, Laid, Layout, Random, bits_of, correlated_inputs, gathered, gram_of, tame_layers,
};
use common::oracle_obs;
use common::refusal::refuses_change;

/// What rounding may do to an entry, relative to the norms of its two features: the
/// documentation says about 10⁻⁷ for blocks in single precision.
fn rounding<A: TestElement>() -> f64 {
    if size_of::<A>() == size_of::<f64>() {
        2e-14
    } else {
        2e-7
    }
}

/// The matrix, of which nothing but memory can be lacking.
fn matrix(gram: &Gram) -> Array2<f64> {
    gram.to_array().expect("memory for a small matrix")
}

/// The largest error of an entry, relative to the norms of its two features.
fn largest_error(found: &Array2<f64>, expected: &Array2<f64>) -> f64 {
    let norms = expected.diag().mapv(f64::sqrt);
    let errors = found.indexed_iter().map(|((j, k), x)| {
        let off = (x - expected[[j, k]]).abs();
        // Also where a norm is 0 and nothing may be off.
        if off == 0.0 {
            0.0
        } else {
            off / (norms[j] * norms[k])
        }
    });
    errors.fold(0.0, f64::max)
}

/// Inputs of three kinds of features: ordinary ones, outliers and small ones.
fn inputs_with_outliers<A: TestElement>(dim: (usize, usize), seed: u64) -> Array2<A> {
    let mut inputs = correlated_inputs::<f64>(dim, seed);
    for (feature, mut column) in inputs.columns_mut().into_iter().enumerate() {
        let scale = [1.0, 1e3, 1.0, 1e-2][feature % 4];
        column.mapv_inplace(|x| scale * x);
    }
    inputs.mapv(A::round)
}

fn entries_are_sums_of_products<A: TestElement>() {
    let inputs = inputs_with_outliers::<A>((20_000, 32), 11);
    let expected = oracle_obs::gram(&inputs);
    let mut gram = Gram::new(32);
    for batch in inputs.axis_chunks_iter(Axis(0), 3000) {
        gram.update(&batch).expect("finite inputs");
    }
    let found = matrix(&gram);
    let error = largest_error(&found, &expected);
    assert!(error <= rounding::<A>(), "off by {error}");
    assert_eq!(found, found.t(), "the matrix is symmetric");
    let sums: Vec<f64> = found.diag().to_vec();
    assert_eq!(sums, gram.sums_of_squares());
    for (sum, expected) in sums.iter().zip(expected.diag()) {
        assert!((sum - expected).abs() <= 20_000.0 * f64::EPSILON * expected);
    }
}

#[test]
fn entries_are_sums_of_products_for_single_precision() {
    entries_are_sums_of_products::<f32>();
}

#[test]
fn entries_are_sums_of_products_for_double_precision() {
    entries_are_sums_of_products::<f64>();
}

#[test]
fn entries_are_sums_of_products_for_half_precision() {
    entries_are_sums_of_products::<f16>();
    entries_are_sums_of_products::<bf16>();
}

/// The error does not grow with the tokens, because blocks are added up in double precision.
#[test]
fn a_million_half_precision_tokens_lose_nothing_beside_outliers() {
    let mut gram = Gram::new(8);
    let mut expected = Array2::zeros((8, 8));
    for seed in 0..20 {
        let inputs = inputs_with_outliers::<bf16>((50_000, 8), seed);
        gram.update(&inputs).expect("finite inputs");
        expected += &oracle_obs::gram(&inputs);
    }
    assert_eq!(gram.tokens(), 1_000_000);
    let error = largest_error(&matrix(&gram), &expected);
    println!("off by {error} after a million tokens");
    assert!(error <= 1e-8, "off by {error}");
}

/// Wider than the panels that the sum is held in.
#[test]
fn entries_of_wide_matrices_are_sums_of_products() {
    let inputs = correlated_inputs::<f32>((10, 1101), 3);
    let error = largest_error(&matrix(&gram_of(&inputs)), &oracle_obs::gram(&inputs));
    assert!(error <= rounding::<f32>(), "off by {error}");
}

/// Numbers whose squares single precision cannot hold.
#[test]
fn huge_and_tiny_inputs_have_finite_sums_that_are_right() {
    let ordinary = correlated_inputs::<f32>((300, 9), 5);
    for scale in [1e30, 1e20, 1e-20, 1e-30] {
        let inputs = ordinary.mapv(|x| x * scale);
        let expected = oracle_obs::gram(&inputs);
        let gram = gram_of(&inputs);
        let found = matrix(&gram);
        assert!(found.iter().all(|x| x.is_finite()));
        let error = largest_error(&found, &expected);
        assert!(error <= rounding::<f32>(), "off by {error} at {scale}");
        assert!(gram.sums_of_squares().iter().all(|&sum| sum > 0.0));
    }
    // All together, and beside what is ordinary.
    let mut mixed = ordinary;
    for (feature, mut column) in mixed.columns_mut().into_iter().enumerate() {
        let scale = [1e30, 1.0, 1e-30][feature % 3];
        column.mapv_inplace(|x| x * scale);
    }
    let error = largest_error(&matrix(&gram_of(&mixed)), &oracle_obs::gram(&mixed));
    assert!(error <= rounding::<f32>(), "off by {error}");
}

/// The stated error is relative to the norms of the two features, whatever the others are.
#[test]
fn tiny_features_beside_ordinary_ones_keep_their_products() {
    let mut inputs = correlated_inputs::<f32>((300, 6), 5);
    for mut column in inputs.columns_mut().into_iter().skip(1) {
        column.mapv_inplace(|x| x * 1e-25);
    }
    let error = largest_error(&matrix(&gram_of(&inputs)), &oracle_obs::gram(&inputs));
    assert!(error <= rounding::<f32>(), "off by {error}");
}

#[test]
fn inputs_of_both_precisions_add_up() {
    let first = correlated_inputs::<f32>((2100, 7), 1);
    let second = correlated_inputs::<f64>((2200, 7), 2);
    let third = correlated_inputs::<bf16>((30, 7), 3);
    let mut gram = Gram::new(7);
    gram.update(&first).expect("finite inputs");
    gram.update(&second).expect("finite inputs");
    gram.update(&third).expect("finite inputs");
    let expected = oracle_obs::gram(&first) + oracle_obs::gram(&second) + oracle_obs::gram(&third);
    let error = largest_error(&matrix(&gram), &expected);
    assert!(error <= rounding::<f32>(), "off by {error}");
    assert_eq!(gram.tokens(), 2100 + 2200 + 30);
}

/// Full blocks of tokens end at the same places whatever the batches.
fn any_cut_into_batches_gives_the_same_bits<A: TestElement>() {
    let inputs = correlated_inputs::<A>((5000, 5), 7);
    let whole = gram_of(&inputs);
    let bits = bits_of(&matrix(&whole));
    for tokens in [1, 7, 1000, 2047, 2048, 2049, 4097, 4999] {
        let mut gram = Gram::new(5);
        for batch in inputs.axis_chunks_iter(Axis(0), tokens) {
            gram.update(&batch).expect("finite inputs");
        }
        assert_eq!(gram, whole, "{tokens} tokens at a time");
        assert_eq!(bits_of(&matrix(&gram)), bits, "{tokens} tokens at a time");
    }
}

#[test]
fn any_cut_into_batches_gives_the_same_bits_for_any_type() {
    any_cut_into_batches_gives_the_same_bits::<f32>();
    any_cut_into_batches_gives_the_same_bits::<f64>();
    any_cut_into_batches_gives_the_same_bits::<bf16>();
}

fn every_layout_gives_the_same_bits<A: TestElement>() {
    let inputs = correlated_inputs::<A>((2100, 67), 9);
    let expected = gram_of(&inputs);
    for layout in Layout::ALL {
        let found = gram_of(&Laid::new(&inputs, layout).view());
        assert_eq!(found, expected, "{layout:?}");
        assert_eq!(bits_of(&matrix(&found)), bits_of(&matrix(&expected)));
    }
}

#[test]
fn every_layout_gives_the_same_bits_for_any_type() {
    every_layout_gives_the_same_bits::<f32>();
    every_layout_gives_the_same_bits::<f64>();
    every_layout_gives_the_same_bits::<f16>();
}

#[test]
fn a_token_of_weight_k_counts_as_k_tokens() {
    let inputs = correlated_inputs::<f32>((1500, 6), 13);
    let mut random = Random::new(13);
    let counts: Vec<usize> = (0..1500)
        .map(|_| random.pick(&[0, 1, 1, 2, 3, 5]))
        .collect();
    let repeated: Vec<usize> = counts
        .iter()
        .enumerate()
        .flat_map(|(token, &count)| vec![token; count])
        .collect();
    let repeated = inputs.select(Axis(0), &repeated);

    let weights: Vec<f32> = counts.iter().map(|&count| count as f32).collect();
    let mut weighted = Gram::new(6);
    weighted
        .update_weighted(&inputs, &weights)
        .expect("finite inputs");
    let error = largest_error(&matrix(&weighted), &oracle_obs::gram(&repeated));
    assert!(error <= rounding::<f32>(), "off by {error}");
    let seen = counts.iter().filter(|&&count| count > 0).count();
    assert_eq!(weighted.tokens(), seen as u64);
}

#[test]
fn weights_need_not_be_whole() {
    let inputs = correlated_inputs::<f64>((100, 6), 14);
    let mut random = Random::new(14);
    let weights: Vec<f32> = (0..100).map(|_| random.pick(&[0.25, 0.3, 1.7])).collect();
    let mut weighted = Gram::new(6);
    weighted
        .update_weighted(&inputs, &weights)
        .expect("finite inputs");
    let mut scaled = inputs;
    for (mut token, &weight) in scaled.rows_mut().into_iter().zip(&weights) {
        token.mapv_inplace(|x| x * f64::from(weight).sqrt());
    }
    let error = largest_error(&matrix(&weighted), &oracle_obs::gram(&scaled));
    assert!(error <= rounding::<f64>(), "off by {error}");
}

#[test]
fn weights_may_be_of_any_size() {
    let inputs = correlated_inputs::<f32>((60, 6), 16);
    for size in [1e-30_f32, 1e-7, 1e7, 1e30] {
        let mut weighted = Gram::new(6);
        weighted
            .update_weighted(&inputs, &[size; 60])
            .expect("finite inputs");
        let expected = oracle_obs::gram(&inputs) * f64::from(size);
        let error = largest_error(&matrix(&weighted), &expected);
        assert!(error <= rounding::<f32>(), "off by {error} for {size}");
    }
}

#[test]
fn weighted_tokens_of_huge_and_tiny_values_have_finite_sums_that_are_right() {
    for size in [1e36_f32, 3e38, 1e-36, 1e-42] {
        for weight in [0.25_f32, 1e6, 1e-6] {
            // Beside ordinary tokens, and with values that are zero.
            let inputs = array![[size, 1.0, 0.0], [0.5, 2.0, 1.0], [0.0, size, size]];
            let mut gram = Gram::new(3);
            gram.update_weighted(&inputs, &[weight; 3])
                .expect("finite inputs");
            let found = matrix(&gram);
            let root = f64::from(weight).sqrt();
            let expected = oracle_obs::gram(&inputs.mapv(|x| root * f64::from(x)));
            for (found, expected) in found.iter().zip(&expected) {
                let off = (found - expected).abs();
                assert!(
                    off <= 1e-6 * expected,
                    "{size}, {weight}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn any_cut_of_weighted_tokens_gives_the_same_bits() {
    let inputs = correlated_inputs::<f32>((3000, 5), 8);
    let mut random = Random::new(8);
    for sizes in [[1.0, 0.0, 2.5], [1.0, 1e-8, 1e8]] {
        let weights: Vec<f32> = (0..3000).map(|_| random.pick(&sizes)).collect();
        let mut whole = Gram::new(5);
        whole
            .update_weighted(&inputs, &weights)
            .expect("finite inputs");
        for tokens in [1, 10, 2048] {
            let mut gram = Gram::new(5);
            let batches = inputs.axis_chunks_iter(Axis(0), tokens);
            for (batch, weights) in batches.zip(weights.chunks(tokens)) {
                gram.update_weighted(&batch, weights)
                    .expect("finite inputs");
            }
            assert_eq!(
                bits_of(&matrix(&gram)),
                bits_of(&matrix(&whole)),
                "{tokens} tokens at a time, weights of {sizes:?}"
            );
        }
    }
}

/// Padding is not looked at, and does not move the borders of blocks.
#[test]
fn a_token_of_weight_0_is_as_if_it_were_not_there() {
    let inputs = correlated_inputs::<f32>((2500, 6), 15);
    let mut random = Random::new(15);
    let weights: Vec<f32> = (0..2500)
        .map(|_| random.pick(&[0.0, -0.0, 1.0, 1.0]))
        .collect();
    let seen: Vec<usize> = (0..2500).filter(|&token| weights[token] != 0.0).collect();
    let expected = gram_of(&inputs.select(Axis(0), &seen));

    let mut padded = inputs;
    for (mut token, &weight) in padded.rows_mut().into_iter().zip(&weights) {
        if weight == 0.0 {
            token.fill(random.pick(&[f32::NAN, f32::INFINITY, 1e4]));
        }
    }
    let mut gram = Gram::new(6);
    for (batch, weights) in padded
        .axis_chunks_iter(Axis(0), 999)
        .zip(weights.chunks(999))
    {
        gram.update_weighted(&batch, weights)
            .expect("finite but for padding");
    }
    assert_eq!(gram, expected);
    assert_eq!(bits_of(&matrix(&gram)), bits_of(&matrix(&expected)));
}

fn merged_halves_equal_the_whole<A: TestElement>() {
    let inputs = correlated_inputs::<A>((5000, 6), 17);
    let whole = oracle_obs::gram(&inputs);
    for at in [0, 1, 2048, 2500, 3000, 5000] {
        let (first, second) = inputs.view().split_at(Axis(0), at);
        let (mut merged, other) = (gram_of(&first), gram_of(&second));
        let mut norms = merged.norms().clone();
        norms.merge(other.norms()).expect("as many features");
        merged.merge(&other).expect("as many features");
        assert_eq!(merged.tokens(), 5000);
        assert_eq!(merged.norms(), &norms);
        let error = largest_error(&matrix(&merged), &whole);
        assert!(error <= rounding::<A>(), "off by {error}, merged at {at}");
    }
}

#[test]
fn merged_halves_equal_the_whole_for_any_type() {
    merged_halves_equal_the_whole::<f32>();
    merged_halves_equal_the_whole::<f64>();
    merged_halves_equal_the_whole::<f16>();
}

#[test]
fn merging_what_saw_nothing_changes_nothing() {
    let seen = gram_of(&correlated_inputs::<f32>((2100, 6), 18));
    let mut merged = seen.clone();
    merged.merge(&Gram::new(6)).expect("as many features");
    assert_eq!(merged, seen);
    let mut merged = Gram::new(6);
    merged.merge(&seen).expect("as many features");
    assert_eq!(merged, seen);
}

#[test]
fn merged_statistics_are_continued() {
    let inputs = correlated_inputs::<f32>((6000, 4), 19);
    let mut merged = gram_of(&inputs.slice(s![..1500, ..]));
    merged
        .merge(&gram_of(&inputs.slice(s![1500..4000, ..])))
        .expect("as many features");
    merged
        .update(&inputs.slice(s![4000.., ..]))
        .expect("finite inputs");
    let error = largest_error(&matrix(&merged), &oracle_obs::gram(&inputs));
    assert!(error <= rounding::<f32>(), "off by {error}");
    assert_eq!(merged.tokens(), 6000);
}

/// The same sums, bit for bit, so the same masks.
fn it_serves_as_column_norms<A: TestElement>(case: &Case) -> Result<(), TestCaseError> {
    let inputs = case.inputs::<A>();
    let (gram, norms) = (gram_of(&inputs), gathered(&inputs));
    prop_assert_eq!(gram.norms(), &norms);
    prop_assert_eq!(gram.features(), norms.features());
    prop_assert_eq!(gram.tokens(), norms.tokens());
    let bits = |stats: &dyn ActivationStats| -> Vec<u64> {
        stats
            .sums_of_squares()
            .iter()
            .map(|sum| sum.to_bits())
            .collect()
    };
    prop_assert_eq!(bits(&gram), bits(&norms));
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    let weights = case.weights::<f32>();
    prop_assert_eq!(pruner.mask(&weights, &gram), pruner.mask(&weights, &norms));
    Ok(())
}

fn small_matrices_are_sums_of_products<A: TestElement>(case: &Case) -> Result<(), TestCaseError> {
    let inputs = case.inputs::<A>();
    let laid = Laid::new(&inputs, case.layout);
    let found = matrix(&gram_of(&laid.view()));
    let error = largest_error(&found, &oracle_obs::gram(&inputs));
    prop_assert!(error <= rounding::<A>(), "off by {}", error);
    Ok(())
}

macro_rules! laws {
    ($element:ident, $name:ident) => {
        mod $name {
            use super::*;

            fn narrow_layers() -> impl Strategy<Value = Case> {
                tame_layers().prop_map(|case| Case {
                    columns: case.columns.min(200),
                    ..case
                })
            }

            proptest! {
                #![proptest_config(few_cases())]

                #[test]
                fn it_serves_as_column_norms(case in narrow_layers()) {
                    super::it_serves_as_column_norms::<$element>(&case)?;
                }

                #[test]
                fn small_matrices_are_sums_of_products(case in narrow_layers()) {
                    super::small_matrices_are_sums_of_products::<$element>(&case)?;
                }
            }
        }
    };
}

laws!(f32, of_f32);
laws!(f64, of_f64);
laws!(f16, of_f16);
laws!(bf16, of_bf16);

/// Fails unless the statistics refuse what is done to them, and stay as they are.
fn refuses(gram: &mut Gram, change: impl FnOnce(&mut Gram) -> wanda::Result<()>) -> Error {
    let bits = bits_of(&matrix(gram));
    let error = refuses_change(gram, change);
    assert_eq!(bits_of(&matrix(gram)), bits, "{error}");
    error
}

#[test]
fn an_error_leaves_the_statistics_as_they_were() {
    let inputs = correlated_inputs::<f32>((2100, 4), 21);
    let gram = &mut gram_of(&inputs);
    let ones = Array2::<f32>::ones((3, 4));
    let mut broken = inputs;
    broken[[2060, 2]] = f32::NAN;
    let error = refuses(gram, |gram| gram.update(&broken));
    assert!(
        matches!(
            error,
            Error::NonFiniteActivation {
                token: 2060,
                feature: 2,
                ..
            }
        ),
        "{error:?}"
    );
    let error = refuses(gram, |gram| gram.update(&Array2::<f32>::ones((3, 5))));
    assert!(matches!(error, Error::BatchShape { .. }), "{error:?}");
    let error = refuses(gram, |gram| gram.update_weighted(&ones, &[1.0]));
    assert!(matches!(error, Error::TokenWeightCount { .. }), "{error:?}");
    let error = refuses(gram, |gram| gram.update_weighted(&ones, &[1.0, -1.0, 1.0]));
    assert!(
        matches!(error, Error::InvalidTokenWeight { token: 1, .. }),
        "{error:?}"
    );
    let large = Array2::from_elem((3, 4), 1e200_f64);
    let error = refuses(gram, |gram| gram.update(&large));
    assert!(
        matches!(error, Error::InvalidStatistic { feature: 0, .. }),
        "{error:?}"
    );
    let error = refuses(gram, |gram| gram.merge(&Gram::new(5)));
    assert_eq!(error, Error::MergeFeatures { left: 4, right: 5 });
}

#[test]
fn batches_without_tokens_or_features_change_nothing() {
    let mut gram = gram_of(&correlated_inputs::<f32>((5, 3), 22));
    let before = gram.clone();
    let none = Array2::<f32>::zeros((0, 3));
    assert_eq!(gram.update(&none), Ok(()));
    assert_eq!(gram.update_weighted(&none, &[]), Ok(()));
    let padding = Array2::from_elem((2, 3), f32::NAN);
    assert_eq!(gram.update_weighted(&padding, &[0.0, 0.0]), Ok(()));
    assert_eq!(gram, before);

    let mut featureless = Gram::new(0);
    assert_eq!(featureless.update(&Array2::<f32>::zeros((3000, 0))), Ok(()));
    assert_eq!(featureless.tokens(), 3000);
    assert_eq!(matrix(&featureless).dim(), (0, 0));
}

#[test]
fn any_number_of_features_costs_nothing_until_a_batch_fits() {
    const MOST: usize = isize::MAX.unsigned_abs();
    let mut gram = Gram::new(MOST);
    assert_eq!((gram.features(), gram.tokens()), (MOST, 0));
    let error = gram.update(&Array2::<f32>::ones((2, 2)));
    assert!(matches!(error, Err(Error::BatchShape { columns: 2, .. })));
    assert_eq!(gram.update(&Array2::<f32>::zeros((0, MOST))), Ok(()));
    assert_eq!(gram, Gram::new(MOST));
    let too_large = Error::TooLarge {
        rows: MOST,
        columns: MOST,
    };
    assert_eq!(gram.to_array(), Err(too_large));
}

#[test]
fn statistics_that_saw_nothing_merge_whatever_their_size() {
    let mut gram = Gram::new(usize::MAX);
    assert_eq!(gram.merge(&Gram::new(usize::MAX)), Ok(()));
    assert_eq!(gram, Gram::new(usize::MAX));
}

/// More than can be addressed: 2⁴⁵ numbers.
#[test]
fn a_matrix_that_no_memory_can_hold_is_an_error() {
    const FEATURES: usize = 1 << 23;
    let mut gram = Gram::new(FEATURES);
    let batch = Array2::<f32>::ones((1, FEATURES));
    let too_large = Error::TooLarge {
        rows: FEATURES,
        columns: FEATURES,
    };
    assert_eq!(gram.update(&batch), Err(too_large.clone()));
    assert_eq!(gram, Gram::new(FEATURES));
    assert_eq!(gram.update_weighted(&batch, &[2.0]), Err(too_large));
    assert_eq!(gram, Gram::new(FEATURES));
    // Nothing to add, nothing to hold.
    assert_eq!(gram.update_weighted(&batch, &[0.0]), Ok(()));
}

#[test]
fn only_gram_statistics_have_a_gram_matrix() {
    let gram = gram_of(&Array2::<f32>::ones((2, 3)));
    assert_eq!(ActivationStats::gram(&gram), Some(&gram));
    assert_eq!(ColumnNorms::new(3).gram(), None);
    assert_eq!(NoStats.gram(), None);
}

/// Statistics of whatever kind: of three tokens, merged with those of two that have weights.
fn gathered_in_parts<S: GatherStats + Clone>(empty: &S) -> S {
    let inputs = correlated_inputs::<f32>((5, 4), 7);
    let (first, second) = inputs.view().split_at(Axis(0), 3);
    let (mut stats, mut other) = (empty.clone(), empty.clone());
    stats.update(&first).expect("finite inputs");
    other
        .update_weighted(&second, &[0.5, 3.0])
        .expect("finite inputs");
    stats.merge(&other).expect("the same layer");
    stats
}

/// By the trait, by their own methods, and by the kind chosen at run time.
#[test]
fn all_ways_of_gathering_agree() {
    let inputs = correlated_inputs::<f32>((5, 4), 7);
    let (first, second) = inputs.view().split_at(Axis(0), 3);

    let mut norms = ColumnNorms::new(4);
    norms.update(&first).expect("finite inputs");
    let mut other = ColumnNorms::new(4);
    other
        .update_weighted(&second, &[0.5, 3.0])
        .expect("finite inputs");
    norms.merge(&other).expect("the same layer");
    assert_eq!(gathered_in_parts(&ColumnNorms::new(4)), norms);

    let mut gram = Gram::new(4);
    gram.update(&first).expect("finite inputs");
    let mut other = Gram::new(4);
    other
        .update_weighted(&second, &[0.5, 3.0])
        .expect("finite inputs");
    gram.merge(&other).expect("the same layer");
    assert_eq!(gathered_in_parts(&Gram::new(4)), gram);
    assert_eq!(gram.norms(), &norms);

    let norms = LayerStats::from(norms);
    assert_eq!(
        gathered_in_parts::<LayerStats>(&ColumnNorms::new(4).into()),
        norms
    );
    let gram = LayerStats::from(gram);
    assert_eq!(gathered_in_parts::<LayerStats>(&Gram::new(4).into()), gram);
}

/// Statistics of a layer tell all that those within tell, also what errors are measured by.
#[test]
fn errors_of_a_layer_are_measured_by_what_was_gathered() {
    let inputs = correlated_inputs::<f32>((50, 4), 3);
    let gram = gram_of(&inputs);
    let norms = LayerStats::from(gram.norms().clone());
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    for (stats, same) in [
        (&norms, gram.norms() as &dyn ActivationStats),
        (&gram.clone().into(), &gram),
    ] {
        let error = |stats: &dyn ActivationStats| {
            let mut w = Array2::from_shape_fn((3, 4), |(i, j)| (i + j) as f32 + 1.0);
            pruner
                .prune(&mut w, stats)
                .expect("a layer")
                .relative_error()
        };
        assert_eq!(error(stats), error(same));
        assert!(error(stats).is_some());
    }
}
