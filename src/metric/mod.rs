//! How much does a weight matter? One formula a file.

mod magnitude;
#[cfg(feature = "second-order")]
pub(crate) mod obs;
mod scaled;
mod wanda;

use std::fmt::Debug;

pub use magnitude::Magnitude;
#[cfg(feature = "second-order")]
pub use obs::Obs;
pub use wanda::Wanda;

use crate::element::Real;
use crate::error::Result;
use crate::matrix::Rows;
use crate::stats::ActivationStats;

/// How much each weight of a layer matters.
///
/// A metric is asked in two steps. [`prepare`](Self::prepare) is called once a layer and may look
/// at all of it: norms, row sums, a factorisation. The [`Scorer`] it returns is then asked for
/// the scores of one run of weights at a time, as often as needed, so that no matrix of scores
/// has to be held.
///
/// `T` is the type to compute in: `f32` for weights stored as `f32`, `f16` or `bf16`, and `f64`
/// for `f64`. A metric of your own that need not handle `f64` weights implements
/// `ImportanceMetric` as it stands; see `examples/custom_metric.rs`.
pub trait ImportanceMetric<T: Real = f32>: Debug + Send + Sync {
    /// The name to use in messages.
    fn name(&self) -> &str;

    /// Looks at a layer and returns what scores its weights.
    ///
    /// # Errors
    ///
    /// [`Error::NoCalibration`](crate::Error::NoCalibration) and
    /// [`Error::StatsShape`](crate::Error::StatsShape) if the metric needs statistics that are
    /// not there or not those of this layer; whatever else keeps it from scoring.
    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        stats: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer<T> + 'a>>;
}

/// Scores the weights of one layer. The lower a score, the sooner the weight is pruned.
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

    /// The factor of each column of the layer, finite and not negative, if the score of a weight is
    /// its magnitude times that and nothing else: exactly what [`score`](Self::score) gives. Rows
    /// are then decided in the same step as they are scored, where the pattern allows it. By
    /// default scores are something else; columns for which there is no factor are scored as ever.
    fn factors(&self) -> Option<&[T]> {
        None
    }

    /// The damping that was needed to factor the Gram matrix, as a multiple of the mean of its
    /// diagonal, if the metric factors it.
    fn damping(&self) -> Option<f64> {
        None
    }
}

/// Makes +0.0 of every -0.0, whose bits would make it the highest score, and checks all scores.
///
/// # Errors
///
/// The index of the first score that is negative, infinite or not a number.
pub(crate) fn settle_scores<T: Real>(scores: &mut [T]) -> std::result::Result<(), usize> {
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

impl<T: Real, M: ImportanceMetric<T> + ?Sized> ImportanceMetric<T> for &M {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        stats: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer<T> + 'a>> {
        (**self).prepare(weights, stats)
    }
}

impl<T: Real, M: ImportanceMetric<T> + ?Sized> ImportanceMetric<T> for Box<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        stats: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer<T> + 'a>> {
        (**self).prepare(weights, stats)
    }
}
