//! Every error can be provoked, says what is wrong and where, and changes nothing. Odd input is an
//! error or fine, but never a panic.

mod common;

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, array};
use wanda::{
    ActivationStats, ColumnNorms, Error, ImportanceMetric, Magnitude, Mask, MaskRow, NoStats,
    Pattern, Pruner, Result, RowRule, Rows, Scorer, SparsityPattern, Wanda, WeightUpdate,
    project_rows, prune_layer, validate,
};

#[cfg(feature = "second-order")]
use common::element::TestElement;
use common::layer::{Random, gathered};

/// Fails unless pruning is refused with this error, and leaves the weights alone.
fn refuses<M, P, U>(pruner: &Pruner<M, P, U>, w: &Array2<f32>, stats: &dyn ActivationStats) -> Error
where
    M: ImportanceMetric,
    P: SparsityPattern,
    U: WeightUpdate,
{
    let mut after = w.clone();
    let error = pruner.prune(&mut after, stats).expect_err("an error");
    let bits = |w: &Array2<f32>| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&after), bits(w), "{error} left the weights changed");
    // Not a number is not equal to itself, so texts are compared.
    let from_mask = pruner.mask(w, stats).expect_err("the same error");
    assert_eq!(from_mask.to_string(), error.to_string());
    error
}

/// Fails unless an update of statistics is refused, and leaves them alone.
fn refuses_batch(
    stats: &mut ColumnNorms,
    update: impl FnOnce(&mut ColumnNorms) -> Result<()>,
) -> Error {
    let before = stats.clone();
    let error = update(stats).expect_err("an error");
    assert_eq!(*stats, before, "{error} left the statistics changed");
    error
}

fn ones(rows: usize, columns: usize) -> Array2<f32> {
    Array2::ones((rows, columns))
}

fn seen(columns: usize) -> ColumnNorms {
    gathered(&ones(2, columns))
}

#[test]
fn statistics_of_another_layer_are_named_with_both_shapes() {
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    let error = refuses(&pruner, &ones(3, 5), &seen(4));
    assert_eq!(
        error,
        Error::StatsShape {
            rows: 3,
            columns: 5,
            features: 4
        }
    );
    assert_eq!(
        error.to_string(),
        "the weights are 3 x 5, so statistics of 5 input features are needed, but these have 4; \
         rows are outputs, columns are inputs: is the matrix transposed?"
    );
    // Also where the metric would not look at them.
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5));
    assert_eq!(refuses(&pruner, &ones(3, 5), &seen(4)), error);
}

#[test]
fn a_batch_of_another_width_is_named_with_both_widths() {
    let mut stats = seen(4);
    let error = refuses_batch(&mut stats, |stats| stats.update(&ones(7, 3)));
    assert_eq!(
        error,
        Error::BatchShape {
            features: 4,
            columns: 3
        }
    );
    assert_eq!(
        error.to_string(),
        "these statistics have 4 input features, but the batch has 3 columns; \
         a batch is [tokens, features]"
    );
    let error = refuses_batch(&mut stats, |stats| {
        stats.update_weighted(&ones(2, 5), &[1.0, 1.0])
    });
    assert!(matches!(error, Error::BatchShape { columns: 5, .. }));
    // Even if it has no tokens.
    let error = refuses_batch(&mut stats, |stats| stats.update(&ones(0, 5)));
    assert!(matches!(error, Error::BatchShape { columns: 5, .. }));
}

#[test]
fn token_weights_must_be_one_a_token() {
    for weights in [&[][..], &[1.0], &[1.0, 1.0, 1.0]] {
        let error = refuses_batch(&mut seen(4), |stats| {
            stats.update_weighted(&ones(2, 4), weights)
        });
        let expected = Error::TokenWeightCount {
            tokens: 2,
            weights: weights.len(),
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            format!(
                "the batch has 2 tokens, but there are {} token weights",
                weights.len()
            )
        );
    }
}

#[test]
fn token_weights_must_be_finite_and_not_negative() {
    for (bad, text) in [
        (-1.0, "-1"),
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let error = refuses_batch(&mut seen(4), |stats| {
            stats.update_weighted(&ones(3, 4), &[1.0, bad, bad])
        });
        assert!(matches!(error, Error::InvalidTokenWeight { token: 1, .. }));
        assert_eq!(
            error.to_string(),
            format!("the weight of token 1 is {text}; it must be finite and not negative")
        );
    }
}

#[test]
fn only_statistics_of_as_many_features_merge() {
    let error = refuses_batch(&mut seen(4), |stats| stats.merge(&seen(3)));
    assert_eq!(error, Error::MergeFeatures { left: 4, right: 3 });
    assert_eq!(
        error.to_string(),
        "cannot merge statistics of 4 input features with statistics of 3"
    );
    // Even if they have seen nothing.
    let error = refuses_batch(&mut seen(4), |stats| stats.merge(&ColumnNorms::new(3)));
    assert_eq!(error, Error::MergeFeatures { left: 4, right: 3 });
}

#[test]
fn no_calibration_data_is_an_error_where_it_is_needed() {
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    let w = ones(2, 4);

    let error = refuses(&pruner, &w, &ColumnNorms::new(4));
    assert!(matches!(&error, Error::NoCalibration { tokens: 0, .. }));
    let error = refuses(&pruner, &w, &NoStats);
    assert!(matches!(&error, Error::NoCalibration { tokens: 0, .. }));

    let mut dead = ColumnNorms::new(4);
    dead.update(&Array2::<f32>::zeros((3, 4))).expect("zeros");
    let error = refuses(&pruner, &w, &dead);
    assert!(matches!(&error, Error::NoCalibration { tokens: 3, .. }));
    assert!(error.to_string().contains("saw 3 tokens"), "{error}");

    let mut padding = ColumnNorms::new(4);
    padding.update_weighted(&w, &[0.0, 0.0]).expect("padding");
    let error = refuses(&pruner, &w, &padding);
    assert!(matches!(&error, Error::NoCalibration { tokens: 0, .. }));

    assert!(matches!(
        ColumnNorms::from_mean_squares(&[1.0, 2.0], 0),
        Err(Error::NoCalibration { tokens: 0, .. })
    ));
    // The metric of the weights alone goes without.
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5));
    assert!(pruner.mask(&w, &NoStats).is_ok());
}

