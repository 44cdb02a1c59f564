//! Gram matrices that are hard to factor: singular, ill-conditioned, of dead, constant and equal
//! features.
#![cfg(feature = "second-order")]

mod common;

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, array};
use wanda::{
    Error, ErrorBasis, ImportanceMetric, Magnitude, Obs, ObsSweep, Pattern, Pruner,
    SparsityPattern, WeightUpdate, sparsegpt_layer,
};

use common::element::TestElement;
use common::layer::{Random, bits_of, correlated_inputs, gram_of, normal_weights};
use common::oracle_obs::{self, Cost};

const COLUMNS: usize = 64;

const PATTERNS: [Pattern; 4] = [
    Pattern::PerOutput(0.5),
    Pattern::PerLayer(0.5),
    Pattern::NOfM { keep: 2, of: 4 },
    Pattern::Block {
        rows: 4,
        cols: 4,
        sparsity: 0.5,
    },
];

fn weights<A: TestElement>() -> Array2<A> {
    normal_weights((32, COLUMNS), 4)
}

fn ordinary_inputs() -> Array2<f64> {
    correlated_inputs((200, COLUMNS), 3)
}

fn fewer_tokens_than_features() -> Array2<f64> {
    correlated_inputs((20, COLUMNS), 3)
}

fn one_token() -> Array2<f64> {
    correlated_inputs((1, COLUMNS), 3)
}

fn dead_features() -> Array2<f64> {
    let mut inputs = ordinary_inputs();
    for feature in [0, 7, 8, 63] {
        inputs.column_mut(feature).fill(0.0);
    }
    inputs
}

fn a_constant_feature() -> Array2<f64> {
    let mut inputs = ordinary_inputs();
    inputs.column_mut(5).fill(3.0);
    inputs
}

fn two_equal_features() -> Array2<f64> {
    let mut inputs = ordinary_inputs();
    let feature = inputs.column(9).to_owned();
    inputs.column_mut(40).assign(&feature);
    inputs
}

fn all_features_equal() -> Array2<f64> {
    let feature = ordinary_inputs().column(9).to_owned();
    Array2::from_shape_fn((200, COLUMNS), |(token, _)| feature[token])
}

/// Inputs whose Gram matrix has this condition number: orthogonal directions, from long to short
/// in equal ratios.
fn conditioned(condition: f64) -> Array2<f64> {
    let mut random = Random::new(5);
    let mut inputs = Array2::from_shape_simple_fn((COLUMNS, COLUMNS), || random.normal());
    for i in 0..COLUMNS {
        let (done, mut rest) = inputs.view_mut().split_at(wanda::ndarray::Axis(0), i);
        let mut direction = rest.row_mut(0);
        // Twice is enough to be orthogonal to the last bits.
        for other in done.rows().into_iter().chain(done.rows()) {
            let along = direction.dot(&other);
            direction.scaled_add(-along, &other);
        }
        let length = direction.dot(&direction).sqrt();
        direction.mapv_inplace(|x| x / length);
    }
    for (i, mut direction) in inputs.rows_mut().into_iter().enumerate() {
        let share = i as f64 / (COLUMNS - 1) as f64;
        direction.mapv_inplace(|x| 8.0 * x * condition.powf(-0.5 * share));
    }
    inputs
}

