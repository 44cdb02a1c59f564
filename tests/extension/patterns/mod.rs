//! Patterns of users: by comparison groups, by code row by row, those that decide a layer at once,
//! and those that return what they should not.

pub(crate) mod fused;
mod hostile;
mod projections;
#[cfg(feature = "second-order")]
mod sweeps;

use std::fmt::{self, Debug};
use std::ops::Range;

use wanda::half::bf16;
use wanda::ndarray::{Array2, array};
use wanda::pattern::mark_rows;
use wanda::{
    ComparisonGroup, Element, Error, Magnitude, Mask, MaskRow, NoStats, Pattern, Pruner, Real,
    Result, Rows, SparsityPattern, prune_layer, validate,
};

use crate::common::layer::gathered;
use crate::common::refusal::refuses;
use crate::metrics::Scored;
use crate::{HALF, weights};

/// Keeps the `keep` highest scores of every row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepOfRow {
    pub(crate) keep: usize,
}

impl<T: Real> SparsityPattern<T> for KeepOfRow {
    fn check(&self, _: usize, columns: usize) -> Result<()> {
        if self.keep > columns {
            return Err(Error::InvalidGroup {
                keep: self.keep,
                of: columns,
            });
        }
        Ok(())
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Row)
    }

    fn count(&self, size: usize) -> usize {
        size.saturating_sub(self.keep)
    }
}

/// A pattern that decides row by row, by code.
#[derive(Clone, Copy)]
struct RowByRow<F>(F);

/// A pattern that marks each row as `mark` does.
fn row_by_row<F: Fn(&[f32], &mut MaskRow<'_>) + Send + Sync>(mark: F) -> RowByRow<F> {
    RowByRow(mark)
}

impl<F> Debug for RowByRow<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("row by row")
    }
}

impl<F: Fn(&[f32], &mut MaskRow<'_>) + Send + Sync> SparsityPattern for RowByRow<F> {
    fn project(&self, scores: &dyn Rows<f32>, _: Range<usize>) -> Result<Mask> {
        mark_rows(scores, |_, scores, marks| {
            assert_eq!(marks.columns(), scores.len());
            (self.0)(scores, marks);
        })
    }
}

/// Prunes the whole columns that have the least sums of scores; decides about the layer at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeColumns {
    pub(crate) columns: usize,
}

impl<T: Real> SparsityPattern<T> for WholeColumns {
    fn name(&self) -> String {
        format!("{} whole columns", self.columns)
    }

    fn project(&self, scores: &dyn Rows<T>, _: Range<usize>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        let mut sums = vec![0.0; columns];
        let mut buffer = vec![<T as Element>::ZERO; columns];
        for row in 0..rows {
            scores.read(row, 0, &mut buffer)?;
            for (sum, score) in sums.iter_mut().zip(&buffer) {
                *sum += score.as_f64();
            }
        }
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|&a, &b| sums[a].total_cmp(&sums[b]));
        let mut mask = Mask::none(rows, columns)?;
        for &column in order.iter().take(self.columns) {
            for row in 0..rows {
                mask.set(row, column, true)?;
            }
        }
        Ok(mask)
    }
}

#[test]
fn a_users_pattern_prunes_rows() {
    let mut w = weights();
    let pruner = Pruner::new(Magnitude, KeepOfRow { keep: 1 });
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[4.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0]]);
    assert_eq!(report.pruned(), 6);
    assert_eq!(validate(&w, &KeepOfRow { keep: 1 }), Ok(()));

    let mut w = weights();
    let below = row_by_row(|scores, marks| marks.fill(|column| scores[column] < 0.45));
    let pruner = Pruner::new(Magnitude, below);
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[4.0, -1.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0]]);
    assert_eq!(report.pruned(), 4);
}

/// Prunes the lowest half of every row.
#[derive(Debug, Clone, Copy)]
struct LowestHalf;

impl SparsityPattern for LowestHalf {
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Row)
    }

    fn count(&self, size: usize) -> usize {
        size / 2
    }
}

#[test]
fn a_users_count_of_the_lowest_is_what_code_marks() {
    let by_code = row_by_row(|scores, marks| marks.mark_lowest(0, scores, scores.len() / 2));
    for columns in [0, 1, 2, 63, 300, 1024, 2500] {
        let dense = Array2::from_shape_fn((3, columns), |(i, j)| ((i + j * 7919) % 1009) as f32);
        let mask = Pruner::new(Magnitude, by_code).mask(&dense, &NoStats);
        let mut expected = dense.clone();
        let mask = mask.expect("finite weights");
        mask.apply(&mut expected).expect("the same shape");
        for pattern in [&LowestHalf as &dyn SparsityPattern, &by_code] {
            let pruner = Pruner::new(Magnitude, pattern);
            assert_eq!(pruner.mask(&dense, &NoStats).as_ref(), Ok(&mask));
            let mut w = dense.clone();
            let report = pruner.prune(&mut w, &NoStats).expect("finite weights");
            assert_eq!(report.pruned(), 3 * (columns / 2));
            assert_eq!(w, expected);
        }
    }
}