#[test]
fn a_weight_that_is_no_number_is_named_by_place_and_value() {
    for (bad, text) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let mut w = ones(3, 70);
        w[[1, 66]] = bad;
        w[[2, 0]] = bad;
        let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
        let error = refuses(&pruner, &w, &seen(70));
        assert_eq!(
            error.to_string(),
            format!("the weight in row 1, column 66 is {text}")
        );
    }
}

#[test]
fn a_weight_that_is_no_number_is_an_error_even_if_nothing_is_to_be_pruned() {
    let w = array![[1.0, f32::NAN]];
    for pattern in [
        Pattern::PerOutput(0.0),
        Pattern::PerLayer(0.0),
        Pattern::PerInput(0.0),
        Pattern::NOfM { keep: 1, of: 1 },
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::Cumulative(0.0),
    ] {
        let error = refuses(&Pruner::new(Magnitude, pattern), &w, &NoStats);
        assert!(matches!(
            error,
            Error::NonFiniteWeight {
                row: 0,
                column: 1,
                ..
            }
        ));
    }
}

#[test]
fn an_activation_that_is_no_number_is_named_by_token_and_feature() {
    for (bad, text) in [
        (f16::NAN, "NaN"),
        (f16::INFINITY, "inf"),
        (f16::NEG_INFINITY, "-inf"),
    ] {
        let mut batch = Array2::from_elem((3, 70), f16::ONE);
        batch[[1, 66]] = bad;
        batch[[2, 0]] = bad;
        let error = refuses_batch(&mut seen(70), |stats| stats.update(&batch));
        assert_eq!(
            error.to_string(),
            format!("the activation of token 1, feature 66 is {text}")
        );
        // Tokens before it that count for nothing keep their numbers.
        let error = refuses_batch(&mut seen(70), |stats| {
            stats.update_weighted(&batch, &[0.0, 0.0, 1.0])
        });
        assert_eq!(
            error.to_string(),
            format!("the activation of token 2, feature 0 is {text}")
        );
    }
}

#[test]
fn sums_of_squares_that_overflow_name_their_feature() {
    let error = refuses_batch(&mut seen(3), |stats| {
        stats.update(&array![[1.0, 1e200, 1.0], [1.0, 1.0, 1e200]])
    });
    assert!(matches!(error, Error::InvalidStatistic { feature: 1, .. }));
    assert_eq!(
        error.to_string(),
        "the statistic of input feature 1 is inf, which cannot be used"
    );

    let large = gathered(&array![[1e154, 1.0]]);
    let error = refuses_batch(&mut large.clone(), |stats| {
        for _ in 0..64 {
            stats.merge(&large)?;
            let copy = stats.clone();
            if stats.merge(&copy).is_err() {
                // Back to where it was, and once more for the error.
                let mut again = copy.clone();
                let error = again.merge(&copy).expect_err("an overflow");
                assert_eq!(again, copy);
                *stats = large.clone();
                return Err(error);
            }
        }
        Ok(())
    });
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
    let error = refuses(
        &Pruner::new(Wanda, Pattern::PerOutput(0.5)),
        &ones(2, 1),
        &stats,
    );
    assert!(matches!(error, Error::InvalidStatistic { feature: 0, .. }));
    // Double precision has room for it.
    let w = Array2::<f64>::ones((2, 1));
    assert!(
        Pruner::new(Wanda, Pattern::PerOutput(0.5))
            .mask(&w, &stats)
            .is_ok()
    );
}

#[test]
fn mean_squares_must_be_finite_and_not_negative() {
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(
            ColumnNorms::from_mean_squares(&[1.0, bad, bad], 5),
            Err(Error::InvalidStatistic { feature: 1, .. })
        ));
    }
    let stats = ColumnNorms::from_mean_squares(&[0.5, 0.0, f32::MAX], 4).expect("mean squares");
    assert_eq!(stats.tokens(), 4);
    assert_eq!(stats.sums_of_squares()[..2], [2.0, 0.0]);
    assert!(ColumnNorms::from_mean_squares(&[f32::MAX], u64::MAX).is_ok());
    assert!(ColumnNorms::from_mean_squares(&[], 1).is_ok());
}

#[test]
fn a_score_that_overflows_is_named_by_place_and_metric() {
    let mut w = ones(2, 3);
    w[[1, 2]] = f32::MAX;
    let stats = gathered(&array![[1.0_f32, 1.0, 2.0]]);
    for pattern in [
        Pattern::PerOutput(0.5),
        Pattern::PerLayer(0.5),
        Pattern::PerInput(0.5),
        Pattern::NOfM { keep: 1, of: 2 },
        Pattern::Cumulative(0.5),
        Pattern::Block {
            rows: 1,
            cols: 1,
            sparsity: 0.5,
        },
    ] {
        let error = refuses(&Pruner::new(Wanda, pattern), &w, &stats);
        assert!(
            matches!(
                &error,
                Error::InvalidScore {
                    row: 1,
                    column: 2,
                    ..
                }
            ),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.ends_with(
                "scored the weight in row 1, column 2 as inf; \
                 a score must be finite and not negative"
            ),
            "{text}"
        );
    }
}

