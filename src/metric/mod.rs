//! How much does a weight matter? One formula a file.

mod magnitude;
#[cfg(feature = "second-order")]
pub mod obs;
mod prepared;
mod ria;
mod wanda;

use std::fmt::Debug;

pub use magnitude::Magnitude;
pub use prepared::{Factors, Prepared};
pub use ria::Ria;
pub use wanda::Wanda;

use crate::element::Real;
use crate::error::Result;
use crate::matrix::Rows;
use crate::stats::ActivationStats;

/// How much each weight of a layer matters.
///
/// A metric is asked in two steps. [`prepare`](Self::prepare) is called once a layer and may look
/// at all of it: norms, row sums, a factorisation. What it returns scores one run of *current*
/// weights at a time, as often as needed, so that no matrix of scores has to be held.
///
/// `T` is the type to compute in: `f32` for weights stored as `f32`, `f16` or `bf16`, and `f64`
/// for `f64`. A metric of your own that need not handle `f64` weights implements
/// `ImportanceMetric` as it stands; see `examples/custom_metric.rs`.
pub trait ImportanceMetric<T: Real = f32>: Debug + Send + Sync {
    /// The name to use in messages.
    fn name(&self) -> String {
        format!("{self:?}")
    }

    /// Looks at a layer and returns what scores its weights: [`Factors`] where a score is the
    /// magnitude of the weight times a factor, or else a [`Scorer`].
    ///
    /// # Errors
    ///
    /// [`Error::NoCalibration`](crate::Error::NoCalibration) and
    /// [`Error::StatsShape`](crate::Error::StatsShape) if the metric needs statistics that are
    /// not there or not those of this layer; whatever else keeps it from scoring.
    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        context: &Context<'a, T>,
    ) -> Result<Prepared<'a, T>>;
}

/// What is known of a layer besides its weights when a metric is prepared.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a, T> {
    /// What calibration saw.
    pub stats: &'a dyn ActivationStats,
    /// The largest magnitude of a weight.
    pub largest: T,
    /// `1 / Uⱼⱼ` for every input, `(G + λI)⁻¹ = UᵀU`, where an update has factored the damped Gram
    /// matrix already, so that the metric need not do it again. The update reports the damping.
    pub factor_diagonal: Option<&'a [f64]>,
}

impl<'a, T> Context<'a, T> {
    /// The context of a layer whose Gram matrix has not been factored.
    #[must_use]
    pub fn new(stats: &'a dyn ActivationStats, largest: T) -> Self {
        Self {
            stats,
            largest,
            factor_diagonal: None,
        }
    }

    /// The same with the diagonal of a factor that was made already.
    #[must_use]
    pub fn factored(self, factor_diagonal: &'a [f64]) -> Self {
        Self {
            factor_diagonal: Some(factor_diagonal),
            ..self
        }
    }
}

/// Scores the weights of one layer. The lower a score, the sooner the weight is pruned.
///
/// Where a score is the magnitude times a factor, [`Factors`] say so in fewer words, and rows are
/// decided while they are scored.
pub trait Scorer<T: Real = f32>: Send + Sync {
    /// Fills `scores` with the scores of `weights`, which stand in `row` from column `start` on.
    ///
    /// The weights are those at the time of the call: an update may have changed them since
    /// `prepare`. Both runs have the same length and end within the layer's columns. A score must
    /// be finite and not negative, and depend on nothing but the arguments. Whatever the score of a
    /// weight that is already zero, it counts as 0.
    fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]);

    /// Promises that for weights no larger than `largest` in magnitude every score is finite and
    /// not negative, and that a zero weight scores zero.
    ///
    /// With the promise, scores are not checked, and a row can be pruned as soon as it is
    /// decided. Without it, the default, the whole layer is decided before a weight changes, so
    /// that an invalid score leaves the weights untouched; that takes one bit of memory a weight.
    fn promises_valid_scores(&self, largest: T) -> bool {
        let _ = largest;
        false
    }
}

/// A pointer to a metric is a metric.
macro_rules! metric_behind {
    ($pointer:ty) => {
        impl<T: Real, M: ImportanceMetric<T> + ?Sized> ImportanceMetric<T> for $pointer {
            fn name(&self) -> String {
                (**self).name()
            }

            fn prepare<'a>(
                &'a self,
                weights: &dyn Rows<T>,
                context: &Context<'a, T>,
            ) -> Result<Prepared<'a, T>> {
                (**self).prepare(weights, context)
            }
        }
    };
}

metric_behind!(&M);
metric_behind!(Box<M>);
