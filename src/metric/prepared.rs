//! What a prepared metric is: factors of magnitudes, or code.

use std::fmt;
use std::ops::Range;

use super::Scorer;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::kernels;

/// A metric that has seen a layer and can score its weights.
pub struct Prepared<'a, T: Real = f32> {
    scoring: Scoring<'a, T>,
    /// What the scores of each row are multiplied by, unless it is part of the factors.
    of_outputs: Option<Vec<T>>,
    damping: Option<f64>,
}

/// How weights are scored.
enum Scoring<'a, T: Real> {
    Factors(Factors<T>),
    Code(Box<dyn Scorer<T> + 'a>),
}

impl<'a, T: Real> Prepared<'a, T> {
    /// Weights are scored by code.
    #[must_use]
    pub fn scorer(scorer: impl Scorer<T> + 'a) -> Self {
        Self {
            scoring: Scoring::Code(Box::new(scorer)),
            of_outputs: None,
            damping: None,
        }
    }

    /// The score of a weight is its magnitude times a factor.
    #[must_use]
    pub fn factors(factors: Factors<T>) -> Self {
        Self {
            scoring: Scoring::Factors(factors),
            of_outputs: None,
            damping: None,
        }
    }

    /// Says by what the Gram matrix was damped, as a multiple of the mean of its diagonal, for the
    /// report of a metric that factors it.
    #[must_use]
    pub fn damped_by(mut self, damping: f64) -> Self {
        self.damping = Some(damping);
        self
    }

    /// The same with the scores of each row multiplied by a number. There is one for each row.
    pub(crate) fn weighted(mut self, outputs: &[T]) -> Self {
        match self.scoring {
            Scoring::Factors(factors) => self.scoring = Scoring::Factors(factors.weighted(outputs)),
            Scoring::Code(_) => self.of_outputs = Some(outputs.to_vec()),
        }
        self
    }

    /// The damping that was needed to factor the Gram matrix, if the metric factored it.
    #[must_use]
    pub fn damping(&self) -> Option<f64> {
        self.damping
    }

    /// Checks that there is a factor for every row and column of a layer of shape `dim`.
    ///
    /// # Errors
    ///
    /// [`Error::FactorCount`] if there is not; `metric` is the name in its message.
    pub(crate) fn check(
        self,
        dim: (usize, usize),
        metric: impl FnOnce() -> String,
    ) -> Result<Self> {
        let misfit = match &self.scoring {
            Scoring::Factors(factors) => factors.first_misfit(dim),
            Scoring::Code(_) => None,
        };
        match misfit {
            None => Ok(self),
            Some((side, found, expected)) => Err(Error::FactorCount {
                metric: metric(),
                side,
                found,
                expected,
            }),
        }
    }

    /// Rows and columns of the layer that there are factors for, if there are factors.
    pub(crate) fn dim(&self) -> Option<(usize, usize)> {
        match &self.scoring {
            Scoring::Factors(factors) => Some(factors.dim()),
            Scoring::Code(_) => self
                .of_outputs
                .as_ref()
                .map(|rows| (rows.len(), usize::MAX)),
        }
    }

    /// Fills `scores` with the scores of `weights`, which stand in `row` from column `start` on, as
    /// the metric gives them. The layer [has](Self::dim) such weights.
    pub(crate) fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) {
        match &self.scoring {
            Scoring::Code(code) => code.score(row, start, weights, scores),
            Scoring::Factors(factors) => factors.score(row, start, weights, scores),
        }
        if let Some(outputs) = &self.of_outputs {
            for score in scores {
                *score = *score * outputs[row];
            }
        }
    }

    /// Whether all scores are valid for weights no larger than `largest` in magnitude.
    pub(crate) fn promises_valid_scores(&self, largest: T) -> bool {
        match &self.scoring {
            // Nothing is known of the size of scores, which may overflow when they are multiplied.
            Scoring::Code(code) => self.of_outputs.is_none() && code.promises_valid_scores(largest),
            Scoring::Factors(factors) => factors.are_valid(largest),
        }
    }

    /// The factors of some columns of a row, if magnitudes are multiplied by factors. Those that
    /// depend on the row are computed in `buffer`.
    pub(crate) fn factors_of_row<'b>(
        &'b self,
        row: usize,
        columns: Range<usize>,
        buffer: &'b mut Vec<T>,
    ) -> Option<&'b [T]> {
        match &self.scoring {
            Scoring::Factors(factors) => Some(factors.of_row(row, columns, buffer)),
            Scoring::Code(_) => None,
        }
    }

    /// The factors of some columns, if magnitudes are multiplied by factors that are the same for
    /// all rows.
    pub(crate) fn factors_of_columns(&self, columns: Range<usize>) -> Option<&[T]> {
        match &self.scoring {
            Scoring::Factors(factors) => factors.of_all_rows()?.get(columns),
            Scoring::Code(_) => None,
        }
    }
}

impl<T: Real> fmt::Debug for Prepared<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.scoring {
            Scoring::Factors(_) => "factors",
            Scoring::Code(_) => "code",
        };
        f.debug_struct("Prepared")
            .field("scoring", &kind)
            .field("damping", &self.damping)
            .finish()
    }
}

