//! Where a metric and a pattern meet a layer.

mod cost;
mod decider;
mod rows;
#[cfg(feature = "second-order")]
pub(crate) mod sparsegpt;
mod subtraction;

use std::time::Instant;

use ndarray::ArrayRef2;

use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::mask::{Mask, check_shape};
use crate::metric::{Context, ImportanceMetric, Prepared, Wanda};
use crate::pattern::{self, ComparisonGroup, Decision, SparsityPattern};
use crate::report::{LayerReport, RelativeError, Solved};
use crate::scores::Scoring;
use crate::select::cut_lowest;
use crate::stats::{ActivationStats, check_features};
use crate::update::{KeepWeights, UpdateTask, Updated, WeightUpdate};
use cost::{Dense, Gauge};
use decider::{Deciding, Rule};

/// Prunes layers by a metric and a pattern.
///
/// # Semantics
///
/// A weight that is already zero counts as one of score 0, so it is among the first to be pruned
/// and counts towards what the pattern asks for; pruning twice is the same as pruning once (but for
/// [`Pattern::Cumulative`](crate::Pattern::Cumulative), which looks for a new α). Pruned weights
/// become `+0.0`; all others keep their bits, unless there is an [update](Self::update). A matrix
/// without weights is pruned to nothing, even if calibration saw no tokens; shapes have to fit all
/// the same.
///
/// # Complexity
///
/// For a matrix of m rows and n columns: time linear in m · n for all patterns but
/// [`Pattern::Cumulative`](crate::Pattern::Cumulative). A pattern that decides row by row takes
/// a few rows of memory a thread; `PerLayer` and `Threshold` besides hold the scores near the
/// threshold. All others, and all patterns where weights are protected or the metric does not
/// [promise valid scores](crate::Scorer::promises_valid_scores), take a mask of one bit a weight and what
/// [`Pattern`](crate::Pattern) says.
///
/// With a [`Gram`](crate::Gram) matrix among the statistics, pruning computes the relative error
/// from it, which takes m n² multiplications and a copy of the weights. Give
/// [`Gram::norms`](crate::Gram::norms) to metrics that need no more, and the error is estimated
/// from the norms in passing.
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
pub struct Pruner<M, P, U = KeepWeights> {
    metric: M,
    pattern: P,
    update: U,
    output_weights: Option<Vec<f64>>,
    protected: Option<Mask>,
}

impl<M, P> Pruner<M, P> {
    /// A pruner for any number of layers.
    #[must_use]
    pub fn new(metric: M, pattern: P) -> Self {
        Self {
            metric,
            pattern,
            update: KeepWeights,
            output_weights: None,
            protected: None,
        }
    }
}

impl<M, P, U> Pruner<M, P, U> {
    /// Changes the weights that stay by `update`, which then also says when metric and pattern
    /// are asked.
    #[must_use]
    pub fn update<V>(self, update: V) -> Pruner<M, P, V> {
        Pruner {
            metric: self.metric,
            pattern: self.pattern,
            update,
            output_weights: self.output_weights,
            protected: self.protected,
        }
    }

