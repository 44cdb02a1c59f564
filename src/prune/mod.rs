//! Where a metric and a pattern meet a layer.

mod scores;

use std::time::Instant;

use ndarray::{ArrayRef2, ArrayViewMut1, Axis};
use num_traits::Float;

use crate::element::{Element, Real, widened};
use crate::error::{Error, Result};
use crate::kernels::{self, RowCost};
use crate::mask::{Mask, MaskRow, check_shape, words_for};
use crate::metric::{ImportanceMetric, Scorer, Wanda};
use crate::parallel;
use crate::pattern::{RowRule, SparsityPattern};
use crate::report::{ErrorBasis, LayerReport, RelativeError};
use crate::stats::ActivationStats;
use scores::LayerScores;

/// Prunes layers by a metric and a pattern.
///
/// # Semantics
///
/// A weight that is already zero counts as one of score 0, so it is among the first to be pruned
/// and counts towards what the pattern asks for; pruning twice is the same as pruning once (but
/// for [`Pattern::Cumulative`](crate::Pattern::Cumulative), which looks for a new α).
/// Pruned weights become `+0.0`; all others keep their bits. A matrix without weights is pruned to
/// nothing, whatever the statistics.
///
/// # Complexity
///
/// For a matrix of m rows and n columns: time linear in m · n for all patterns but
/// [`Pattern::Cumulative`](crate::Pattern::Cumulative). A pattern that decides row by row takes
/// a few rows of memory a thread, unless weights are protected or the metric does not
/// [promise valid scores](Scorer::promises_valid_scores); else a mask of one bit a weight.
///
/// # Example
///
/// ```
/// use wanda::{Magnitude, NoStats, Pattern, Pruner, ndarray::array};
///
/// let w = array![[0.1_f32, -3.0, 0.2, 1.0]];
/// let pruner = Pruner::new(Magnitude, Pattern::NOfM { keep: 2, of: 4 });
/// let mask = pruner.mask(&w, &NoStats)?; // `w` is only read
/// assert_eq!(mask.iter().collect::<Vec<_>>(), [(0, 0), (0, 2)]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pruner<M, P> {
    metric: M,
    pattern: P,
    protected: Option<Mask>,
}

impl<M, P> Pruner<M, P> {
    /// A pruner for any number of layers.
    #[must_use]
    pub fn new(metric: M, pattern: P) -> Self {
        Self {
            metric,
            pattern,
            protected: None,
        }
    }

    /// Never prunes the weights that `mask` marks.
    ///
    /// The pattern finds what it has to prune among the others. Where they do not suffice,
    /// pruning is refused with [`Error::TooManyProtected`]. A protected weight that is already
    /// zero is protected all the same.
    #[must_use]
    pub fn protect(mut self, mask: Mask) -> Self {
        self.protected = Some(mask);
        self
    }

