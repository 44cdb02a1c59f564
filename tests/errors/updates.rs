//! Sweeps and scores of second order that cannot be had.

use wanda::half::{bf16, f16};
use wanda::ndarray::Array2;
use wanda::{
    ActivationStats, ColumnNorms, Context, Error, Gram, ImportanceMetric, Magnitude, Mask, NoStats,
    Obs, ObsSweep, OutputEnergy, Pattern, Pruner, SparsityPattern, Wanda, WeightUpdate,
    sparsegpt_layer,
};

use crate::HALF;
use crate::common::element::TestElement;
use crate::common::layer::{correlated_inputs, gathered, gram_of, ones, seen};
use crate::common::refusal::refuses;

/// Statistics of features that are all the same.
fn same(columns: usize) -> Gram {
    gram_of(&Array2::from_shape_fn((20, columns), |(token, _)| {
        token as f32 + 1.0
    }))
}

/// The error with which a sweep of a layer of 3 x 4 is refused.
fn sweep_refuses(
    metric: impl ImportanceMetric,
    pattern: impl SparsityPattern,
    update: ObsSweep,
    stats: &dyn ActivationStats,
) -> Error {
    let pruner = Pruner::new(metric, pattern).update(update);
    refuses(&pruner, &ones(3, 4), stats)
}

/// The errors with which the metric and the sweep refuse a layer of 3 x 4, each without the other,
/// with the name of either.
fn both_refuse(
    metric: Obs,
    update: ObsSweep,
    stats: &dyn ActivationStats,
) -> [(&'static str, Error); 2] {
    let by_metric = refuses(&Pruner::new(metric, HALF), &ones(3, 4), stats);
    let by_sweep = sweep_refuses(Magnitude, HALF, update, stats);
    [("obs", by_metric), ("obs sweep", by_sweep)]
}

#[test]
fn norms_alone_are_an_error_that_says_who_needs_more() {
    for (name, error) in both_refuse(Obs::new(), ObsSweep::new(), &seen(4)) {
        assert_eq!(
            error.to_string(),
            format!("`{name}` needs the Gram matrix of the inputs; gather statistics with `Gram`")
        );
    }
}

#[test]
fn no_calibration_data_is_an_error_here_too() {
    let dead = gram_of(&Array2::<f32>::zeros((7, 4)));
    let none: [(&dyn ActivationStats, u64); 3] = [(&NoStats, 0), (&Gram::new(4), 0), (&dead, 7)];
    for (stats, tokens) in none {
        for (name, error) in both_refuse(Obs::new(), ObsSweep::new(), stats) {
            let metric = name.to_owned();
            assert_eq!(error, Error::NoCalibration { metric, tokens });
        }
    }
}

#[test]
fn statistics_of_another_layer_are_an_error_here_too() {
    let expected = Error::StatsShape {
        rows: 3,
        columns: 4,
        features: 5,
    };
    for (name, error) in both_refuse(Obs::new(), ObsSweep::new(), &same(5)) {
        assert_eq!(error, expected, "{name}");
    }
    let error = sweep_refuses(Obs::new(), HALF, ObsSweep::new(), &same(5));
    assert_eq!(error, expected);
}

#[test]
fn damping_must_be_finite_and_not_negative() {
    for (damping, text) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (-0.01, "-0.01"),
        (-f64::MIN_POSITIVE, "-0.0000"),
    ] {
        let metric = Obs::new().damping(damping);
        let update = ObsSweep::new().damping(damping);
        for (name, error) in both_refuse(metric, update, &same(4)) {
            assert!(
                matches!(error, Error::InvalidDamping { .. }),
                "{name}: {error}"
            );
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("a damping of {text}")),
                "{name}: {message}"
            );
            assert!(
                message.ends_with(" was asked for; it must be finite and not negative"),
                "{name}: {message}"
            );
        }
    }
}

#[test]
fn blocks_of_no_columns_are_an_error() {
    let error = sweep_refuses(Magnitude, HALF, ObsSweep::new().block_size(0), &same(4));
    assert_eq!(error, Error::InvalidBlockSize);
    assert_eq!(
        error.to_string(),
        "the sweep cannot take 0 columns at a time; at least 1 is needed"
    );
}

#[test]
fn what_is_wrong_with_a_pattern_is_wrong_in_a_sweep() {
    let everything = Pattern::PerLayer(1.0);
    let error = sweep_refuses(Obs::new(), everything, ObsSweep::new(), &same(4));
    assert_eq!(error, Error::InvalidSparsity { sparsity: 1.0 });
    let given = Mask::none(4, 3).expect("a small mask");
    let error = sweep_refuses(Obs::new(), given, ObsSweep::new(), &same(4));
    let expected = Error::MaskShape {
        expected: (3, 4),
        found: (4, 3),
    };
    assert_eq!(error, expected);
}

#[test]
fn a_given_mask_must_not_mark_protected_weights() {
    let given = Mask::from_fn(3, 4, |row, _| row == 1).expect("a small mask");
    let pruner = Pruner::new(Obs::new(), given.clone())
        .update(ObsSweep::new())
        .protect(given);
    let error = refuses(&pruner, &ones(3, 4), &same(4));
    assert!(
        matches!(
            error,
            Error::TooManyProtected {
                row: 1,
                column: 0,
                ..
            }
        ),
        "{error:?}"
    );
}