#[test]
fn a_sparsity_must_be_at_least_0_and_less_than_1() {
    type Make = fn(f64) -> Pattern;
    let makes: [Make; 6] = [
        Pattern::PerOutput,
        Pattern::PerLayer,
        Pattern::PerInput,
        Pattern::Cumulative,
        Pattern::Threshold,
        |sparsity| Pattern::Block {
            rows: 2,
            cols: 2,
            sparsity,
        },
    ];
    for make in makes {
        for (sparsity, text) in [
            (f64::NAN, "NaN"),
            (-0.1, "-0.1"),
            (-f64::MIN_POSITIVE, "-0.00"),
            (1.0, "1"),
            (50.0, "50"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            let pruner = Pruner::new(Magnitude, make(sparsity));
            let error = refuses(&pruner, &ones(4, 4), &NoStats);
            assert!(matches!(error, Error::InvalidSparsity { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("a sparsity of {text}")),
                "{message}"
            );
            assert!(
                message.ends_with(" was asked for; it must be at least 0 and less than 1"),
                "{message}"
            );
            assert!(matches!(
                validate(&ones(4, 4), &make(sparsity)),
                Err(Error::InvalidSparsity { .. })
            ));
        }
        for sparsity in [0.0, -0.0, 0.999_999, 1.0 - f64::EPSILON] {
            let pruner = Pruner::new(Magnitude, make(sparsity));
            let w = Array2::from_shape_fn((4, 4), |(i, j)| (4 * i + j + 1) as f32);
            let mask = pruner.mask(&w, &NoStats).expect("in range");
            // The weight at the threshold goes as well.
            let at_threshold = matches!(make(sparsity), Pattern::Threshold(_));
            assert!(mask.count() < 16 + usize::from(at_threshold), "{sparsity}");
        }
    }
}

#[test]
fn a_group_must_keep_at_least_one_and_no_more_than_there_are() {
    for (keep, of) in [
        (0, 4),
        (5, 4),
        (0, 0),
        (1, 0),
        (usize::MAX, 4),
        (0, usize::MAX),
    ] {
        let pattern = Pattern::NOfM { keep, of };
        let error = refuses(&Pruner::new(Magnitude, pattern), &ones(4, 4), &NoStats);
        assert_eq!(error, Error::InvalidGroup { keep, of });
        assert_eq!(
            error.to_string(),
            format!("cannot keep {keep} of every {of} weights; 1 <= keep <= of is needed")
        );
        assert_eq!(validate(&ones(4, 4), &pattern), Err(error));
    }
    for (keep, of, pruned) in [
        (4, 4, 0),
        (1, usize::MAX, 12),
        (usize::MAX, usize::MAX, 0),
        (3, 5, 4),
    ] {
        let mask = Pruner::new(Magnitude, Pattern::NOfM { keep, of })
            .mask(&ones(4, 4), &NoStats)
            .expect("a group that can be");
        assert_eq!(mask.count(), pruned, "{keep}:{of}");
    }
}

#[test]
fn a_block_must_hold_something_and_may_be_larger_than_the_layer() {
    for (rows, cols) in [(0, 4), (4, 0), (0, 0), (usize::MAX, 0)] {
        let pattern = Pattern::Block {
            rows,
            cols,
            sparsity: 0.5,
        };
        let error = refuses(&Pruner::new(Magnitude, pattern), &ones(4, 4), &NoStats);
        assert_eq!(
            error,
            Error::InvalidBlock {
                rows,
                columns: cols
            }
        );
        assert_eq!(
            error.to_string(),
            format!(
                "a block of {rows} x {cols} weights holds nothing; both sides must be at least 1"
            )
        );
    }
    for (rows, cols, pruned) in [
        (5, 5, 0),
        (usize::MAX, usize::MAX, 0),
        (usize::MAX, 1, 8),
        (1, usize::MAX, 8),
    ] {
        let pattern = Pattern::Block {
            rows,
            cols,
            sparsity: 0.5,
        };
        let mask = Pruner::new(Magnitude, pattern)
            .mask(&ones(4, 4), &NoStats)
            .expect("a block that can be");
        assert_eq!(mask.count(), pruned, "{pattern}");
    }
}

#[test]
fn a_text_that_is_no_pattern_is_repeated_with_examples() {
    for text in [
        "",
        " ",
        "half",
        "0,5",
        "2:",
        ":4",
        "2:4:8",
        "-2:4",
        "2:4.5",
        "per-layer",
        "per-layer:",
        "per-layer:x",
        "per-column:0.5",
        "block:16:0.5",
        "block:16x:0.5",
        "block:16x4",
        "block:16x4x2:0.5",
        "18446744073709551616:18446744073709551617",
        "cumulative:2:4",
        "threshold",
        "threshold:",
        "0.5 0.5",
        "é:0.5",
    ] {
        let error = text.parse::<Pattern>().expect_err(text);
        assert!(
            matches!(&error, Error::ParsePattern { text: found, .. } if found == text),
            "{error:?}"
        );
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("`{text}` is not a sparsity pattern: ")),
            "{message}"
        );
        assert!(message.contains("`2:4`"), "{message}");
    }
    // What is a pattern but cannot be is refused as well.
    for text in [
        "1.0",
        "-0.5",
        "NaN",
        "per-layer:1",
        "threshold:1",
        "5:4",
        "0:4",
        "block:0x4:0.5",
    ] {
        assert!(text.parse::<Pattern>().is_err(), "{text}");
    }
}

#[test]
fn a_mask_of_another_shape_is_named_with_both_shapes() {
    let mask = Mask::none(3, 4).expect("a small mask");
    let mut w = ones(4, 3);
    let error = mask.apply(&mut w).expect_err("another shape");
    assert_eq!(
        error,
        Error::MaskShape {
            expected: (4, 3),
            found: (3, 4)
        }
    );
    assert_eq!(
        error.to_string(),
        "the matrix is 4 x 3, but the mask is 3 x 4"
    );
    assert_eq!(w, ones(4, 3));

    let other = Mask::none(3, 5).expect("a small mask");
    assert!(matches!(
        mask.differences(&other),
        Err(Error::MaskShape { .. })
    ));
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).protect(mask);
    assert_eq!(refuses(&pruner, &ones(4, 3), &NoStats), error);
}

#[test]
fn places_outside_a_mask_are_an_error() {
    let mut mask = Mask::none(2, 65).expect("a small mask");
    for (row, column) in [(2, 0), (0, 65), (0, 127), (usize::MAX, 0), (0, usize::MAX)] {
        assert_eq!(mask.get(row, column), None);
        for marked in [false, true] {
            let error = mask.set(row, column, marked).expect_err("outside");
            assert!(
                matches!(
                    error,
                    Error::OutOfBounds {
                        rows: 2,
                        columns: 65,
                        ..
                    }
                ),
                "{error}"
            );
            assert!(
                error
                    .to_string()
                    .ends_with("are not within 2 rows and 65 columns"),
                "{error}"
            );
        }
    }
    assert_eq!(mask, Mask::none(2, 65).expect("a small mask"));
    assert_eq!(mask.count_row(1), Some(0));
    assert_eq!(mask.count_row(2), None);
    assert_eq!(mask.count_row(usize::MAX), None);
}