    /// How much each output matters: scores are those of the weights of row i times `weights[i]`.
    ///
    /// That matters where weights of different rows are compared. Within a row the order stays the
    /// same, so patterns that compare there do not look at it.
    #[must_use]
    pub fn output_weights(mut self, weights: Vec<f64>) -> Self {
        self.output_weights = Some(weights);
        self
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

    /// Decides which weights to prune, without touching any: they are marked in the mask. With an
    /// [update](Self::update) that takes as long as [`prune`](Self::prune).
    ///
    /// `w` is outputs x inputs, in any memory layout. Metrics that look at the weights alone take
    /// [`NoStats`](crate::NoStats).
    ///
    /// # Errors
    ///
    /// [`Error::StatsShape`] and [`Error::MaskShape`] if statistics or protected weights are of
    /// another layer, [`Error::NonFiniteWeight`] with the first weight that is infinite or not a
    /// number, [`Error::InvalidScore`], [`Error::TooManyProtected`], [`Error::TooLarge`] if there
    /// is no memory for it; and what metric, pattern and update find wrong, for example
    /// [`Error::NoCalibration`], [`Error::InvalidSparsity`] or [`Error::NoGram`].
    pub fn mask<A: Element>(&self, w: &ArrayRef2<A>, stats: &dyn ActivationStats) -> Result<Mask>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
        U: WeightUpdate<A::Compute>,
    {
        self.check(w.dim(), stats)?;
        let largest = rows::largest_weight(w)?;
        if w.is_empty() {
            return Mask::none(w.nrows(), w.ncols());
        }
        if let Some(updated) = self.run_update(w, stats, largest)? {
            return Ok(updated.mask);
        }
        let prepared = self.prepare(w, stats, largest)?;
        self.decide(w, &prepared, largest)
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
        U: WeightUpdate<A::Compute>,
    {
        let start = Instant::now();
        self.check(w.dim(), stats)?;
        let largest = rows::largest_weight(w)?;
        let (rows, columns) = w.dim();
        let done = if w.is_empty() {
            Done::default()
        } else if let Some(updated) = self.run_update(w, stats, largest)? {
            subtraction::apply(w, &updated)
        } else {
            self.prune_only(w, stats, largest)?
        };
        let energies = stats.sums_of_squares();
        Ok(LayerReport {
            rows,
            columns,
            pruned: done.pruned,
            zeros: done.zeros,
            dead_inputs: energies.iter().filter(|&&energy| energy == 0.0).count(),
            error: done.error,
            target_error: done.target_error,
            damping: done.damping,
            solved: done.solved,
            time: start.elapsed(),
        })
    }

    /// Prunes a layer and leaves the weights that stay as they are.
    fn prune_only<A: Element>(
        &self,
        w: &mut ArrayRef2<A>,
        stats: &dyn ActivationStats,
        largest: A::Compute,
    ) -> Result<Done>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let gauge = Gauge::new(stats.sums_of_squares(), largest.as_f64());
        let dense = stats
            .output_energy()
            .filter(|energy| energy.inputs() == w.ncols())
            .map(|energy| Dense::of(w, energy, largest.as_f64()))
            .transpose()?;
        let prepared = self.prepare(w, stats, largest)?;
        let outcome = if let Some(rule) = self.rule(w, &prepared, largest)? {
            let deciding = Deciding {
                prepared: &prepared,
                rule,
            };
            rows::prune(w, &deciding, &gauge)
        } else {
            let mask = self.decide(w, &prepared, largest)?;
            rows::apply(&mask, w, &gauge)
        };
        Ok(Done {
            pruned: outcome.pruned,
            zeros: outcome.zeros,
            error: match dense {
                Some(dense) => dense.compare(w),
                None => cost::relative(outcome.cost),
            },
            damping: prepared.damping(),
            ..Done::default()
        })
    }

    /// How to decide rows one by one, and finish each while it is at hand: if the pattern compares
    /// within rows, or has compared the whole layer, and nothing can go wrong any more.
    fn rule<A: Element>(
        &self,
        w: &ArrayRef2<A>,
        prepared: &Prepared<'_, A::Compute>,
        largest: A::Compute,
    ) -> Result<Option<Rule<A::Compute>>>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        if self.protected.is_some() || !prepared.promises_valid_scores(largest) {
            return Ok(None);
        }
        let (rows, columns) = w.dim();
        let decision = Decision::of::<A::Compute>(&self.pattern, rows, &(0..columns))?;
        Ok(match decision {
            Some(Decision::Row { count }) => Some(Rule::Row { count }),
            Some(Decision::Run { of, count, of_last }) => Some(Rule::Run { of, count, of_last }),
            Some(Decision::Layer { count }) => {
                let scores = self.scoring(prepared).of(w, 0).trusted(largest);
                Some(Rule::Layer(cut_lowest(&scores, count)?))
            }
            Some(Decision::Column { .. } | Decision::Blocks { .. }) | None => None,
        })
    }

    /// What the update makes of a layer, if it changes any weights at all.
    fn run_update<A: Element>(
        &self,
        w: &ArrayRef2<A>,
        stats: &dyn ActivationStats,
        largest: A::Compute,
    ) -> Result<Option<Updated<A::Compute>>>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
        U: WeightUpdate<A::Compute>,
    {
        let outputs = self.outputs::<A::Compute>(w.nrows())?;
        let updated = self.update.run(&UpdateTask {
            weights: &w.view(),
            largest,
            stats,
            metric: &self.metric,
            pattern: &self.pattern,
            output_weights: outputs.as_deref(),
            protected: self.protected.as_ref(),
            #[cfg(feature = "second-order")]
            factors: &crate::update::second_order::Factors::default(),
            round: A::as_compute(&[]).is_none().then_some(round_run::<A>),
        })?;
        if let Some(updated) = &updated {
            check_shape(w.dim(), &updated.mask)?;
            self.check_protected(&updated.mask)?;
            subtraction::check(w, updated)?;
        }
        Ok(updated)
    }

