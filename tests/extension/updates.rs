//! Updates of users.

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, array};
use wanda::{
    Error, ErrorBasis, KeepWeights, Magnitude, Mask, NoStats, Pattern, Pruner, Real, RelativeError,
    Result, UpdateTask, Updated, WeightUpdate,
};

use crate::common::refusal::{NON_FINITE, refuses};
use crate::{HALF, weights};

/// Halves what stays and prunes the first weight of every row, with the metric and the pattern
/// looked at as little as an update may.
#[derive(Debug, Clone, Copy)]
struct Halve {
    /// What is claimed about a layer of other dimensions.
    dim: Option<(usize, usize)>,
    /// What the first weight of the last row becomes.
    last: Option<f32>,
}

impl WeightUpdate for Halve {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = self.dim.unwrap_or(task.weights.dim());
        let mut difference = Array2::zeros((rows, columns));
        if self.dim.is_none() {
            for (row, mut difference) in difference.rows_mut().into_iter().enumerate() {
                let mut weights = vec![0.0; columns];
                task.weights.read(row, 0, &mut weights)?;
                for (column, (x, weight)) in difference.iter_mut().zip(weights).enumerate() {
                    *x = if column == 0 { weight } else { weight / 2.0 };
                }
            }
            if let Some(last) = self.last {
                difference[[rows - 1, 0]] -= last;
            }
        }
        let mask = Mask::from_fn(rows, columns, |_, column| column == 0)?;
        let mut updated = Updated::new(difference, mask);
        updated.relative_error = RelativeError::new(1.0, 8.0, ErrorBasis::InputNorms);
        Ok(Some(updated))
    }
}

impl Halve {
    const PLAIN: Self = Self {
        dim: None,
        last: None,
    };

    fn of(dim: (usize, usize)) -> Self {
        Self {
            dim: Some(dim),
            ..Self::PLAIN
        }
    }

    fn leaving(last: f32) -> Self {
        Self {
            last: Some(last),
            ..Self::PLAIN
        }
    }
}

/// The error with which pruning with this update is refused.
fn refuses_update(update: impl WeightUpdate) -> Error {
    let pruner = Pruner::new(Magnitude, HALF).update(update);
    refuses(&pruner, &weights(), &NoStats)
}

#[test]
fn a_users_update_decides_and_changes_what_stays() {
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.25)).update(Halve::PLAIN);
    let mut w = weights();
    let expected = Mask::from_fn(2, 4, |_, column| column == 0);
    assert_eq!(pruner.mask(&w, &NoStats), expected);
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[0.0, -0.5, 0.25, 1.5], [0.0, 0.2, -0.15, 0.1]]);
    assert_eq!((report.pruned(), report.zeros()), (2, 2));
    assert_eq!(report.damping(), None);
    let error = report.relative_error().expect("what the update says");
    assert_eq!(error.value().to_bits(), 0.125_f64.to_bits());
    assert_eq!(error.basis(), ErrorBasis::InputNorms);

    // Weights of another type are changed as the type they are computed in.
    let mut half = weights().mapv(bf16::from_f32);
    let report = pruner.prune(&mut half, &NoStats).expect("a fine layer");
    assert_eq!(report.pruned(), 2);
    assert_eq!(
        half,
        w.mapv(|w| if w == 0.0 {
            bf16::ZERO
        } else {
            bf16::from_f32(w)
        })
    );
}

#[test]
fn updates_work_behind_references_and_boxes() {
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.25));
    let mut expected = weights();
    let report = pruner.clone().update(Halve::PLAIN);
    let report = report.prune(&mut expected, &NoStats).expect("a fine layer");
    let update: &dyn WeightUpdate = &Halve::PLAIN;
    let boxed: Box<dyn WeightUpdate> = Box::new(Halve::PLAIN);
    let (mut by_reference, mut by_box) = (weights(), weights());
    for again in [
        pruner
            .clone()
            .update(update)
            .prune(&mut by_reference, &NoStats),
        pruner.update(boxed).prune(&mut by_box, &NoStats),
    ] {
        let again = again.expect("a fine layer");
        assert_eq!(again.pruned(), report.pruned());
        assert_eq!(again.relative_error(), report.relative_error());
    }
    assert_eq!((&by_reference, &by_box), (&expected, &expected));
}

#[test]
fn a_users_update_may_leave_it_to_the_pattern() {
    /// Looks at the layer and then does nothing.
    #[derive(Debug)]
    struct Idle;

    impl<T: Real> WeightUpdate<T> for Idle {
        fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
            assert_eq!(task.weights.dim(), (2, 4));
            assert_eq!(task.metric.name(), "magnitude");
            assert_eq!(task.pattern.name(), "0.5");
            Ok(None)
        }
    }

    let plain = Pruner::new(Magnitude, HALF);
    let (mut expected, mut w) = (weights(), weights());
    let expected_report = plain.prune(&mut expected, &NoStats).expect("a fine layer");
    for report in [
        plain.clone().update(Idle).prune(&mut w, &NoStats),
        plain
            .clone()
            .update(KeepWeights)
            .prune(&mut weights(), &NoStats),
    ] {
        assert_eq!(
            report.expect("a fine layer").pruned(),
            expected_report.pruned()
        );
    }
    assert_eq!(w, expected);
    assert!(
        plain
            .update(Idle)
            .mask(&weights().mapv(f64::from), &NoStats)
            .is_ok()
    );
}