#[test]
fn reading_outside_a_matrix_is_an_error() {
    let w = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let read = |row, start, len| {
        let mut out = vec![0.0; len];
        Rows::<f32>::read(&w, row, start, &mut out).map(|()| out)
    };
    assert_eq!(read(1, 1, 2), Ok(vec![5.0, 6.0]));
    assert_eq!(read(0, 3, 0), Ok(vec![]));
    for (row, start, len) in [
        (2, 0, 1),
        (0, 2, 2),
        (0, 4, 0),
        (2, 0, 0),
        (usize::MAX, 0, 1),
        (0, usize::MAX, 1),
        (0, usize::MAX, 2),
    ] {
        assert_eq!(
            read(row, start, len),
            Err(Error::OutOfBounds {
                row,
                start,
                len,
                rows: 2,
                columns: 3
            })
        );
    }
    assert_eq!(
        read(0, 2, 2).expect_err("outside").to_string(),
        "row 0, columns 2 to 4 are not within 2 rows and 3 columns"
    );
}

#[test]
fn a_mask_that_no_memory_can_hold_is_an_error() {
    for (rows, columns) in [
        (usize::MAX, usize::MAX),
        (usize::MAX, 1),
        (2, usize::MAX),
        (usize::MAX / 2, 65),
        (1 << 40, 1 << 40),
    ] {
        let error = Mask::none(rows, columns).expect_err("too large");
        assert_eq!(error, Error::TooLarge { rows, columns });
        assert_eq!(
            error.to_string(),
            format!("no memory for {rows} x {columns}")
        );
    }
}

#[test]
fn masks_without_weights_can_have_sides_of_any_length() {
    for (rows, columns) in [(0, 0), (0, usize::MAX), (0, 3), (3, 0)] {
        let mask = Mask::none(rows, columns).expect("a mask of nothing");
        assert_eq!(mask.dim(), (rows, columns));
        assert_eq!(mask.count(), 0);
        assert_eq!(mask.iter().count(), 0);
        assert!(mask.sparsity().abs() < f64::EPSILON);
        assert_eq!(mask.complement(), mask);
        let csr = mask.to_csr().expect("memory for the starts of rows");
        assert_eq!(csr.row_starts, vec![0; rows + 1]);
    }
}

/// Nothing is allocated, neither for the indices nor for the starts of rows.
#[cfg(target_pointer_width = "64")]
#[test]
fn columns_that_a_u32_cannot_count_have_no_indices() {
    let (rows, columns) = (1, 1 << 32);
    let mask = Mask::none(rows, columns).expect("memory for a bit a column");
    assert_eq!(mask.to_csr(), Err(Error::TooLarge { rows, columns }));
}

#[test]
fn protecting_too_much_is_an_error_that_names_a_protected_weight() {
    let all = Mask::from_fn(3, 4, |row, _| row == 1).expect("a small mask");
    for (pattern, text) in [
        (Pattern::PerOutput(0.5), "0.5"),
        (Pattern::NOfM { keep: 2, of: 4 }, "2:4"),
        (Pattern::PerLayer(0.9), "per-layer:0.9"),
        (Pattern::Threshold(0.9), "threshold:0.9"),
        (Pattern::PerInput(0.9), "per-input:0.9"),
        (
            Pattern::Block {
                rows: 3,
                cols: 1,
                sparsity: 0.25,
            },
            "block:3x1:0.25",
        ),
    ] {
        let pruner = Pruner::new(Magnitude, pattern).protect(all.clone());
        if pattern == Pattern::PerInput(0.9) {
            // Two of three go, and two are free.
            assert_eq!(
                pruner.mask(&ones(3, 4), &NoStats).map(|mask| mask.count()),
                Ok(8)
            );
            continue;
        }
        let error = refuses(&pruner, &ones(3, 4), &NoStats);
        assert!(
            matches!(error, Error::TooManyProtected { row: 1, .. }),
            "{error}"
        );
        let message = error.to_string();
        assert!(
            message.starts_with(&format!(
                "the pattern {text} has to prune the protected weight in row 1, column "
            )),
            "{message}"
        );
    }
    // The appendix variant has no count to meet.
    let pruner = Pruner::new(Magnitude, Pattern::Cumulative(0.9)).protect(all);
    assert!(pruner.mask(&ones(3, 4), &NoStats).is_ok());
}

#[test]
fn validation_names_the_first_weight_that_should_be_zero() {
    let w = array![[1.0_f32, 0.0, 0.0, 2.0, 1.0], [1.0, 2.0, 3.0, 0.0, 0.0]];
    let violation = |pattern: Pattern, row, column| {
        let error = validate(&w, &pattern).expect_err("not that sparse");
        assert_eq!(
            error,
            Error::PatternViolated {
                pattern: pattern.to_string(),
                row,
                column
            }
        );
        assert_eq!(
            error.to_string(),
            format!(
                "the matrix is not {pattern}: the weight in row {row}, column {column} \
                 should be zero"
            )
        );
    };
    violation(Pattern::NOfM { keep: 2, of: 4 }, 1, 0);
    violation(Pattern::PerOutput(0.6), 0, 0);
    violation(Pattern::PerInput(0.5), 0, 0);
    violation(Pattern::PerLayer(0.5), 0, 0);
    assert_eq!(validate(&w, &Pattern::PerOutput(0.4)), Ok(()));
    assert_eq!(validate(&w, &Pattern::PerLayer(0.4)), Ok(()));
    assert_eq!(validate(&w, &Pattern::NOfM { keep: 3, of: 4 }), Ok(()));
}