    /// Checks that no protected weight is to be pruned.
    fn check_protected<T: Real>(&self, mask: &Mask) -> Result<()>
    where
        P: SparsityPattern<T>,
    {
        let protected = self.protected.as_ref();
        match protected.and_then(|protected| mask.first_common(protected)) {
            None => Ok(()),
            Some((row, column)) => Err(Error::TooManyProtected {
                pattern: self.pattern.name(),
                row,
                column,
            }),
        }
    }

    /// Checks that pattern, statistics and protected weights fit a layer of this shape.
    fn check<T: Real>(
        &self,
        (rows, columns): (usize, usize),
        stats: &dyn ActivationStats,
    ) -> Result<()>
    where
        P: SparsityPattern<T>,
    {
        self.pattern.check(rows, columns)?;
        let features = stats.features();
        if (features, stats.tokens()) != (0, 0) {
            check_features(features, (rows, columns))?;
            if let Some(energy) = stats.output_energy() {
                check_features(energy.inputs(), (rows, columns))?;
            }
        }
        if let Some(protected) = &self.protected {
            check_shape((rows, columns), protected)?;
        }
        Ok(())
    }

    /// The numbers that scores of rows are multiplied by, if rows are compared with each other.
    ///
    /// # Errors
    ///
    /// [`Error::FactorCount`] and [`Error::InvalidOutputWeight`].
    fn outputs<T: Real>(&self, rows: usize) -> Result<Option<Vec<T>>>
    where
        P: SparsityPattern<T>,
    {
        let Some(weights) = &self.output_weights else {
            return Ok(None);
        };
        if weights.len() != rows {
            return Err(Error::FactorCount {
                metric: "output weights".to_owned(),
                side: "rows",
                found: weights.len(),
                expected: rows,
            });
        }
        let wrong = |&weight: &f64| !(weight > 0.0 && T::from_f64(weight).is_normal());
        if let Some(output) = weights.iter().position(wrong) {
            return Err(Error::InvalidOutputWeight {
                output,
                weight: weights[output],
            });
        }
        let within_rows = matches!(
            self.pattern.comparison(),
            Some(ComparisonGroup::Row | ComparisonGroup::Run(_))
        );
        Ok((!within_rows).then(|| weights.iter().map(|&weight| T::from_f64(weight)).collect()))
    }

    /// What the metric makes of a layer.
    fn prepare<'a, A: Element>(
        &'a self,
        w: &ArrayRef2<A>,
        stats: &'a dyn ActivationStats,
        largest: A::Compute,
    ) -> Result<Prepared<'a, A::Compute>>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let context = Context::new(stats, largest);
        let prepared = self.metric.prepare(&w.view(), &context)?;
        let prepared = prepared.check(w.dim(), || self.metric.name())?;
        Ok(match self.outputs(w.nrows())? {
            Some(outputs) => prepared.weighted(&outputs),
            None => prepared,
        })
    }

    /// How the weights of a layer are scored.
    fn scoring<'a, T: Real>(&'a self, prepared: &'a Prepared<'a, T>) -> Scoring<'a, T>
    where
        M: ImportanceMetric<T>,
    {
        Scoring::new(&self.metric, prepared).protect(self.protected.as_ref())
    }

    /// Decides a whole layer.
    fn decide<A: Element>(
        &self,
        w: &ArrayRef2<A>,
        prepared: &Prepared<'_, A::Compute>,
        largest: A::Compute,
    ) -> Result<Mask>
    where
        M: ImportanceMetric<A::Compute>,
        P: SparsityPattern<A::Compute>,
    {
        let scores = self.scoring(prepared).of(w, 0).trusted(largest);
        let mask = pattern::project(&self.pattern, &scores, 0..w.ncols())?;
        self.check_protected::<A::Compute>(&mask)?;
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

/// What became of a layer.
#[derive(Default)]
struct Done {
    pruned: usize,
    zeros: usize,
    error: Option<RelativeError>,
    target_error: Option<RelativeError>,
    damping: Option<f64>,
    solved: Option<Solved>,
}

/// Rounds values to `A`.
fn round_run<A: Element>(run: &mut [A::Compute]) {
    for x in run {
        *x = A::narrow(*x).widen();
    }
}
