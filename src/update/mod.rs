//! What happens to the weights that stay?

#[cfg(feature = "second-order")]
pub mod second_order;

use std::fmt::Debug;
use std::ops::Range;

use ndarray::Array2;

use crate::element::Real;
use crate::error::Result;
use crate::mask::Mask;
use crate::matrix::Rows;
use crate::metric::{Context, ImportanceMetric, Prepared};
use crate::pattern::{self, SparsityPattern};
use crate::report::{RelativeError, Solved};
use crate::scores::Scoring;
use crate::stats::ActivationStats;

/// What happens to the weights that stay.
///
/// An update decides which weights go, by asking metric and pattern, and may change the others
/// to make up for them.
pub trait WeightUpdate<T: Real = f32>: Debug + Send + Sync {
    /// Decides a layer and computes its new weights. `None`: the weights that stay do not change,
    /// and the pattern decides on its own.
    ///
    /// # Errors
    ///
    /// Whatever metric and pattern find wrong, and what keeps the update from being computed.
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>>;
}

/// A layer to update.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct UpdateTask<'a, T: Real> {
    /// The dense weights, outputs x inputs.
    pub weights: &'a dyn Rows<T>,
    /// The largest magnitude of a weight.
    pub largest: T,
    /// What calibration saw.
    pub stats: &'a dyn ActivationStats,
    /// How much weights matter.
    pub metric: &'a dyn ImportanceMetric<T>,
    /// Which may go together.
    pub pattern: &'a dyn SparsityPattern<T>,
    /// What the scores of each row are multiplied by where rows are compared with each other.
    pub output_weights: Option<&'a [T]>,
    /// Weights that must not be pruned.
    pub protected: Option<&'a Mask>,
    /// Factors of the Gram matrix that earlier steps made.
    #[cfg(feature = "second-order")]
    pub(crate) factors: &'a second_order::Factors<T>,
    /// Rounds values to the type the weights are stored in, unless that is `T` itself.
    pub round: Option<fn(&mut [T])>,
}

impl<T: Real> UpdateTask<'_, T> {
    /// Whether a weight must not be pruned.
    #[must_use]
    pub fn is_protected(&self, row: usize, column: usize) -> bool {
        let protected = self.protected;
        protected.is_some_and(|mask| mask.get(row, column) == Some(true))
    }

    /// Prepares the metric. An update that has factored the damped Gram matrix gives the diagonal
    /// of the factor, see [`Context::factor_diagonal`].
    ///
    /// # Errors
    ///
    /// What the metric finds wrong, and [`Error::FactorCount`](crate::Error::FactorCount).
    pub fn prepare<'s>(&'s self, factor_diagonal: Option<&'s [f64]>) -> Result<Prepared<'s, T>> {
        let mut context = Context::new(self.stats, self.largest);
        context.factor_diagonal = factor_diagonal;
        let prepared = self.metric.prepare(self.weights, &context)?;
        let prepared = prepared.check(self.weights.dim(), || self.metric.name())?;
        Ok(match self.output_weights {
            Some(outputs) => prepared.weighted(outputs),
            None => prepared,
        })
    }

    /// How the weights of the layer, or those of an iterate, are scored by a prepared metric:
    /// [`Scoring::of`] gives the scores that [`project`](Self::project) takes.
    #[must_use]
    pub fn scoring<'s>(&'s self, prepared: &'s Prepared<'s, T>) -> Scoring<'s, T> {
        Scoring::new(self.metric, prepared).protect(self.protected)
    }

    /// Marks what the pattern prunes of `columns` of the layer, given their scores: all columns, or
    /// a block that ends with a [comparison group](crate::ComparisonGroup::width).
    ///
    /// # Errors
    ///
    /// As [`SparsityPattern::project`], and [`Error::MaskShape`](crate::Error::MaskShape) if the
    /// pattern gives a mask of another shape.
    pub fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
        pattern::project(self.pattern, scores, columns)
    }
}

impl<T: Real> std::fmt::Debug for UpdateTask<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdateTask")
            .field("dim", &self.weights.dim())
            .field("stats", &self.stats)
            .field("metric", &self.metric)
            .field("pattern", &self.pattern)
            .field("protected", &self.protected)
            .finish_non_exhaustive()
    }
}

/// The result of an update.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Updated<T> {
    /// What to subtract from the dense weights, outputs x inputs. A pruned weight is subtracted
    /// from itself; for those that stay it is the difference to the weight as it will be stored.
    pub difference: Array2<T>,
    /// The weights that the pattern pruned. The difference has to leave +0.0 of them.
    pub mask: Mask,
    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`, to be reported; `None` if it was not measured, or if the output
    /// of the layer is zero.
    pub relative_error: Option<RelativeError>,
    /// The same of the weights that best give the target, where there was one.
    pub target_error: Option<RelativeError>,
    /// The damping used, as a multiple of the mean of the diagonal of G or of its entries.
    pub damping: Option<f64>,
    /// What an iterative solver did, if there was one.
    pub solved: Option<Solved>,
}

impl<T> Updated<T> {
    /// A result of which neither an error nor a damping is known.
    #[must_use]
    pub fn new(difference: Array2<T>, mask: Mask) -> Self {
        Self {
            difference,
            mask,
            relative_error: None,
            target_error: None,
            damping: None,
            solved: None,
        }
    }
}

impl<T: Real, U: WeightUpdate<T> + ?Sized> WeightUpdate<T> for &U {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        (**self).run(task)
    }
}

impl<T: Real, U: WeightUpdate<T> + ?Sized> WeightUpdate<T> for Box<U> {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        (**self).run(task)
    }
}

/// Nothing: weights that stay keep their bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepWeights;

impl<T: Real> WeightUpdate<T> for KeepWeights {
    fn run(&self, _: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        Ok(None)
    }
}