/// Factors of magnitudes: the score of a weight is `|Wᵢⱼ| · fᵢⱼ`.
///
/// # Formula
///
/// ```text
/// fᵢⱼ = cⱼ              one number a column: Factors::new(c)
/// fᵢⱼ = Σₖ rₖᵢ cₖⱼ      numbers for the rows as well: Factors::of_rows(r, c).plus(r', c')
/// ```
///
/// Factors are finite and not negative; `-0.0` counts as 0. Those that are not are found when
/// weights are scored, and named. They are computed in `T`, from left to right.
///
/// # Complexity
///
/// With numbers for the rows a multiplication and an addition more a weight and term, of a row at
/// a time while it is in the cache.
///
/// # Example
///
/// ```
/// use wanda::Factors;
///
/// // Wanda with weights for the outputs: |Wᵢⱼ| · rᵢ · ‖Xⱼ‖₂
/// let norms = vec![3.0_f32, 1.0];
/// let outputs = vec![1.0, 0.5, 2.0];
/// let factors = Factors::of_rows(outputs, norms);
/// # let _ = factors;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Factors<T> {
    terms: Vec<Term<T>>,
}

/// The product of a number a row, 1 where there are none, and a number a column.
#[derive(Debug, Clone, PartialEq)]
struct Term<T> {
    rows: Option<Vec<T>>,
    columns: Vec<T>,
}

impl<T: Real> Factors<T> {
    /// One factor for each column.
    #[must_use]
    pub fn new(columns: Vec<T>) -> Self {
        Self::from_term(None, columns)
    }

    /// The product of a number for each row and one for each column.
    #[must_use]
    pub fn of_rows(rows: Vec<T>, columns: Vec<T>) -> Self {
        Self::from_term(Some(rows), columns)
    }

    /// Adds the product of a number for each row and one for each column.
    #[must_use]
    pub fn plus(mut self, rows: Vec<T>, columns: Vec<T>) -> Self {
        self.terms.extend(Self::of_rows(rows, columns).terms);
        self
    }

    fn weighted(mut self, outputs: &[T]) -> Self {
        for term in &mut self.terms {
            let rows = term.rows.take();
            let rows = rows.unwrap_or_else(|| vec![T::one(); outputs.len()]);
            let products = rows.iter().zip(outputs);
            term.rows = Some(products.map(|(&row, &output)| row * output).collect());
        }
        self
    }

    fn from_term(rows: Option<Vec<T>>, columns: Vec<T>) -> Self {
        let without_negative_zeros = |mut run: Vec<T>| {
            for x in &mut run {
                *x = *x + T::zero();
            }
            run
        };
        let term = Term {
            rows: rows.map(without_negative_zeros),
            columns: without_negative_zeros(columns),
        };
        Self { terms: vec![term] }
    }

    /// The first numbers that are not as many as a layer of shape `dim` has rows or columns: of
    /// which side, how many, and how many there should be.
    fn first_misfit(&self, dim: (usize, usize)) -> Option<(&'static str, usize, usize)> {
        self.terms.iter().find_map(|term| {
            let rows = term.rows.as_ref().map_or(dim.0, Vec::len);
            let columns = term.columns.len();
            let sides = [("rows", rows, dim.0), ("columns", columns, dim.1)];
            sides
                .into_iter()
                .find(|(_, found, expected)| found != expected)
        })
    }

    /// The most rows and columns that all terms have numbers for.
    fn dim(&self) -> (usize, usize) {
        let rows = |term: &Term<T>| term.rows.as_ref().map_or(usize::MAX, Vec::len);
        let terms = self.terms.iter();
        terms.fold((usize::MAX, usize::MAX), |(least, narrowest), term| {
            (least.min(rows(term)), narrowest.min(term.columns.len()))
        })
    }

    /// The factors of all rows, if they do not depend on the row.
    fn of_all_rows(&self) -> Option<&[T]> {
        match &self.terms[..] {
            [
                Term {
                    rows: None,
                    columns,
                },
            ] => Some(columns),
            _ => None,
        }
    }

    /// The factors of some columns of a row, computed in `buffer` if they depend on the row.
    fn of_row<'b>(&'b self, row: usize, columns: Range<usize>, buffer: &'b mut Vec<T>) -> &'b [T] {
        if let Some(factors) = self.of_all_rows() {
            return &factors[columns];
        }
        buffer.clear();
        buffer.resize(columns.len(), T::zero());
        for term in &self.terms {
            let of_row = term.rows.as_ref().map_or(T::one(), |rows| rows[row]);
            for (factor, &of_column) in buffer.iter_mut().zip(&term.columns[columns.clone()]) {
                *factor = *factor + of_row * of_column;
            }
        }
        buffer
    }

    fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) {
        let mut buffer = Vec::new();
        let factors = self.of_row(row, start..start + weights.len(), &mut buffer);
        kernels::scaled_abs(weights, factors, scores);
    }

    /// Whether all scores are finite and not negative for weights no larger than `largest`.
    fn are_valid(&self, largest: T) -> bool {
        let not_negative = |run: &[T]| run.iter().all(|&x| x >= T::zero());
        let mut most = T::zero();
        for Term { rows, columns } in &self.terms {
            let rows = rows.as_deref().unwrap_or(&[]);
            if !(not_negative(rows) && not_negative(columns)) {
                return false;
            }
            let of_rows = if rows.is_empty() {
                T::one()
            } else {
                kernels::largest(rows)
            };
            most = most + of_rows * kernels::largest(columns);
        }
        (largest * most).is_finite()
    }
}