#[test]
fn validation_names_the_first_negative_zero() {
    let w = array![[0.0_f32, 1.0], [-0.0, 1.0]];
    let error = validate(&w, &Pattern::PerOutput(0.5)).expect_err("a negative zero");
    assert_eq!(error, Error::NegativeZero { row: 1, column: 0 });
    assert_eq!(
        error.to_string(),
        "the zero in row 1, column 0 is -0.0; pruned weights are +0.0"
    );
    let w = w.mapv(f16::from_f32);
    assert_eq!(validate(&w, &Pattern::PerOutput(0.5)), Err(error));
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

#[test]
fn layers_without_weights_are_pruned_to_nothing() {
    for (rows, columns) in [(0, 0), (0, 5), (5, 0), (0, 65), (65, 0)] {
        for pattern in [
            Pattern::PerOutput(0.5),
            Pattern::PerLayer(0.5),
            Pattern::PerInput(0.5),
            Pattern::NOfM { keep: 2, of: 4 },
            Pattern::Cumulative(0.5),
            Pattern::Threshold(0.5),
            Pattern::Block {
                rows: 2,
                cols: 2,
                sparsity: 0.5,
            },
        ] {
            let mut w = ones(rows, columns);
            let stats = seen(columns);
            let report = prune_layer(&mut w, &stats, pattern).expect("nothing to do");
            assert_eq!((report.rows(), report.columns()), (rows, columns));
            assert_eq!((report.pruned(), report.zeros()), (0, 0));
            assert!(report.sparsity().abs() < f64::EPSILON);
            assert_eq!(report.relative_error(), None);
            assert!(!report.to_string().contains("NaN"), "{report}");
            assert_eq!(validate(&w, &pattern), Ok(()), "{pattern}");
            assert!(
                Pruner::new(Magnitude, pattern)
                    .prune(&mut w, &NoStats)
                    .is_ok()
            );
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
        assert_eq!(report.pruned(), 0);
        assert_eq!(w, ones(1, 1));
    }
}

#[test]
fn a_layer_of_zeros_has_no_relative_error() {
    let mut w = Array2::<f32>::zeros((3, 4));
    let report = prune_layer(&mut w, &seen(4), Pattern::PerOutput(0.5)).expect("a fine layer");
    assert_eq!(report.relative_error(), None);
    assert_eq!((report.pruned(), report.zeros()), (6, 12));
    assert!(report.to_string().contains("12 zeros in all"), "{report}");
}

#[test]
fn statistics_of_any_number_of_features_cost_nothing_until_a_batch_fits() {
    let mut stats = ColumnNorms::new(usize::MAX);
    assert_eq!(stats.features(), usize::MAX);
    assert_eq!(stats.tokens(), 0);
    assert!(stats.sums_of_squares().is_empty());
    assert!(stats.norms().is_empty());
    assert!(stats.mean_squares().is_empty());
    let error = refuses_batch(&mut stats, |stats| stats.update(&ones(2, 2)));
    assert!(matches!(error, Error::BatchShape { columns: 2, .. }));
    let copy = stats.clone();
    assert_eq!(stats.merge(&copy), Ok(()));
    assert!(
        prune_layer(&mut ones(2, 2), &stats, Pattern::PerOutput(0.5)).is_err(),
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

#[test]
fn sums_of_double_precision_scores_that_overflow_do_not_prune_more_than_asked() {
    // Each score is finite, two together are not.
    let w = Array2::from_elem((2, 8), f64::MAX);
    let mask = |pattern| {
        Pruner::new(Magnitude, pattern)
            .mask(&w, &NoStats)
            .expect("finite weights")
    };
    let block = mask(Pattern::Block {
        rows: 2,
        cols: 2,
        sparsity: 0.5,
    });
    assert_eq!(block.count(), 8);
    // As with any other constant: the first cut takes all or nothing.
    let ones = Pruner::new(Magnitude, Pattern::Cumulative(0.5))
        .mask(&Array2::<f64>::ones((2, 8)), &NoStats)
        .expect("finite weights");
    assert_eq!(mask(Pattern::Cumulative(0.5)), ones);
}

#[test]
fn the_relative_error_of_extreme_double_precision_weights_is_a_number() {
    for scale in [f64::MAX, 1e200, 1.0, 1e-200, f64::MIN_POSITIVE] {
        let mut w = array![[scale, scale / 2.0]];
        let stats = gathered(&array![[1.0, 1.0]]);
        let report = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
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

/// Calls `mark_lowest` in ways that do not fit the row.
#[derive(Debug)]
struct Careless {
    start: usize,
    scores: usize,
    count: usize,
}

impl SparsityPattern for Careless {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        wanda::pattern::project_rows(self, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
        Some(Box::new(Self { ..*self }))
    }
}

impl RowRule for Careless {
    fn select(&self, _: &[f32], marks: &mut MaskRow<'_>) {
        let scores: Vec<f32> = (0..self.scores).map(|i| i as f32).collect();
        marks.mark_lowest(self.start, &scores, self.count);
    }
}

#[test]
fn marking_past_the_end_of_a_row_marks_what_is_there() {
    for columns in [1, 63, 64, 65, 130] {
        for start in [
            0,
            1,
            62,
            63,
            64,
            65,
            129,
            130,
            131,
            usize::MAX - 1,
            usize::MAX,
        ] {
            for scores in [0, 1, 2, 64, 200] {
                for count in [0, 1, 3, 64, 1000, usize::MAX] {
                    let pattern = Careless {
                        start,
                        scores,
                        count,
                    };
                    let mask = Pruner::new(Magnitude, pattern)
                        .mask(&ones(2, columns), &NoStats)
                        .expect("finite weights");
                    let there = columns.saturating_sub(start).min(scores);
                    // The scores ascend, so that the lowest are the first.
                    let marked = there.min(count);
                    let expected = Mask::from_fn(2, columns, |_, column| {
                        column >= start && column - start < marked
                    });
                    assert_eq!(
                        Ok(mask),
                        expected,
                        "{columns} columns, {start}, {scores}, {count}"
                    );
                }
            }
        }
    }
}

/// Fails in both steps, for the path of an error through the pruner.
#[derive(Debug)]
struct Failing;

impl ImportanceMetric for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<f32>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer + 'a>> {
        let (rows, _) = weights.dim();
        weights.read(rows, 0, &mut [0.0])?;
        unreachable!("there is no such row")
    }
}

#[test]
fn what_a_metric_finds_wrong_reaches_the_caller() {
    let pruner = Pruner::new(Failing, Pattern::PerOutput(0.5));
    let error = refuses(&pruner, &ones(3, 4), &NoStats);
    assert!(matches!(
        error,
        Error::OutOfBounds {
            row: 3,
            rows: 3,
            columns: 4,
            ..
        }
    ));
}

#[cfg(feature = "second-order")]
mod second_order {
    use wanda::{Obs, ObsSweep};

    use super::*;
    use common::layer::{correlated_inputs, gram_of};

    /// Statistics of features that are all the same.
    fn same(columns: usize) -> wanda::Gram {
        gram_of(&Array2::from_shape_fn((20, columns), |(token, _)| {
            token as f32 + 1.0
        }))
    }

    /// Fails unless a sweep is refused, and leaves the weights alone.
    fn sweep_refuses(
        metric: impl ImportanceMetric,
        pattern: impl SparsityPattern,
        update: ObsSweep,
        stats: &dyn ActivationStats,
    ) -> Error {
        refuses(
            &Pruner::new(metric, pattern).update(update),
            &ones(3, 4),
            stats,
        )
    }

    const HALF: Pattern = Pattern::PerOutput(0.5);

    #[test]
    fn norms_alone_are_an_error_that_says_who_needs_more() {
        let error = sweep_refuses(Magnitude, HALF, ObsSweep::new(), &seen(4));
        assert_eq!(
            error.to_string(),
            "`obs sweep` needs the Gram matrix of the inputs; gather statistics with `Gram`"
        );
        let error = refuses(&Pruner::new(Obs::new(), HALF), &ones(3, 4), &seen(4));
        assert_eq!(
            error.to_string(),
            "`obs` needs the Gram matrix of the inputs; gather statistics with `Gram`"
        );
    }

    #[test]
    fn no_calibration_data_is_an_error_here_too() {
        let unseen = wanda::Gram::new(4);
        let dead = gram_of(&Array2::<f32>::zeros((7, 4)));
        let none: [(&dyn ActivationStats, u64); 3] = [(&NoStats, 0), (&unseen, 0), (&dead, 7)];
        for (stats, tokens) in none {
            let error = sweep_refuses(Magnitude, HALF, ObsSweep::new(), stats);
            let metric = "obs sweep".to_owned();
            assert_eq!(error, Error::NoCalibration { metric, tokens });
            let error = refuses(&Pruner::new(Obs::new(), HALF), &ones(3, 4), stats);
            let metric = "obs".to_owned();
            assert_eq!(error, Error::NoCalibration { metric, tokens });
        }
    }

    #[test]
    fn statistics_of_another_layer_are_an_error_here_too() {
        let error = sweep_refuses(Obs::new(), HALF, ObsSweep::new(), &same(5));
        let expected = Error::StatsShape {
            rows: 3,
            columns: 4,
            features: 5,
        };
        assert_eq!(error, expected);
        assert_eq!(
            refuses(&Pruner::new(Obs::new(), HALF), &ones(3, 4), &same(5)),
            expected
        );
    }

    #[test]
    fn damping_must_be_finite_and_not_negative() {
        for (damping, text) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (-0.01, "-0.01"),
            (-f64::MIN_POSITIVE, "-0.0000"),
        ] {
            let update = ObsSweep::new().damping(damping);
            let metric = Obs::new().damping(damping);
            let errors = [
                sweep_refuses(Magnitude, HALF, update, &same(4)),
                refuses(&Pruner::new(metric, HALF), &ones(3, 4), &same(4)),
            ];
            for error in errors {
                assert!(matches!(error, Error::InvalidDamping { .. }), "{error}");
                let message = error.to_string();
                assert!(
                    message.starts_with(&format!("a damping of {text}")),
                    "{message}"
                );
                assert!(
                    message.ends_with(" was asked for; it must be finite and not negative"),
                    "{message}"
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
        let error = sweep_refuses(
            Obs::new(),
            Pattern::PerLayer(1.0),
            ObsSweep::new(),
            &same(4),
        );
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
        let mut w = ones(3, 4);
        let error = Pruner::new(Obs::new(), given.clone())
            .update(ObsSweep::new())
            .protect(given)
            .prune(&mut w, &same(4));
        assert!(
            matches!(
                error,
                Err(Error::TooManyProtected {
                    row: 1,
                    column: 0,
                    ..
                })
            ),
            "{error:?}"
        );
        assert_eq!(w, ones(3, 4));
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
        let before = w.clone();
        let error = Pruner::new(Obs::new(), pattern)
            .update(ObsSweep::new().block_size(block_size))
            .prune(&mut w, &same(8))
            .expect_err("too large");
        let Error::Overflow { row, column, value } = error else {
            panic!("{error:?}, by {pattern} in blocks of {block_size}");
        };
        assert_eq!(row, 1);
        assert!(column > 0 && column < 8, "{column}");
        assert!(value > A::LARGEST, "{value}");
        assert_eq!(w, before);
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
        let mut w = Array2::from_elem((1, 2), f16::MAX);
        let error = Pruner::new(Obs::new(), HALF)
            .update(ObsSweep::new())
            .prune(&mut w, &same(2))
            .expect_err("too large");
        let message = error.to_string();
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
                let report =
                    wanda::sparsegpt_layer(&mut w, &stats, pattern).expect("nothing to do");
                assert_eq!((report.pruned(), report.zeros()), (0, 0));
                assert_eq!(report.relative_error(), None);
                assert_eq!(report.damping(), None);
            }
        }
    }

    #[test]
    fn a_layer_of_zeros_is_swept_to_zeros() {
        let mut w = Array2::from_elem((3, 4), -0.0_f32);
        let report = wanda::sparsegpt_layer(&mut w, &same(4), HALF).expect("a fine layer");
        assert_eq!((report.pruned(), report.zeros()), (6, 12));
        assert_eq!(report.relative_error(), None);
    }
}

/// Numbers that are no scores, and some that are.
const ODD: [f32; 8] = [
    f32::NAN,
    -f32::NAN,
    -1.0,
    -0.0,
    0.0,
    1.0,
    f32::INFINITY,
    -f32::INFINITY,
];

/// Promises scores, and gives the numbers it has, or says that those of the first row are factors.
#[derive(Debug, Clone, Copy)]
struct Promising<'a> {
    numbers: &'a Array2<f32>,
    as_factors: bool,
}

impl ImportanceMetric for Promising<'_> {
    fn name(&self) -> &'static str {
        "promising"
    }

    fn prepare<'a>(
        &'a self,
        _: &dyn Rows<f32>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer + 'a>> {
        Ok(Box::new(*self))
    }
}