    /// Decides which weights to prune, without touching any: they are marked in the mask.
    ///
    /// `w` is outputs x inputs, in any memory layout. Metrics that look at the weights alone take
    /// [`NoStats`](crate::NoStats).
    ///
    /// # Errors
    ///
    /// [`Error::StatsShape`] and [`Error::MaskShape`] if statistics or protected weights are of
    /// another layer, [`Error::NonFiniteWeight`] with the first weight that is infinite or not a
    /// number, [`Error::TooManyProtected`]; and what metric and pattern find wrong, for
    /// example [`Error::NoCalibration`] or [`Error::InvalidSparsity`].
    pub fn mask<A: Element>(&self, w: &ArrayRef2<A>, stats: &dyn ActivationStats) -> Result<Mask>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let largest = self.check(w, stats)?;
        if w.is_empty() {
            return Mask::none(w.nrows(), w.ncols());
        }
        let scorer = self.metric.prepare(&w.view(), stats)?;
        self.decide(w, &*scorer, largest)
    }

    /// Prunes a layer in place and reports what that did to it.
    ///
    /// `w` is outputs x inputs, in any memory layout. Metrics that look at the weights alone take
    /// [`NoStats`](crate::NoStats).
    ///
    /// # Errors
    ///
    /// As [`mask`](Self::mask). After an error `w` is as before.
    pub fn prune<A: Element>(
        &self,
        w: &mut ArrayRef2<A>,
        stats: &dyn ActivationStats,
    ) -> Result<LayerReport>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let start = Instant::now();
        let largest = self.check(w, stats)?;
        let (rows, columns) = w.dim();
        let energies = stats.sums_of_squares();
        let gauge = Gauge::new(energies, largest.as_f64());
        let outcomes = if w.is_empty() {
            Vec::new()
        } else {
            let scorer = self.metric.prepare(&w.view(), stats)?;
            let rule = self.pattern.row_rule();
            match rule {
                // Nothing can go wrong any more, so each row is finished while it is at hand.
                Some(rule) if self.protected.is_none() && scorer.promises_valid_scores(largest) => {
                    prune_rows(w, &*scorer, &*rule, &gauge)
                }
                _ => {
                    let mask = self.decide(w, &*scorer, largest)?;
                    apply(&mask, w, &gauge)
                }
            }
        };
        let cost = outcomes
            .iter()
            .fold(RowCost::default(), |sum, row| RowCost {
                lost: sum.lost + row.cost.lost,
                total: sum.total + row.cost.total,
            });
        Ok(LayerReport {
            rows,
            columns,
            pruned: outcomes.iter().map(|row| row.pruned).sum(),
            zeros: outcomes.iter().map(|row| row.zeros).sum(),
            dead_inputs: energies.iter().filter(|&&energy| energy == 0.0).count(),
            error: (cost.total > 0.0).then(|| RelativeError {
                value: cost.lost / cost.total,
                basis: ErrorBasis::InputNorms,
            }),
            time: start.elapsed(),
        })
    }

    /// Checks all that can be checked beforehand and returns the largest magnitude of a weight.
    fn check<A: Element>(&self, w: &ArrayRef2<A>, stats: &dyn ActivationStats) -> Result<A::Compute>
    where
        P: SparsityPattern<A::Compute>,
    {
        let (rows, columns) = w.dim();
        self.pattern.check(rows, columns)?;
        let features = stats.features();
        if features != columns && (features, stats.tokens()) != (0, 0) {
            return Err(Error::StatsShape {
                rows,
                columns,
                features,
            });
        }
        if let Some(protected) = &self.protected {
            check_shape((rows, columns), protected)?;
        }
        largest_weight(w)
    }

    /// Decides a whole layer.
    fn decide<A: Element>(
        &self,
        w: &ArrayRef2<A>,
        scorer: &dyn Scorer<A::Compute>,
        largest: A::Compute,
    ) -> Result<Mask>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let checked = !scorer.promises_valid_scores(largest);
        let layer = LayerScores {
            weights: w,
            scorer,
            checked_as: checked.then(|| self.metric.name()),
            protected: self.protected.as_ref(),
        };
        let mask = self.pattern.project(&layer)?;
        check_shape(w.dim(), &mask)?;
        if let Some(protected) = &self.protected
            && let Some((row, column)) = mask.first_common(protected)
        {
            return Err(Error::TooManyProtected {
                pattern: self.pattern.name(),
                row,
                column,
            });
        }
        Ok(mask)
    }
}

/// Prunes a layer with [`Wanda`], in place.
///
/// `w` is outputs x inputs; `stats` saw the inputs of this layer. Any pattern will do; the
/// method's own is [`Pattern::PerOutput`](crate::Pattern::PerOutput). For another metric, a mask
/// without pruning, or weights to protect, use [`Pruner`].
///
/// # Errors
///
/// As [`Pruner::prune`]. After an error `w` is as before.
///
/// # Complexity
///
/// As [`Pruner`].
///
/// # Example
///
/// ```
/// use wanda::{ColumnNorms, Pattern, ndarray::array};
///
/// let mut stats = ColumnNorms::new(4);
/// stats.update(&array![[1.0_f32, 2.0, 8.0, 4.0], [1.0, 2.0, 8.0, 4.0]])?;
/// let mut w = array![[4.0_f32, 3.0, 2.0, 1.0], [-4.0, 3.0, 0.1, 0.5]];
/// let report = wanda::prune_layer(&mut w, &stats, Pattern::PerOutput(0.5))?;
/// assert_eq!(w, array![[0.0, 3.0, 2.0, 0.0], [-4.0, 3.0, 0.0, 0.0]]);
/// assert_eq!(report.sparsity(), 0.5);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models",
/// arXiv 2306.11695.
pub fn prune_layer<A: Element, P: SparsityPattern<A::Compute>>(
    w: &mut ArrayRef2<A>,
    stats: &dyn ActivationStats,
    pattern: P,
) -> Result<LayerReport> {
    Pruner::new(Wanda, pattern).prune(w, stats)
}

