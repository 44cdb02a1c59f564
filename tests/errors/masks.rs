//! Masks of another shape, and places outside masks and matrices.

use wanda::ndarray::array;
use wanda::{Error, Magnitude, Mask, NoStats, Pattern, Pruner, Rows};

use crate::HALF;
use crate::common::layer::ones;
use crate::common::refusal::refuses;

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
    let pruner = Pruner::new(Magnitude, HALF).protect(mask);
    assert_eq!(refuses(&pruner, &ones(4, 3), &NoStats), error);
}

#[test]
fn places_outside_a_mask_are_an_error() {
    let mut mask = Mask::none(2, 65).expect("a small mask");
    for (row, column) in [(2, 0), (0, 65), (0, 127), (usize::MAX, 0), (0, usize::MAX)] {
        assert_eq!(mask.get(row, column), None);
        for marked in [false, true] {
            let error = mask.set(row, column, marked).expect_err("outside");
            let expected = Error::OutOfBounds {
                row,
                start: column,
                len: 1,
                rows: 2,
                columns: 65,
            };
            assert_eq!(error, expected);
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
        let expected = Error::OutOfBounds {
            row,
            start,
            len,
            rows: 2,
            columns: 3,
        };
        assert_eq!(read(row, start, len), Err(expected));
    }
    assert_eq!(
        read(0, 2, 2).expect_err("outside").to_string(),
        "row 0, columns 2 to 4 are not within 2 rows and 3 columns"
    );
}

#[test]
fn protecting_too_much_is_an_error_that_names_a_protected_weight() {
    let protected = Mask::from_fn(3, 4, |row, _| row == 1).expect("a small mask");
    let columns = Pattern::Block {
        rows: 3,
        cols: 1,
        sparsity: 0.25,
    };
    for (pattern, text) in [
        (Pattern::PerOutput(0.5), "0.5"),
        (Pattern::NOfM { keep: 2, of: 4 }, "2:4"),
        (Pattern::PerLayer(0.9), "per-layer:0.9"),
        (Pattern::Threshold(0.9), "threshold:0.9"),
        (columns, "block:3x1:0.25"),
    ] {
        let pruner = Pruner::new(Magnitude, pattern).protect(protected.clone());
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
    let pruned = |pattern| {
        let pruner = Pruner::new(Magnitude, pattern).protect(protected.clone());
        pruner.mask(&ones(3, 4), &NoStats).map(|mask| mask.count())
    };
    // Two of the three weights of each input are pruned, and two are free.
    assert_eq!(pruned(Pattern::PerInput(0.9)), Ok(8));
    // The appendix variant has no count to meet.
    assert!(pruned(Pattern::Cumulative(0.9)).is_ok());
}

/// Nothing is allocated, neither for the indices nor for the starts of rows.
#[cfg(target_pointer_width = "64")]
#[test]
fn columns_that_a_u32_cannot_count_have_no_indices() {
    let (rows, columns) = (1, 1 << 32);
    let mask = Mask::none(rows, columns).expect("memory for a bit a column");
    assert_eq!(mask.to_csr(), Err(Error::TooLarge { rows, columns }));
}