/// Pruned, finite, with a relative error that is right and no worse than that of magnitudes.
fn is_pruned_well<A: TestElement>(inputs: &Array2<f64>)
where
    Obs: ImportanceMetric<A::Compute>,
    Magnitude: ImportanceMetric<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let inputs = inputs.mapv(A::round);
    let stats = gram_of(&inputs);
    let gram = oracle_obs::gram(&inputs);
    let dense = weights::<A>();
    // What is lost may be so little that the rounding of the output itself shows: a unit in the
    // last place, and another of what it is compared with.
    let epsilon = match size_of::<A>() {
        8 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    for pattern in PATTERNS {
        let mut pruned = dense.clone();
        let report = sparsegpt_layer(&mut pruned, &stats, pattern).expect("damping suffices");
        assert!(pruned.iter().all(|w| w.exact().is_finite()), "{pattern}");
        assert_eq!(report.pruned(), 32 * COLUMNS / 2, "{pattern}");
        assert_eq!(report.damping(), Some(0.01), "{pattern}");
        let found = report.relative_error().expect("an output other than zero");
        assert_eq!(found.basis(), ErrorBasis::Gram);
        let cost = Cost::of(&dense, &pruned, &gram, 0.01).expect("an output");
        let off = (found.value() - cost.relative_error).abs();
        assert!(
            off <= 100.0 * epsilon * cost.relative_error + 4.0 * epsilon,
            "an error of {}, not {}, by {pattern}",
            found.value(),
            cost.relative_error
        );

        let by_magnitude = Pruner::new(Magnitude, pattern)
            .prune(&mut dense.clone(), &stats)
            .expect("finite weights");
        let by_magnitude = by_magnitude.relative_error().expect("an output");
        assert!(
            found.value() <= by_magnitude.value(),
            "an error of {}, but {} by magnitude, by {pattern}",
            found.value(),
            by_magnitude.value()
        );
    }
}

macro_rules! pruned_well {
    ($($name:ident: $inputs:expr;)*) => {$(
        #[test]
        fn $name() {
            let inputs = $inputs;
            is_pruned_well::<f32>(&inputs);
            is_pruned_well::<f16>(&inputs);
            is_pruned_well::<bf16>(&inputs);
            is_pruned_well::<f64>(&inputs);
        }
    )*};
}

pruned_well! {
    fewer_tokens_than_features_are_enough: fewer_tokens_than_features();
    one_token_is_enough: one_token();
    dead_features_do_no_harm: dead_features();
    a_constant_feature_does_no_harm: a_constant_feature();
    two_equal_features_do_no_harm: two_equal_features();
    features_that_are_all_equal_do_no_harm: all_features_equal();
    a_condition_number_of_a_million_does_no_harm: conditioned(1e6);
    a_condition_number_of_a_trillion_does_no_harm: conditioned(1e12);
}

/// What a sweep with this damping makes of the layer: the damping used, or the error.
fn damped<A: TestElement>(inputs: &Array2<f64>, damping: f64) -> Result<f64, Error>
where
    Obs: ImportanceMetric<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let stats = gram_of(&inputs.mapv(A::round));
    let dense = weights::<A>();
    let mut pruned = dense.clone();
    let result = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
        .update(ObsSweep::new().damping(damping))
        .prune(&mut pruned, &stats);
    if result.is_err() {
        assert_eq!(
            bits_of(&pruned),
            bits_of(&dense),
            "an error changes nothing"
        );
    }
    let report = result?;
    assert!(pruned.iter().all(|w| w.exact().is_finite()));
    assert!(report.relative_error().is_some());
    Ok(report.damping().expect("something was factored"))
}

#[test]
fn a_regular_matrix_needs_no_damping() {
    assert_eq!(damped::<f32>(&ordinary_inputs(), 0.0), Ok(0.0));
    assert_eq!(damped::<f64>(&ordinary_inputs(), 0.0), Ok(0.0));
    assert_eq!(damped::<f64>(&conditioned(1e12), 0.0), Ok(0.0));
    assert_eq!(damped::<f32>(&dead_features(), 0.0), Ok(0.0));
}