impl Scorer for Promising<'_> {
    fn score(&self, row: usize, start: usize, _: &[f32], scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = self.numbers[[row, start + j]];
        }
    }

    fn promises_valid_scores(&self, _: f32) -> bool {
        true
    }

    fn factors(&self) -> Option<&[f32]> {
        let factors = self.numbers.row(0).to_slice()?;
        self.as_factors.then_some(factors)
    }
}

/// What becomes of numbers that are no scores is not said, but it is decided.
#[test]
fn patterns_come_to_an_end_with_what_is_no_score() {
    let mut random = Random::new(7);
    for shape in [(1, 1), (3, 70), (70, 3), (260, 257), (1, 3000), (3000, 1)] {
        for odd_ones in [0.01, 0.5, 1.0] {
            let scores = Array2::from_shape_fn(shape, |_| {
                let score = (random.bits() >> 40) as f32;
                let odd = random.pick(&ODD);
                if random.unit() < odd_ones { odd } else { score }
            });
            for sparsity in [0.01, 0.5, 0.999] {
                for pattern in all_kinds(sparsity) {
                    let mask = SparsityPattern::<f32>::project(&pattern, &scores);
                    assert_eq!(mask.expect("room for a mask").dim(), shape, "{pattern}");
                    for as_factors in [false, true] {
                        let promising = Promising {
                            numbers: &scores,
                            as_factors,
                        };
                        let mut w = Array2::<f32>::ones(shape);
                        let report = Pruner::new(promising, pattern)
                            .prune(&mut w, &NoStats)
                            .expect("nothing that is checked");
                        let zeros = w.iter().filter(|&&w| w == 0.0).count();
                        assert_eq!(report.zeros(), zeros, "{pattern}");
                    }
                }
            }
        }
    }
}

