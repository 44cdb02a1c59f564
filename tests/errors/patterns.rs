//! Patterns whose parameters are out of range, and texts that are not patterns.

use wanda::ndarray::Array2;
use wanda::{Error, Magnitude, NoStats, Pattern, Pruner, validate};

use crate::common::layer::{of_each_kind, ones};
use crate::common::refusal::refuses;

/// A pattern of each kind that has a sparsity.
fn of_each_sparsity(sparsity: f64) -> impl Iterator<Item = Pattern> {
    of_each_kind(sparsity, (2, 2))
        .into_iter()
        .filter(|pattern| !matches!(pattern, Pattern::NOfM { .. }))
}

#[test]
fn a_sparsity_must_be_at_least_0_and_less_than_1() {
    for (sparsity, text) in [
        (f64::NAN, "NaN"),
        (-0.1, "-0.1"),
        (-f64::MIN_POSITIVE, "-0.00"),
        (1.0, "1"),
        (50.0, "50"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        for pattern in of_each_sparsity(sparsity) {
            let error = refuses(&Pruner::new(Magnitude, pattern), &ones(4, 4), &NoStats);
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
            assert!(
                matches!(
                    validate(&ones(4, 4), &pattern),
                    Err(Error::InvalidSparsity { .. })
                ),
                "{pattern}"
            );
        }
    }
    let w = Array2::from_shape_fn((4, 4), |(i, j)| (4 * i + j + 1) as f32);
    for sparsity in [0.0, -0.0, 0.999_999, 1.0 - f64::EPSILON] {
        for pattern in of_each_sparsity(sparsity) {
            let mask = Pruner::new(Magnitude, pattern).mask(&w, &NoStats);
            // The weight at the threshold is pruned as well.
            let at_threshold = matches!(pattern, Pattern::Threshold(_));
            assert!(
                mask.expect("in range").count() < 16 + usize::from(at_threshold),
                "{pattern}"
            );
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
}

#[test]
fn a_block_must_hold_something() {
    for (rows, cols) in [(0, 4), (4, 0), (0, 0), (usize::MAX, 0)] {
        let pattern = Pattern::Block {
            rows,
            cols,
            sparsity: 0.5,
        };
        let error = refuses(&Pruner::new(Magnitude, pattern), &ones(4, 4), &NoStats);
        let columns = cols;
        assert_eq!(error, Error::InvalidBlock { rows, columns });
        assert_eq!(
            error.to_string(),
            format!(
                "a block of {rows} x {cols} weights holds nothing; both sides must be at least 1"
            )
        );
    }
}

#[test]
fn groups_and_blocks_may_be_larger_than_the_layer() {
    const MAX: usize = usize::MAX;
    let group = |keep, of| Pattern::NOfM { keep, of };
    let block = |rows, cols| Pattern::Block {
        rows,
        cols,
        sparsity: 0.5,
    };
    for (pattern, pruned) in [
        (group(4, 4), 0),
        (group(1, MAX), 12),
        (group(MAX, MAX), 0),
        (group(3, 5), 4),
        (block(5, 5), 0),
        (block(MAX, MAX), 0),
        (block(MAX, 1), 8),
        (block(1, MAX), 8),
    ] {
        let mask = Pruner::new(Magnitude, pattern).mask(&ones(4, 4), &NoStats);
        assert_eq!(mask.map(|mask| mask.count()), Ok(pruned), "{pattern}");
    }
}

#[test]
fn a_text_that_is_not_a_pattern_is_repeated_with_examples() {
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
}

#[test]
fn a_text_of_a_pattern_out_of_range_is_refused() {
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