#[test]
fn a_singular_matrix_without_damping_is_an_error_that_names_pivot_and_damping() {
    let without = |result: Result<f64, Error>| {
        let error = result.expect_err("ten times nothing is nothing");
        let Error::NotPositiveDefinite { pivot, damping } = error else {
            panic!("{error:?}");
        };
        assert!(
            pivot < COLUMNS - 20,
            "the last 20 features are independent, not {pivot}"
        );
        assert_eq!(damping.to_bits(), 0);
    };
    without(damped::<f32>(&fewer_tokens_than_features(), 0.0));
    without(damped::<f64>(&fewer_tokens_than_features(), 0.0));

    // The factorisation begins with the last input, and this one is exact.
    let stats = gram_of(&array![[1.0_f32, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    let error = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
        .update(ObsSweep::new().damping(0.0))
        .prune(&mut array![[1.0_f32, 2.0, 3.0]], &stats)
        .expect_err("a singular matrix");
    assert_eq!(
        error.to_string(),
        "the Gram matrix is not positive definite at input 0, even when damped by 0 times its \
         diagonal; use more tokens, or ask for more damping"
    );
    let from_metric = Pruner::new(Obs::new().damping(0.0), Pattern::PerOutput(0.5))
        .mask(&array![[1.0_f32, 2.0, 3.0]], &stats);
    assert_eq!(from_metric, Err(error));
}

#[test]
fn damping_that_does_not_suffice_is_raised_in_steps_of_ten() {
    for inputs in [
        fewer_tokens_than_features(),
        correlated_inputs((10, COLUMNS), 5),
    ] {
        let used = damped::<f32>(&inputs, 1e-10).expect("at most 1e-6 is needed");
        let steps = (used / 1e-10).log10();
        assert!((1.0 - 1e-9..4.0 + 1e-9).contains(&steps), "{steps} steps");
        assert!(
            (steps - steps.round()).abs() < 1e-9,
            "{used} is no step of 1e-10"
        );
        // What was used suffices at once.
        assert_eq!(damped::<f32>(&inputs, used), Ok(used));
    }
}

#[test]
fn damping_is_raised_four_times_and_no_more() {
    for inputs in [
        fewer_tokens_than_features(),
        correlated_inputs((10, COLUMNS), 5),
    ] {
        let error = damped::<f32>(&inputs, 1e-14).expect_err("1e-10 does not suffice");
        let Error::NotPositiveDefinite { pivot, damping } = error else {
            panic!("{error:?}");
        };
        assert!(pivot < COLUMNS);
        assert!((damping / 1e-10 - 1.0).abs() < 1e-9, "{damping}");
        assert!(matches!(damped::<f64>(&inputs, 1e-12), Ok(used) if used < 1e-9));
    }
}

/// The unit that inputs are measured in changes nothing, neither do dead inputs.
#[test]
fn a_power_of_two_in_the_inputs_changes_no_bit() {
    for inputs in [
        ordinary_inputs(),
        dead_features(),
        fewer_tokens_than_features(),
    ] {
        let sweep = |scale: f64| {
            let stats = gram_of(&inputs.mapv(|x| scale * x));
            let mut pruned = weights::<f64>();
            let report = sparsegpt_layer(&mut pruned, &stats, Pattern::PerLayer(0.5));
            let error = report.expect("damping suffices").relative_error();
            (bits_of(&pruned), error)
        };
        let expected = sweep(1.0);
        for exponent in [-300, -30, 1, 30, 300] {
            assert_eq!(sweep(2_f64.powi(exponent)), expected, "times 2^{exponent}");
        }
    }
}

#[test]
fn a_power_of_two_in_the_weights_is_one_in_the_result() {
    let stats = gram_of(&ordinary_inputs());
    let sweep = |scale: f64| {
        let mut pruned = weights::<f64>().mapv(|w| scale * w);
        let report = sparsegpt_layer(&mut pruned, &stats, Pattern::PerLayer(0.5));
        let error = report.expect("damping suffices").relative_error();
        (bits_of(&pruned.mapv(|w| w / scale)), error)
    };
    let expected = sweep(1.0);
    for exponent in [-900, -30, 30, 900] {
        assert_eq!(sweep(2_f64.powi(exponent)), expected, "times 2^{exponent}");
    }
}