/// Zeros of any shape, of which there need be no memory.
struct Endless {
    dim: (usize, usize),
}

impl Rows<f32> for Endless {
    fn dim(&self) -> (usize, usize) {
        self.dim
    }

    fn read(&self, _: usize, _: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
}

/// A pattern of each kind.
fn all_kinds(sparsity: f64) -> [Pattern; 7] {
    [
        Pattern::PerOutput(sparsity),
        Pattern::PerLayer(sparsity),
        Pattern::PerInput(sparsity),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::Block {
            rows: 3,
            cols: 2,
            sparsity,
        },
        Pattern::Cumulative(sparsity),
        Pattern::Threshold(sparsity),
    ]
}

#[test]
fn a_layer_with_more_weights_than_numbers_can_count_is_too_large() {
    let (rows, columns) = (usize::MAX, 2);
    let scores = Endless {
        dim: (rows, columns),
    };
    for pattern in all_kinds(0.5) {
        let expected = Err(Error::TooLarge { rows, columns });
        let found = pattern.project(&scores).map(|_| ());
        assert_eq!(found, expected, "{pattern}");
        let found = pattern.project_block(&scores, 0..2, 2).map(|_| ());
        assert_eq!(found, expected, "{pattern}");
        let cut = SparsityPattern::<f32>::layer_cut(&pattern, &scores).map(|_| ());
        assert_eq!(cut, expected, "{pattern}");
    }
}

#[test]
fn a_block_that_scores_are_not_of_is_refused() {
    let scores = Array2::<f32>::ones((3, 2));
    let mut patterns: Vec<Box<dyn SparsityPattern>> = vec![Box::new(
        Mask::none(3, 1000).expect("there is memory for a mask"),
    )];
    for pattern in all_kinds(0.5) {
        patterns.push(Box::new(pattern));
    }
    #[allow(
        clippy::reversed_empty_ranges,
        reason = "that is one of those to be refused"
    )]
    for block in [
        0..1000,
        5..2,
        999..1001,
        0..1,
        0..0,
        usize::MAX - 1..usize::MAX,
    ] {
        for pattern in &patterns {
            let found = pattern.project_block(&scores, block.clone(), 1000);
            let expected = Error::BlockShape {
                start: block.start,
                end: block.end,
                columns: 1000,
                scores: 2,
            };
            assert_eq!(found.map(|_| ()), Err(expected), "{}", pattern.name());
        }
    }
}

#[test]
fn parameters_are_checked_wherever_a_pattern_is_asked() {
    let scores = Array2::<f32>::ones((3, 2));
    let mut patterns: Vec<Pattern> = [2.0, 1.0, -0.5, f64::NAN]
        .into_iter()
        .flat_map(all_kinds)
        .filter(|pattern| !matches!(pattern, Pattern::NOfM { .. }))
        .collect();
    patterns.push(Pattern::NOfM { keep: 0, of: 0 });
    patterns.push(Pattern::NOfM { keep: 5, of: 4 });
    for (rows, cols) in [(0, 1), (1, 0)] {
        patterns.push(Pattern::Block {
            rows,
            cols,
            sparsity: 0.5,
        });
    }
    for pattern in patterns {
        assert!(pattern.project(&scores).is_err(), "{pattern}");
        assert!(
            pattern.project_block(&scores, 0..2, 2).is_err(),
            "{pattern}"
        );
        assert!(
            SparsityPattern::<f32>::layer_cut(&pattern, &scores).is_err(),
            "{pattern}"
        );
        // A rule has no errors: it may do as it likes, but ends.
        if let Some(rule) = SparsityPattern::<f32>::row_rule(&pattern) {
            let projected = project_rows(&*rule, &Array2::<f32>::ones((1, 6)));
            assert_eq!(projected.expect("a mask").dim(), (1, 6), "{pattern}");
        }
    }
}

