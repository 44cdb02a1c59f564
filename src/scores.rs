//! The scores of current weights: zero weights score 0, protected ones infinity, and all are
//! checked. The one place for these rules.

use ndarray::{ArrayRef2, ArrayView1, s};
use num_traits::{Float, Zero};

use crate::element::{Element, Real, widened};
use crate::error::{Error, Result};
use crate::kernels;
use crate::mask::Mask;
use crate::matrix::{Rows, check_bounds, read_one_by_one, stride};
use crate::metric::{ImportanceMetric, Prepared};

/// How the weights of a layer are scored: what a metric gives, made to obey the rules that all
/// patterns rely on.
///
/// # Rules
///
/// - A weight that is zero scores 0, and so does one that [will be zero](Self::zeroed) anyway.
/// - Every other score is checked: finite and not negative.
/// - A [protected](Self::protect) weight scores infinity.
///
/// The weights need not be those that the metric was prepared with: an update asks for the scores
/// of its iterates.
#[derive(Debug, Clone, Copy)]
pub struct Scoring<'a, T: Real> {
    metric: &'a dyn ImportanceMetric<T>,
    prepared: &'a Prepared<'a, T>,
    protected: Option<&'a Mask>,
    zeroed: Option<&'a Mask>,
}

impl<'a, T: Real> Scoring<'a, T> {
    /// Scores by a metric and what it made of the layer when it was prepared.
    #[must_use]
    pub fn new(metric: &'a dyn ImportanceMetric<T>, prepared: &'a Prepared<'a, T>) -> Self {
        Self {
            metric,
            prepared,
            protected: None,
            zeroed: None,
        }
    }

    /// The weights that `mask`, of the shape of the layer, marks must not be pruned.
    #[must_use]
    pub fn protect(self, mask: Option<&'a Mask>) -> Self {
        Self {
            protected: mask,
            ..self
        }
    }

    /// The weights that `mask`, of the shape of the layer, marks will be zero whatever the pattern
    /// says. Those that are protected as well score infinity.
    #[must_use]
    pub fn zeroed(self, mask: Option<&'a Mask>) -> Self {
        Self {
            zeroed: mask,
            ..self
        }
    }

    /// The scores of `weights`, which are those of all rows and of the columns from `start` on.
    #[must_use]
    pub fn of<'w, A: Element<Compute = T>>(
        self,
        weights: &'w ArrayRef2<A>,
        start: usize,
    ) -> Scores<'w, A>
    where
        'a: 'w,
    {
        Scores {
            scoring: self,
            weights,
            start,
            promised: false,
        }
    }

    /// Fills `scores` with the scores of `weights`, which stand in `row` from column `start` on.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidScore`] with the first score that is negative, infinite or not a number, and
    /// [`Error::Overflow`] if that is so because the weight is. [`Error::OutOfBounds`] if `scores`
    /// has another length, or the metric was prepared for a layer without such weights.
    pub fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) -> Result<()> {
        let dim = self.prepared.dim().unwrap_or((usize::MAX, usize::MAX));
        check_bounds(dim, row, start, scores.len())?;
        if weights.len() != scores.len() {
            return Err(Error::OutOfBounds {
                row,
                start,
                len: scores.len(),
                rows: 1,
                columns: weights.len(),
            });
        }
        self.prepared.score(row, start, weights, scores);
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score = if weight.is_zero() { T::zero() } else { *score };
        }
        set_marked(self.zeroed, row, start, scores, T::zero());
        settle(scores)
            .map_err(|index| self.invalid(row, start + index, weights[index], scores[index]))?;
        set_marked(self.protected, row, start, scores, T::infinity());
        Ok(())
    }

    /// What is wrong with a score.
    fn invalid(&self, row: usize, column: usize, weight: T, score: T) -> Error {
        if weight.is_finite() {
            Error::InvalidScore {
                metric: self.metric.name(),
                row,
                column,
                score: score.as_f64(),
            }
        } else {
            Error::Overflow {
                row,
                column,
                value: weight.as_f64(),
            }
        }
    }
}

/// The scores of a layer or a block of its columns, computed when they are read.
///
/// # Complexity
///
/// No scores are held: reading them again computes them again.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a, A: Element> {
    scoring: Scoring<'a, A::Compute>,
    weights: &'a ArrayRef2<A>,
    start: usize,
    /// Whether the metric promises valid scores for these weights.
    promised: bool,
}

