//! Statistics that cannot be gathered, and those that do not suffice for a layer.

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, array};
use wanda::{
    ActivationStats, ColumnNorms, Error, ImportanceMetric, Magnitude, NoStats, Pruner, Result,
    Wanda, prune_layer,
};

use crate::HALF;
use crate::common::layer::{gathered, ones, seen};
use crate::common::refusal::{INVALID, NON_FINITE, refuses, refuses_change};

#[test]
fn statistics_of_another_layer_are_named_with_both_shapes() {
    let expected = Error::StatsShape {
        rows: 3,
        columns: 5,
        features: 4,
    };
    assert_eq!(
        expected.to_string(),
        "the weights are 3 x 5, so statistics of 5 input features are needed, but these have 4; \
         rows are outputs, columns are inputs: is the matrix transposed?"
    );
    // The magnitude would not look at them.
    for metric in [&Wanda as &dyn ImportanceMetric, &Magnitude] {
        let error = refuses(&Pruner::new(metric, HALF), &ones(3, 5), &seen(4));
        assert_eq!(error, expected, "{}", metric.name());
    }
}

#[test]
fn a_change_that_does_not_fit_the_statistics_is_refused() {
    type Change = fn(&mut ColumnNorms) -> Result<()>;
    let batch = |columns| Error::BatchShape {
        features: 4,
        columns,
    };
    let token_weights = |weights| Error::TokenWeightCount { tokens: 2, weights };
    let merge = Error::MergeFeatures { left: 4, right: 3 };
    let cases: [(&str, Change, Error, &str); 8] = [
        (
            "a narrower batch",
            |stats| stats.update(&ones(7, 3)),
            batch(3),
            "these statistics have 4 input features, but the batch has 3 columns; \
             a batch is [tokens, features]",
        ),
        (
            "a wider batch with token weights",
            |stats| stats.update_weighted(&ones(2, 5), &[1.0, 1.0]),
            batch(5),
            "these statistics have 4 input features, but the batch has 5 columns; \
             a batch is [tokens, features]",
        ),
        (
            "a wider batch of no tokens",
            |stats| stats.update(&ones(0, 5)),
            batch(5),
            "these statistics have 4 input features, but the batch has 5 columns; \
             a batch is [tokens, features]",
        ),
        (
            "no token weights",
            |stats| stats.update_weighted(&ones(2, 4), &[]),
            token_weights(0),
            "the batch has 2 tokens, but there are 0 token weights",
        ),
        (
            "a token weight too few",
            |stats| stats.update_weighted(&ones(2, 4), &[1.0]),
            token_weights(1),
            "the batch has 2 tokens, but there are 1 token weights",
        ),
        (
            "a token weight too many",
            |stats| stats.update_weighted(&ones(2, 4), &[1.0, 1.0, 1.0]),
            token_weights(3),
            "the batch has 2 tokens, but there are 3 token weights",
        ),
        (
            "a merge with fewer features",
            |stats| stats.merge(&seen(3)),
            merge.clone(),
            "cannot merge statistics of 4 input features with statistics of 3",
        ),
        (
            "a merge with fewer features and no tokens",
            |stats| stats.merge(&ColumnNorms::new(3)),
            merge,
            "cannot merge statistics of 4 input features with statistics of 3",
        ),
    ];
    for (name, change, expected, text) in cases {
        let error = refuses_change(&mut seen(4), change);
        assert_eq!(error, expected, "{name}");
        assert_eq!(error.to_string(), text, "{name}");
    }
}

#[test]
fn token_weights_must_be_finite_and_not_negative() {
    for (bad, text) in INVALID {
        let error = refuses_change(&mut seen(4), |stats| {
            stats.update_weighted(&ones(3, 4), &[1.0, bad, bad])
        });
        assert!(
            matches!(error, Error::InvalidTokenWeight { token: 1, .. }),
            "{error}"
        );
        assert_eq!(
            error.to_string(),
            format!("the weight of token 1 is {text}; it must be finite and not negative")
        );
    }
}

#[test]
fn an_activation_that_is_not_finite_is_named_by_token_and_feature() {
    for (bad, text) in NON_FINITE {
        let bad = f16::from_f32(bad);
        let mut batch = Array2::from_elem((3, 70), f16::ONE);
        batch[[1, 66]] = bad;
        batch[[2, 0]] = bad;
        let error = refuses_change(&mut seen(70), |stats| stats.update(&batch));
        assert_eq!(
            error.to_string(),
            format!("the activation of token 1, feature 66 is {text}")
        );
        // Tokens before it that count for nothing keep their numbers.
        let error = refuses_change(&mut seen(70), |stats| {
            stats.update_weighted(&batch, &[0.0, 0.0, 1.0])
        });
        assert_eq!(
            error.to_string(),
            format!("the activation of token 2, feature 0 is {text}")
        );
    }
}