#[test]
fn batches_that_only_pretend_to_have_so_many_numbers_are_too_large() {
    let number = array![[1.0_f32]];
    for (rows, columns) in [(1, 1 << 44), (1 << 44, 1)] {
        let batch = number
            .broadcast((rows, columns))
            .expect("a view of one number");
        let mut stats = ColumnNorms::new(columns);
        assert_eq!(stats.update(&batch), Err(Error::TooLarge { rows, columns }));
        assert_eq!(stats, ColumnNorms::new(columns));
    }
}

/// A number that is seen in so many places that there is no memory for a factor of each.
#[test]
fn a_row_that_no_memory_can_hold_is_too_large() {
    let number = array![[1.0_f32]];
    let (rows, columns) = (1, 1 << 47);
    let w = number
        .broadcast((rows, columns))
        .expect("a view of one number");
    let scorer = Magnitude.prepare(&w, &NoStats).map(|_| ());
    assert_eq!(scorer, Err(Error::TooLarge { rows, columns }));
}

#[test]
fn layers_without_rows_may_be_of_any_width() {
    for columns in [1 << 40, isize::MAX as usize] {
        let mut w = Array2::<f32>::zeros((0, columns));
        for pattern in all_kinds(0.5) {
            assert_eq!(validate(&w, &pattern), Ok(()), "{pattern}");
        }
        let report = prune_layer(&mut w, &NoStats, Pattern::PerOutput(0.5));
        assert_eq!(report.expect("nothing to prune").pruned(), 0);
    }
}

/// Scores whose shape is another one whenever it is asked for.
#[derive(Default)]
struct Shifting {
    asked: std::sync::atomic::AtomicUsize,
}

impl Rows<f32> for Shifting {
    fn dim(&self) -> (usize, usize) {
        let asked = self
            .asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        [(130, 70), (3, 200), (500, 2), (0, 0)][asked % 4]
    }

    fn read(&self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((row * 7 + (start + i) * 13) % 31) as f32;
        }
        Ok(())
    }
}

#[test]
fn a_layer_that_changes_its_shape_is_no_reason_to_panic() {
    for pattern in all_kinds(0.5) {
        let mask = pattern.project(&Shifting::default()).expect("a mask");
        assert_eq!(mask.dim(), (130, 70), "{pattern}");
        let block = pattern.project_block(&Shifting::default(), 70..140, 200);
        assert_eq!(block.expect("a mask").dim(), (130, 70), "{pattern}");
        let cut = SparsityPattern::<f32>::layer_cut(&pattern, &Shifting::default());
        assert!(cut.is_ok(), "{pattern}");
    }
}

#[test]
fn rules_and_scorers_that_are_given_runs_of_wrong_lengths_do_not_panic() {
    /// A rule of this crate, asked about more scores than there are marks.
    struct TooMany<'a>(Box<dyn RowRule + 'a>);

    impl RowRule for TooMany<'_> {
        fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
            self.0.select(&scores.repeat(3), marks);
        }
    }

    let scores = Array2::<f32>::ones((2, 70));
    for pattern in [
        Pattern::PerOutput(0.5),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::NOfM { keep: 1, of: 200 },
    ] {
        let rule = SparsityPattern::<f32>::row_rule(&pattern).expect("a rule of rows");
        let mask = project_rows(&TooMany(rule), &scores).expect("a mask");
        assert_eq!(mask.dim(), (2, 70), "{pattern}");
    }
    let stats = gathered(&Array2::<f32>::ones((1, 70)));
    for metric in [&Magnitude as &dyn ImportanceMetric, &Wanda] {
        let prepared = metric.prepare(&scores, &stats).expect("a scorer");
        for (start, weights, len) in [
            (0, 5, 3),
            (0, 3, 5),
            (69, 3, 3),
            (70, 1, 1),
            (usize::MAX, 1, 1),
        ] {
            prepared.score(0, start, &vec![1.0; weights], &mut vec![0.0; len]);
        }
    }
}

/// Statistics that know of another matrix than they have norms of.
#[cfg(feature = "second-order")]
#[test]
fn a_gram_matrix_of_another_layer_than_the_norms_is_refused() {
    use wanda::{Gram, Obs, ObsSweep};

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

        fn gram(&self) -> Option<&Gram> {
            Some(&self.gram)
        }
    }

    let w = Array2::from_shape_fn((2, 4), |(i, j)| (1 + i + j) as f32);
    let norms = gathered(&Array2::<f32>::ones((3, 4)));
    for features in [2, 7] {
        let mut gram = Gram::new(features);
        gram.update(&Array2::<f32>::ones((3, features)))
            .expect("finite inputs");
        let stats = Mixed {
            norms: norms.clone(),
            gram,
        };
        let expected = Error::StatsShape {
            rows: 2,
            columns: 4,
            features,
        };
        let half = Pattern::PerOutput(0.5);
        assert_eq!(refuses(&Pruner::new(Magnitude, half), &w, &stats), expected);
        assert_eq!(
            refuses(&Pruner::new(Obs::new(), half), &w, &stats),
            expected
        );
        let sweep = Pruner::new(Wanda, half).update(ObsSweep::new());
        assert_eq!(refuses(&sweep, &w, &stats), expected);
        let scorer = Obs::new().prepare(&w, &stats).map(|_: Box<dyn Scorer>| ());
        assert_eq!(scorer, Err(expected));
    }
    let stats = Mixed {
        norms,
        gram: Gram::new(4),
    };
    for error in [
        refuses(
            &Pruner::new(Obs::new(), Pattern::PerOutput(0.5)),
            &w,
            &stats,
        ),
        refuses(
            &Pruner::new(Wanda, Pattern::PerOutput(0.5)).update(ObsSweep::new()),
            &w,
            &stats,
        ),
    ] {
        assert!(
            matches!(error, Error::NoCalibration { tokens: 0, .. }),
            "{error}"
        );
    }
}