impl<A: Element> Scores<'_, A> {
    /// The same without checks, if the metric promises valid scores for weights no larger than
    /// `largest`, as these are.
    pub(crate) fn trusted(self, largest: A::Compute) -> Self {
        Self {
            promised: self.scoring.prepared.promises_valid_scores(largest),
            ..self
        }
    }

    /// The factors of some columns, if magnitudes are multiplied by those in all rows and the
    /// products need no check.
    fn factors(&self, start: usize, len: usize) -> Option<&[A::Compute]> {
        if !self.promised || self.scoring.zeroed.is_some() {
            return None;
        }
        let start = self.start + start;
        let prepared = self.scoring.prepared;
        prepared.factors_of_columns(start..start + len)
    }

    /// Scores a run of weights.
    fn score(
        &self,
        row: usize,
        start: usize,
        run: &ArrayView1<'_, A>,
        out: &mut [A::Compute],
    ) -> Result<()> {
        let mut buffer = Vec::new();
        let weights = widened(run, &mut buffer);
        let start = self.start.saturating_add(start);
        if !self.promised {
            return self.scoring.score(row, start, weights, out);
        }
        self.scoring.prepared.score(row, start, weights, out);
        set_marked(self.scoring.zeroed, row, start, out, A::Compute::zero());
        set_marked(
            self.scoring.protected,
            row,
            start,
            out,
            A::Compute::infinity(),
        );
        Ok(())
    }

    /// How many weights on those are that will be asked for soon. Patterns read whole rows, in long
    /// runs, or strips of columns.
    fn ahead(&self, len: usize) -> usize {
        if len > 512 {
            2 * len
        } else {
            2048_usize.div_ceil(len.max(1)) * stride(self.weights)
        }
    }
}

impl<A: Element> Rows<A::Compute> for Scores<'_, A> {
    fn dim(&self) -> (usize, usize) {
        self.weights.dim()
    }

    fn read(&self, row: usize, start: usize, out: &mut [A::Compute]) -> Result<()> {
        check_bounds(self.weights.dim(), row, start, out.len())?;
        let run = self.weights.slice(s![row, start..start + out.len()]);
        if let Some(run) = run.as_slice() {
            kernels::prefetch_after(run, self.ahead(out.len()));
        }
        match (run.as_slice(), self.factors(start, out.len())) {
            (Some(run), Some(factors)) => {
                kernels::scaled_abs(run, factors, out);
                let protected = self.scoring.protected;
                set_marked(
                    protected,
                    row,
                    self.start + start,
                    out,
                    A::Compute::infinity(),
                );
                Ok(())
            }
            _ => self.score(row, start, &run, out),
        }
    }

    fn read_block(
        &self,
        row: usize,
        start: usize,
        width: usize,
        out: &mut [A::Compute],
    ) -> Result<()> {
        let height = out.len().checked_div(width).unwrap_or(0);
        let Some(below) = height.checked_sub(1) else {
            return Ok(());
        };
        let (_, columns) = self.weights.dim();
        check_bounds(self.weights.dim(), row.saturating_add(below), start, width)?;
        let at_once = self.scoring.protected.is_none();
        let weights = self.weights.as_slice().filter(|_| at_once);
        match (weights, self.factors(start, width)) {
            (Some(weights), Some(factors)) => {
                let weights = &weights[row * columns + start..];
                kernels::scaled_abs_of_rows(weights, columns, factors, out);
                Ok(())
            }
            _ => read_one_by_one(self, row, start, width, out),
        }
    }
}

/// Gives the scores of marked weights a value.
fn set_marked<T: Real>(mask: Option<&Mask>, row: usize, start: usize, scores: &mut [T], value: T) {
    let Some(mask) = mask.filter(|mask| mask.any_in_run(row, start, scores.len())) else {
        return;
    };
    for (score, column) in scores.iter_mut().zip(start..) {
        if mask.get(row, column) == Some(true) {
            *score = value;
        }
    }
}

/// Makes +0.0 of every -0.0, whose bits would make it the highest score, and checks all scores.
///
/// # Errors
///
/// The index of the first score that is negative, infinite or not a number.
fn settle<T: Real>(scores: &mut [T]) -> std::result::Result<(), usize> {
    let is_valid = |score: T| (score >= T::zero()) & (score < T::infinity());
    let mut valid = true;
    for score in &mut *scores {
        *score = *score + T::zero();
        valid &= is_valid(*score);
    }
    if valid {
        return Ok(());
    }
    match scores.iter().position(|&score| !is_valid(score)) {
        Some(index) => Err(index),
        None => Ok(()),
    }
}
