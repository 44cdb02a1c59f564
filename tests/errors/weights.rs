//! Weights that cannot be pruned, and layers of nothing, of one weight, or of zeros.

use wanda::ndarray::{Array2, array};
use wanda::{Error, Magnitude, NoStats, Pattern, Pruner, Wanda, prune_layer, validate};

use crate::HALF;
use crate::common::layer::{gathered, of_each_kind, ones, seen};
use crate::common::refusal::{NON_FINITE, refuses};

#[test]
fn a_weight_that_is_not_finite_is_named_by_place_and_value() {
    for (bad, text) in NON_FINITE {
        let mut w = ones(3, 70);
        w[[1, 66]] = bad;
        w[[2, 0]] = bad;
        let error = refuses(&Pruner::new(Wanda, HALF), &w, &seen(70));
        assert_eq!(
            error.to_string(),
            format!("the weight in row 1, column 66 is {text}")
        );
    }
}

#[test]
fn a_weight_that_is_not_finite_is_an_error_even_if_nothing_is_to_be_pruned() {
    let w = array![[1.0, f32::NAN]];
    let groups_of_one = Pattern::NOfM { keep: 1, of: 1 };
    for pattern in of_each_kind(0.0, (1, 1)).into_iter().chain([groups_of_one]) {
        let error = refuses(&Pruner::new(Magnitude, pattern), &w, &NoStats);
        assert!(
            matches!(
                error,
                Error::NonFiniteWeight {
                    row: 0,
                    column: 1,
                    ..
                }
            ),
            "{pattern}: {error}"
        );
    }
}

#[test]
fn layers_without_weights_are_pruned_to_nothing() {
    for (rows, columns) in [(0, 0), (0, 5), (5, 0), (0, 65), (65, 0)] {
        for pattern in of_each_kind(0.5, (2, 2)) {
            let mut w = ones(rows, columns);
            let stats = seen(columns);
            let report = prune_layer(&mut w, &stats, pattern).expect("nothing to do");
            assert_eq!((report.rows(), report.columns()), (rows, columns));
            assert_eq!((report.pruned(), report.zeros()), (0, 0));
            assert!(report.sparsity().abs() < f64::EPSILON);
            assert_eq!(report.relative_error(), None);
            assert!(!report.to_string().contains("NaN"), "{report}");
            assert_eq!(validate(&w, &pattern), Ok(()), "{pattern}");
            let pruner = Pruner::new(Magnitude, pattern);
            assert!(pruner.prune(&mut w, &NoStats).is_ok(), "{pattern}");
        }
    }
    // What is wrong with the pattern is wrong all the same.
    let error = prune_layer(&mut ones(0, 4), &seen(4), Pattern::PerOutput(1.0));
    assert!(matches!(error, Err(Error::InvalidSparsity { .. })));
}

#[test]
fn a_single_weight_is_never_pruned_by_a_fraction() {
    for pattern in [
        Pattern::PerOutput(0.999_999),
        Pattern::PerLayer(0.999_999),
        Pattern::PerInput(0.999_999),
        Pattern::NOfM { keep: 1, of: 4 },
        Pattern::Cumulative(0.999_999),
    ] {
        let mut w = ones(1, 1);
        let report = prune_layer(&mut w, &seen(1), pattern).expect("a fine layer");
        assert_eq!(report.pruned(), 0, "{pattern}");
        assert_eq!(w, ones(1, 1), "{pattern}");
    }
}

#[test]
fn a_layer_of_zeros_has_no_relative_error() {
    let mut w = Array2::<f32>::zeros((3, 4));
    let report = prune_layer(&mut w, &seen(4), HALF).expect("a fine layer");
    assert_eq!(report.relative_error(), None);
    assert_eq!((report.pruned(), report.zeros()), (6, 12));
    assert!(report.to_string().contains("12 zeros in all"), "{report}");
}

#[test]
fn the_relative_error_of_extreme_double_precision_weights_is_a_number() {
    for scale in [f64::MAX, 1e200, 1.0, 1e-200, f64::MIN_POSITIVE] {
        let mut w = array![[scale, scale / 2.0]];
        let stats = gathered(&array![[1.0, 1.0]]);
        let report = Pruner::new(Magnitude, HALF)
            .prune(&mut w, &stats)
            .expect("finite weights");
        let error = report.relative_error().expect("an output other than zero");
        assert!(
            (error.value() - 0.2).abs() < 1e-12,
            "{} at {scale}",
            error.value()
        );
    }
}