#[test]
fn no_calibration_data_is_an_error_where_it_is_needed() {
    let w = ones(2, 4);
    let dead = gathered(&Array2::<f32>::zeros((3, 4)));
    let mut padding = ColumnNorms::new(4);
    padding.update_weighted(&w, &[0.0, 0.0]).expect("padding");
    let cases: [(&str, &dyn ActivationStats, u64); 4] = [
        ("no tokens", &ColumnNorms::new(4), 0),
        ("no statistics", &NoStats, 0),
        ("dead inputs", &dead, 3),
        ("padding", &padding, 0),
    ];
    for (name, stats, tokens) in cases {
        let error = refuses(&Pruner::new(Wanda, HALF), &w, stats);
        let metric = "wanda".to_owned();
        assert_eq!(error, Error::NoCalibration { metric, tokens }, "{name}");
        let text = format!("saw {tokens} tokens");
        assert!(error.to_string().contains(&text), "{name}: {error}");
    }
    assert!(matches!(
        ColumnNorms::from_mean_squares(&[1.0, 2.0], 0),
        Err(Error::NoCalibration { tokens: 0, .. })
    ));
    // The metric of the weights alone goes without.
    assert!(Pruner::new(Magnitude, HALF).mask(&w, &NoStats).is_ok());
}

#[test]
fn sums_of_squares_that_overflow_name_their_feature() {
    let error = refuses_change(&mut seen(3), |stats| {
        stats.update(&array![[1.0, 1e200, 1.0], [1.0, 1.0, 1e200]])
    });
    assert!(matches!(error, Error::InvalidStatistic { feature: 1, .. }));
    assert_eq!(
        error.to_string(),
        "the statistic of input feature 1 is inf, which cannot be used"
    );

    // Doubled until it overflows.
    let mut stats = gathered(&array![[1e154, 1.0]]);
    let error = (0..64)
        .find_map(|_| {
            let copy = stats.clone();
            let error = stats.merge(&copy).err()?;
            assert_eq!(stats, copy, "{error} left the statistics changed");
            Some(error)
        })
        .expect("an overflow");
    assert!(matches!(error, Error::InvalidStatistic { feature: 0, .. }));
}

#[test]
fn outliers_of_other_types_than_double_precision_do_not_overflow() {
    let mut stats = ColumnNorms::new(1);
    stats
        .update(&array![[f32::MAX], [f32::MIN]])
        .expect("finite inputs");
    stats
        .update(&array![[bf16::MAX], [bf16::MIN]])
        .expect("finite inputs");
    assert!(stats.norms()[0] > 6e38);
    // The norm is more than a score in single precision can be made of.
    let pruner = Pruner::new(Wanda, HALF);
    let error = refuses(&pruner, &ones(2, 1), &stats);
    assert!(matches!(error, Error::InvalidStatistic { feature: 0, .. }));
    // Double precision has room for it.
    assert!(pruner.mask(&Array2::<f64>::ones((2, 1)), &stats).is_ok());
}

#[test]
fn mean_squares_must_be_finite_and_not_negative() {
    for (bad, text) in INVALID {
        let result = ColumnNorms::from_mean_squares(&[1.0, bad, bad], 5);
        assert!(
            matches!(result, Err(Error::InvalidStatistic { feature: 1, .. })),
            "{text}"
        );
    }
    let stats = ColumnNorms::from_mean_squares(&[0.5, 0.0, f32::MAX], 4).expect("mean squares");
    assert_eq!(stats.tokens(), 4);
    assert_eq!(stats.sums_of_squares()[..2], [2.0, 0.0]);
    assert!(ColumnNorms::from_mean_squares(&[f32::MAX], u64::MAX).is_ok());
    assert!(ColumnNorms::from_mean_squares(&[], 1).is_ok());
}

#[test]
fn statistics_of_any_number_of_features_cost_nothing_until_a_batch_fits() {
    let mut stats = ColumnNorms::new(usize::MAX);
    assert_eq!(stats.features(), usize::MAX);
    assert_eq!(stats.tokens(), 0);
    assert!(stats.sums_of_squares().is_empty());
    assert!(stats.norms().is_empty());
    assert!(stats.mean_squares().is_empty());
    let error = refuses_change(&mut stats, |stats| stats.update(&ones(2, 2)));
    assert!(matches!(error, Error::BatchShape { columns: 2, .. }));
    let copy = stats.clone();
    assert_eq!(stats.merge(&copy), Ok(()));
    assert!(
        prune_layer(&mut ones(2, 2), &stats, HALF).is_err(),
        "nothing was seen"
    );
}

#[test]
fn batches_without_tokens_or_features_change_nothing() {
    let mut stats = seen(3);
    let before = stats.clone();
    assert_eq!(stats.update(&ones(0, 3)), Ok(()));
    assert_eq!(stats.update_weighted(&ones(0, 3), &[]), Ok(()));
    assert_eq!(stats, before);
    let mut none = ColumnNorms::new(0);
    assert_eq!(none.update(&ones(4, 0)), Ok(()));
    assert_eq!(none.tokens(), 4);
    assert!(none.norms().is_empty());
}
