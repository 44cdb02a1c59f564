//! Scores that overflow, and metrics that fail.

use wanda::ndarray::{Array2, array};
use wanda::{
    Context, Error, ImportanceMetric, Magnitude, NoStats, Pattern, Prepared, Pruner, Result, Rows,
    Wanda,
};

use crate::HALF;
use crate::common::layer::{gathered, of_each_kind, ones};
use crate::common::refusal::refuses;

#[test]
fn a_score_that_overflows_is_named_by_place_and_metric() {
    let mut w = ones(2, 3);
    w[[1, 2]] = f32::MAX;
    let stats = gathered(&array![[1.0_f32, 1.0, 2.0]]);
    let pairs = Pattern::NOfM { keep: 1, of: 2 };
    for pattern in of_each_kind(0.5, (1, 1)).into_iter().chain([pairs]) {
        let error = refuses(&Pruner::new(Wanda, pattern), &w, &stats);
        let expected = Error::InvalidScore {
            metric: "wanda".to_owned(),
            row: 1,
            column: 2,
            score: f64::INFINITY,
        };
        assert_eq!(error, expected, "{pattern}");
        assert_eq!(
            error.to_string(),
            "`wanda` scored the weight in row 1, column 2 as inf; \
             a score must be finite and not negative"
        );
    }
}

#[test]
fn sums_of_double_precision_scores_that_overflow_do_not_prune_more_than_asked() {
    // Each score is finite, two together are not.
    let w = Array2::from_elem((2, 8), f64::MAX);
    let mask = |w: &Array2<f64>, pattern| {
        Pruner::new(Magnitude, pattern)
            .mask(w, &NoStats)
            .expect("finite weights")
    };
    let blocks = Pattern::Block {
        rows: 2,
        cols: 2,
        sparsity: 0.5,
    };
    assert_eq!(mask(&w, blocks).count(), 8);
    // As with any other constant: the first cut takes all or nothing.
    let cumulative = Pattern::Cumulative(0.5);
    assert_eq!(
        mask(&w, cumulative),
        mask(&Array2::ones((2, 8)), cumulative)
    );
}

/// Fails as it prepares, by reading a row that is not there.
#[derive(Debug)]
struct Failing;

impl ImportanceMetric for Failing {
    fn name(&self) -> String {
        "failing".to_owned()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<f32>,
        _: &Context<'a, f32>,
    ) -> Result<Prepared<'a>> {
        let (rows, _) = weights.dim();
        weights.read(rows, 0, &mut [0.0])?;
        unreachable!("there is no such row")
    }
}

#[test]
fn an_error_of_a_metric_reaches_the_caller() {
    let error = refuses(&Pruner::new(Failing, HALF), &ones(3, 4), &NoStats);
    let expected = Error::OutOfBounds {
        row: 3,
        start: 0,
        len: 1,
        rows: 3,
        columns: 4,
    };
    assert_eq!(error, expected);
}