/// All of a row's work falls to its last weights, which cannot hold it.
fn overflow_is_named<A: TestElement>(pattern: Pattern, block_size: usize)
where
    Obs: ImportanceMetric<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let mut w = Array2::from_elem((2, 8), A::round(A::LARGEST));
    w.row_mut(0).fill(A::round(1.0));
    let sweep = ObsSweep::new().block_size(block_size);
    let error = refuses(
        &Pruner::new(Obs::new(), pattern).update(sweep),
        &w,
        &same(8),
    );
    let Error::Overflow { row, column, value } = error else {
        panic!("{error:?}, by {pattern} in blocks of {block_size}");
    };
    assert_eq!(row, 1);
    assert!(column > 0 && column < 8, "{column}");
    assert!(value > A::LARGEST, "{value}");
}

#[test]
fn an_updated_weight_that_overflows_is_named_whatever_the_type() {
    for pattern in [
        HALF,
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::NOfM { keep: 1, of: 2 },
    ] {
        for block_size in [1, 4, 128] {
            overflow_is_named::<f16>(pattern, block_size);
            overflow_is_named::<bf16>(pattern, block_size);
            overflow_is_named::<f32>(pattern, block_size);
            overflow_is_named::<f64>(pattern, block_size);
        }
    }
}

#[test]
fn an_overflow_names_the_value_and_where_it_would_be() {
    let w = Array2::from_elem((1, 2), f16::MAX);
    let pruner = Pruner::new(Obs::new(), HALF).update(ObsSweep::new());
    let message = refuses(&pruner, &w, &same(2)).to_string();
    assert!(
        message.starts_with("the updated weight in row 0, column 1 is 13"),
        "{message}"
    );
    assert!(
        message.ends_with(", which the type it is stored in cannot hold"),
        "{message}"
    );
}

#[test]
fn layers_without_weights_are_swept_to_nothing() {
    for (rows, columns) in [(0, 0), (0, 5), (5, 0)] {
        let stats = gram_of(&correlated_inputs::<f32>((3, columns), 1));
        for pattern in [HALF, Pattern::NOfM { keep: 2, of: 4 }] {
            let mut w = ones(rows, columns);
            let report = sparsegpt_layer(&mut w, &stats, pattern).expect("nothing to do");
            assert_eq!((report.pruned(), report.zeros()), (0, 0));
            assert_eq!(report.relative_error(), None);
            assert_eq!(report.damping(), None);
        }
    }
}

#[test]
fn a_layer_of_zeros_is_swept_to_zeros() {
    let mut w = Array2::from_elem((3, 4), -0.0_f32);
    let report = sparsegpt_layer(&mut w, &same(4), HALF).expect("a fine layer");
    assert_eq!((report.pruned(), report.zeros()), (6, 12));
    assert_eq!(report.relative_error(), None);
}

/// Statistics whose Gram matrix is of another layer than their norms.
#[derive(Debug)]
struct Mixed {
    norms: ColumnNorms,
    gram: Gram,
}

impl ActivationStats for Mixed {
    fn features(&self) -> usize {
        self.norms.features()
    }

    fn tokens(&self) -> u64 {
        self.norms.tokens()
    }

    fn sums_of_squares(&self) -> &[f64] {
        self.norms.sums_of_squares()
    }

    fn output_energy(&self) -> Option<&dyn OutputEnergy> {
        Some(&self.gram)
    }

    fn gram(&self) -> Option<&Gram> {
        Some(&self.gram)
    }
}

#[test]
fn a_gram_matrix_of_another_layer_than_the_norms_is_refused() {
    let w = Array2::from_shape_fn((2, 4), |(i, j)| (1 + i + j) as f32);
    let norms = gathered(&ones(3, 4));
    let magnitude = Pruner::new(Magnitude, HALF);
    let obs = Pruner::new(Obs::new(), HALF);
    let sweep = Pruner::new(Wanda, HALF).update(ObsSweep::new());
    for features in [2, 7] {
        let stats = Mixed {
            norms: norms.clone(),
            gram: gram_of(&ones(3, features)),
        };
        let expected = Error::StatsShape {
            rows: 2,
            columns: 4,
            features,
        };
        assert_eq!(refuses(&magnitude, &w, &stats), expected);
        assert_eq!(refuses(&obs, &w, &stats), expected);
        assert_eq!(refuses(&sweep, &w, &stats), expected);
        let context = Context::new(&stats, 5.0_f32);
        let scorer = Obs::new().prepare(&w, &context).map(|_| ());
        assert_eq!(scorer, Err(expected));
    }
    let stats = Mixed {
        norms,
        gram: Gram::new(4),
    };
    for error in [refuses(&obs, &w, &stats), refuses(&sweep, &w, &stats)] {
        assert!(
            matches!(error, Error::NoCalibration { tokens: 0, .. }),
            "{error}"
        );
    }
}

#[test]
fn the_diagonal_of_a_factor_of_another_layer_is_refused() {
    let w = ones(2, 4);
    let prepare = |stats: &dyn ActivationStats, diagonal: &[f64]| {
        let context = Context::new(stats, 1.0_f32).factored(diagonal);
        Obs::new().prepare(&w, &context).map(|_| ())
    };
    let refused = |features| {
        Err(Error::StatsShape {
            rows: 2,
            columns: 4,
            features,
        })
    };
    assert_eq!(prepare(&same(4), &[1.0; 4]), Ok(()));
    for features in [0, 3, 5] {
        assert_eq!(prepare(&same(4), &vec![1.0; features]), refused(features));
        assert_eq!(prepare(&seen(features), &[1.0; 4]), refused(features));
    }
}