#[test]
fn a_users_update_of_another_shape_is_an_error() {
    for dim in [(4, 2), (2, 3), (0, 0)] {
        // The mask has the wrong shape as well.
        let expected = Error::MaskShape {
            expected: (2, 4),
            found: dim,
        };
        assert_eq!(refuses_update(Halve::of(dim)), expected);
    }
}

/// An update whose mask fits and whose weights do not.
#[derive(Debug)]
struct Misfit;

impl WeightUpdate for Misfit {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = task.weights.dim();
        let mask = Mask::none(rows, columns)?;
        Ok(Some(Updated::new(Array2::zeros((columns, rows)), mask)))
    }
}

#[test]
fn what_a_users_update_subtracts_must_have_the_shape_of_the_layer() {
    let error = refuses_update(Misfit);
    let expected = Error::UpdateShape {
        weights: (2, 4),
        update: (4, 2),
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the layer is 2 x 4, but its update is 4 x 2"
    );
}

#[test]
fn what_a_users_update_leaves_of_pruned_weights_is_refused() {
    for last in [0.5, -2.0] {
        let error = refuses_update(Halve::leaving(last));
        let Error::NotPruned {
            row: 1,
            column: 0,
            value,
        } = error
        else {
            panic!("{error}");
        };
        assert!((value - f64::from(last)).abs() < 1e-6, "{value}");
        assert_eq!(
            error.to_string(),
            format!(
                "the update pruned the weight in row 1, column 0, but leaves {value}; \
                 it has to remove all of it, so that +0.0 is left"
            )
        );
    }
    // Nothing is left of -0.0 less +0.0, but its sign.
    let pruner = Pruner::new(Magnitude, HALF).update(Misread);
    let error = refuses(&pruner, &array![[-0.0_f32, 1.0]], &NoStats);
    let expected = Error::NotPruned {
        row: 0,
        column: 0,
        value: -0.0,
    };
    assert_eq!(error, expected);
}

/// An update that takes nothing away from the weights of the first column, and says it pruned them.
#[derive(Debug)]
struct Misread;

impl WeightUpdate for Misread {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = task.weights.dim();
        let mask = Mask::from_fn(rows, columns, |_, column| column == 0)?;
        Ok(Some(Updated::new(Array2::zeros((rows, columns)), mask)))
    }
}

#[test]
fn weights_that_a_users_update_makes_too_large_are_named() {
    for (last, text) in NON_FINITE {
        assert_eq!(
            refuses_update(Halve::leaving(last)).to_string(),
            format!(
                "the updated weight in row 1, column 0 is {text}, \
                 which the type it is stored in cannot hold"
            )
        );
    }
    // What `f32` can hold, half precision need not.
    let pruner = Pruner::new(Magnitude, HALF).update(Halve::leaving(1e6));
    let error = refuses(&pruner, &weights().mapv(f16::from_f32), &NoStats);
    assert!(
        matches!(
            error,
            Error::Overflow {
                row: 1,
                column: 0,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_users_update_must_not_prune_protected_weights() {
    let protected = Mask::from_fn(2, 4, |row, column| (row, column) == (1, 0)).expect("a mask");
    let pruner = Pruner::new(Magnitude, HALF)
        .protect(protected)
        .update(Halve::PLAIN);
    let error = refuses(&pruner, &weights(), &NoStats);
    let expected = Error::TooManyProtected {
        pattern: "0.5".to_owned(),
        row: 1,
        column: 0,
    };
    assert_eq!(error, expected);
}

/// Never satisfied.
#[derive(Debug)]
struct Sulking;

impl WeightUpdate for Sulking {
    fn run(&self, _: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        Err(Error::Custom {
            origin: "sulking".to_owned(),
            reason: "not today".to_owned(),
        })
    }
}

#[test]
fn an_error_of_a_users_update_reaches_the_caller() {
    let error = refuses_update(Sulking);
    assert_eq!(error.to_string(), "sulking: not today");
    // There is nothing to sulk about where there is nothing.
    let pruner = Pruner::new(Magnitude, HALF).update(Sulking);
    let mut nothing = Array2::<f32>::zeros((0, 4));
    assert!(pruner.prune(&mut nothing, &NoStats).is_ok());
}

#[test]
fn a_relative_error_is_a_number_or_none() {
    let basis = ErrorBasis::Gram;
    let value = |lost, total| RelativeError::new(lost, total, basis).map(|error| error.value());
    assert_eq!(value(1.0, 4.0), Some(0.25));
    assert_eq!(value(-1e-20, 4.0), Some(0.0));
    for (lost, total) in [
        (0.0, 0.0),
        (1.0, -1.0),
        (f64::NAN, 1.0),
        (1.0, f64::NAN),
        (f64::INFINITY, f64::INFINITY),
        (1e300, 1e-300),
    ] {
        assert_eq!(value(lost, total), None, "{lost} of {total}");
    }
}