/// What the relative error is measured with: weights and sums of squares are brought near 1, so
/// that no square of an `f64` overflows or vanishes. Powers of two scale exactly and cancel.
struct Gauge {
    energies: Vec<f64>,
    weight_scale: f64,
}

impl Gauge {
    fn new(energies: &[f64], largest_weight: f64) -> Self {
        let scale = inverse_power_of_two(energies.iter().copied().fold(0.0, f64::max));
        Self {
            energies: energies.iter().map(|energy| energy * scale).collect(),
            weight_scale: inverse_power_of_two(largest_weight),
        }
    }
}

/// The power of two that brings `x` near 1; 1 for 0.
fn inverse_power_of_two(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let exponent = x.log2().floor().clamp(-1022.0, 1022.0);
    (-exponent).exp2()
}

/// What became of one row.
struct RowOutcome {
    pruned: usize,
    zeros: usize,
    cost: RowCost,
}

/// Scores, decides and prunes each row in one go.
fn prune_rows<A: Element>(
    w: &mut ArrayRef2<A>,
    scorer: &dyn Scorer<A::Compute>,
    rule: &dyn RowRule<A::Compute>,
    gauge: &Gauge,
) -> Vec<RowOutcome> {
    let columns = w.ncols();
    parallel::map(
        w.axis_iter_mut(Axis(0)).enumerate().collect(),
        || Scratch::new(columns),
        |scratch, (row, mut weights)| {
            scratch.marks.fill(0);
            let run = widened(&weights.view(), &mut scratch.widened);
            scorer.score(row, 0, run, &mut scratch.scores);
            let mut marks = MaskRow::new(&mut scratch.marks, columns);
            rule.select(&scratch.scores, &mut marks);
            finish_row(&mut weights, &scratch.marks, gauge, &mut scratch.widened)
        },
    )
}

/// Prunes the weights that `mask` marks.
fn apply<A: Element>(mask: &Mask, w: &mut ArrayRef2<A>, gauge: &Gauge) -> Vec<RowOutcome> {
    parallel::map(
        w.axis_iter_mut(Axis(0)).enumerate().collect(),
        Vec::new,
        |buffer, (row, mut weights)| finish_row(&mut weights, mask.row_words(row), gauge, buffer),
    )
}

/// Zeroes the marked weights of a row and says what that cost.
fn finish_row<A: Element>(
    weights: &mut ArrayViewMut1<'_, A>,
    marks: &[u64],
    gauge: &Gauge,
    buffer: &mut Vec<A::Compute>,
) -> RowOutcome {
    let run = widened(&weights.view(), buffer);
    let cost = kernels::row_cost(run, gauge.weight_scale, &gauge.energies, marks);
    kernels::zero_marked(weights, marks);
    RowOutcome {
        pruned: marks.iter().map(|word| word.count_ones() as usize).sum(),
        zeros: weights.iter().filter(|&&w| w == A::ZERO).count(),
        cost,
    }
}

/// The memory a thread works in.
struct Scratch<T> {
    widened: Vec<T>,
    scores: Vec<T>,
    marks: Vec<u64>,
}

impl<T: Real> Scratch<T> {
    fn new(columns: usize) -> Self {
        Self {
            widened: Vec::new(),
            scores: vec![T::default(); columns],
            marks: vec![0; words_for(columns)],
        }
    }
}

/// The largest magnitude of a weight.
///
/// # Errors
///
/// [`Error::NonFiniteWeight`] with the first weight, row by row, that is infinite or not a number.
fn largest_weight<A: Element>(w: &ArrayRef2<A>) -> Result<A::Compute> {
    let largest = parallel::map(w.axis_iter(Axis(0)).collect(), Vec::new, |buffer, row| {
        kernels::largest(widened(&row, buffer))
    });
    if let Some(row) = largest.iter().position(|largest| !largest.is_finite()) {
        let mut values = w
            .row(row)
            .into_iter()
            .map(|w| w.widen().as_f64())
            .enumerate();
        if let Some((column, value)) = values.find(|(_, value)| !value.is_finite()) {
            return Err(Error::NonFiniteWeight { row, column, value });
        }
    }
    Ok(kernels::largest(&largest))
}
