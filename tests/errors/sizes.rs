//! Masks, batches and layers that no memory can hold, or that have sides of any length and nothing
//! in them.

use wanda::ndarray::{Array2, array};
use wanda::{
    ColumnNorms, Context, Error, ImportanceMetric, Magnitude, Mask, NoStats, prune_layer, validate,
};

use crate::HALF;
use crate::common::layer::of_each_kind;

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

/// One number, seen in so many places that there is no memory for a sum of squares of each.
#[test]
fn a_batch_that_no_memory_can_hold_is_too_large() {
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

/// One number, seen in so many places that there is no memory for a factor of each.
#[test]
fn a_row_that_no_memory_can_hold_is_too_large() {
    let number = array![[1.0_f32]];
    let (rows, columns) = (1, 1 << 47);
    let w = number
        .broadcast((rows, columns))
        .expect("a view of one number");
    let scorer = Magnitude
        .prepare(&w, &Context::new(&NoStats, 1.0))
        .map(|_| ());
    assert_eq!(scorer, Err(Error::TooLarge { rows, columns }));
}

#[test]
fn layers_without_rows_may_be_of_any_width() {
    for columns in [1 << 40, isize::MAX as usize] {
        let mut w = Array2::<f32>::zeros((0, columns));
        for pattern in of_each_kind(0.5, (3, 2)) {
            assert_eq!(validate(&w, &pattern), Ok(()), "{pattern}");
        }
        let report = prune_layer(&mut w, &NoStats, HALF);
        assert_eq!(report.expect("nothing to prune").pruned(), 0);
    }
}