#[test]
fn a_users_pattern_does_the_same_with_and_without_a_promise_of_valid_scores() {
    let stats = gathered(&array![[1.0_f32, 1.0, 1.0, 1.0]]);
    let mut checked = weights();
    let mut promised = weights();
    let rule = KeepOfRow { keep: 2 };
    let pruner = Pruner::new(Scored(f32::abs), rule);
    let checked_report = pruner.prune(&mut checked, &stats).expect("a fine layer");
    let promised_report = prune_layer(&mut promised, &stats, rule).expect("a fine layer");
    assert_eq!(checked, promised);
    assert_eq!(checked_report.pruned(), promised_report.pruned());
    assert_eq!(
        checked_report.relative_error(),
        promised_report.relative_error()
    );
}

#[test]
fn a_users_pattern_decides_a_whole_layer() {
    let mut w = weights().mapv(bf16::from_f32);
    let pattern = WholeColumns { columns: 2 };
    let stats = gathered(&array![[1.0_f32, 1.0, 100.0, 1.0]]);
    let report = prune_layer(&mut w, &stats, pattern).expect("a fine layer");
    assert_eq!(report.pruned(), 4);
    let zero = w.mapv(|w| w.to_f32() == 0.0);
    assert_eq!(
        zero,
        array![[false, true, false, true], [false, true, false, true]]
    );
    assert_eq!(validate(&w, &pattern), Ok(()));
    w[[1, 3]] = bf16::ONE;
    let error = validate(&w, &pattern).expect_err("a weight too many");
    assert!(
        error
            .to_string()
            .starts_with("the matrix is not 2 whole columns: "),
        "{error}"
    );
}

#[test]
fn a_users_pattern_spares_protected_weights_or_is_refused() {
    let protected = Mask::from_fn(2, 4, |row, column| (row, column) == (1, 0)).expect("a mask");
    let mask = Pruner::new(Magnitude, KeepOfRow { keep: 1 })
        .protect(protected.clone())
        .mask(&weights(), &NoStats)
        .expect("enough others");
    let kept: Vec<_> = mask.complement().iter().collect();
    assert_eq!(kept, [(0, 0), (1, 0)]);

    let error = Pruner::new(Magnitude, KeepOfRow { keep: 0 })
        .protect(protected.clone())
        .mask(&weights(), &NoStats)
        .expect_err("nothing may stay");
    assert!(matches!(
        error,
        Error::TooManyProtected {
            row: 1,
            column: 0,
            ..
        }
    ));

    // Its sum of scores is infinite, so the column of a protected weight goes last.
    let mask = Pruner::new(Magnitude, WholeColumns { columns: 3 })
        .protect(protected)
        .mask(&weights(), &NoStats)
        .expect("enough others");
    assert_eq!(
        mask.complement().iter().collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );
}

#[test]
fn what_a_users_pattern_finds_wrong_leaves_the_weights_alone() {
    let pruner = Pruner::new(Magnitude, KeepOfRow { keep: 5 });
    let error = refuses(&pruner, &weights(), &NoStats);
    assert_eq!(error, Error::InvalidGroup { keep: 5, of: 4 });
}

/// A pattern whose mask does not have the shape of the layer.
#[derive(Debug)]
struct WrongShape;

impl SparsityPattern for WrongShape {
    fn project(&self, scores: &dyn Rows<f32>, _: Range<usize>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        Mask::none(columns, rows)
    }
}

#[test]
fn a_users_pattern_that_returns_another_shape_is_an_error() {
    let expected = Error::MaskShape {
        expected: (2, 4),
        found: (4, 2),
    };
    let error = refuses(&Pruner::new(Magnitude, WrongShape), &weights(), &NoStats);
    assert_eq!(error, expected);
    assert_eq!(validate(&weights(), &WrongShape), Err(expected));
}

#[test]
fn a_reference_to_a_pattern_compares_counts_and_validates_as_the_pattern() {
    let pattern = &&KeepOfRow { keep: 1 };
    let comparison = SparsityPattern::<f32>::comparison(pattern);
    assert_eq!(comparison, Some(ComparisonGroup::Row));
    assert_eq!(SparsityPattern::<f32>::count(pattern, 7), 6);
    let boxed: Box<dyn SparsityPattern> = Box::new(HALF);
    assert_eq!(boxed.comparison(), Some(ComparisonGroup::Row));
    assert_eq!(boxed.count(7), 3);
    let whole = &&WholeColumns { columns: 1 };
    assert_eq!(SparsityPattern::<f32>::comparison(whole), None);
    let mask = SparsityPattern::<f32>::project(whole, &weights(), 0..4);
    assert_eq!(mask.map(|mask| mask.count()), Ok(2));
    let w = Array2::<f32>::zeros((3, 3));
    // Validated as the appendix variant is, not as a pattern of its projection.
    assert_eq!(validate(&w, &&Pattern::Cumulative(0.5)), Ok(()));
}
