//! Matrices that do not have the pattern they are said to have.

use wanda::half::f16;
use wanda::ndarray::array;
use wanda::{Error, Pattern, validate};

use crate::HALF;
use crate::common::layer::ones;

#[test]
fn validation_names_the_first_weight_that_should_be_zero() {
    let w = array![[1.0_f32, 0.0, 0.0, 2.0, 1.0], [1.0, 2.0, 3.0, 0.0, 0.0]];
    for (pattern, text, row, column) in [
        (Pattern::NOfM { keep: 2, of: 4 }, "2:4", 1, 0),
        (Pattern::PerOutput(0.6), "0.6", 0, 0),
        (Pattern::PerInput(0.5), "per-input:0.5", 0, 0),
        (Pattern::PerLayer(0.5), "per-layer:0.5", 0, 0),
    ] {
        let error = validate(&w, &pattern).expect_err("not that sparse");
        let expected = Error::PatternViolated {
            pattern: text.to_owned(),
            row,
            column,
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            format!(
                "the matrix is not {text}: the weight in row {row}, column {column} \
                 should be zero"
            )
        );
    }
    for pattern in [
        Pattern::PerOutput(0.4),
        Pattern::PerLayer(0.4),
        Pattern::NOfM { keep: 3, of: 4 },
    ] {
        assert_eq!(validate(&w, &pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn validation_names_the_first_negative_zero() {
    let w = array![[0.0_f32, 1.0], [-0.0, 1.0]];
    let error = validate(&w, &HALF).expect_err("a negative zero");
    assert_eq!(error, Error::NegativeZero { row: 1, column: 0 });
    assert_eq!(
        error.to_string(),
        "the zero in row 1, column 0 is -0.0; pruned weights are +0.0"
    );
    assert_eq!(validate(&w.mapv(f16::from_f32), &HALF), Err(error));
}

#[test]
fn validation_says_how_dense_a_matrix_is() {
    let mut w = ones(10, 10);
    w.row_mut(0).fill(0.0);
    let error = validate(&w, &Pattern::Cumulative(0.5)).expect_err("too dense");
    let Error::TooDense {
        pattern,
        expected,
        found,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(pattern, "cumulative:0.5");
    assert!((0.49..=0.5).contains(expected), "{expected}");
    assert!((found - 0.1).abs() < f64::EPSILON, "{found}");
    assert!(
        error
            .to_string()
            .starts_with("the matrix has a sparsity of 0.1, but cumulative:0.5 asks for 0."),
        "{error}"
    );
}
