//! What did calibration see? Statistics of the inputs of a layer.

mod column_norms;
#[cfg(feature = "safetensors")]
#[cfg_attr(docsrs, doc(cfg(feature = "safetensors")))]
pub mod file;
mod gather;
#[cfg(feature = "second-order")]
mod gram;
mod squares;

use std::fmt::Debug;

pub use column_norms::ColumnNorms;
pub use gather::GatherStats;
#[cfg(feature = "second-order")]
pub use gram::{Gram, LayerStats, required_gram};

use crate::error::{Error, Result};

/// What a layer's inputs looked like during calibration.
///
/// With X the matrix of all inputs seen, one row a token and one column an input feature, a
/// statistic gives at least the sum of squares of every column of X, and may give the whole
/// Gram matrix `XᵀX`.
pub trait ActivationStats: Debug + Send + Sync {
    /// Input features, the columns of the layer's weight matrix.
    fn features(&self) -> usize;

    /// Tokens seen, not counting those of weight 0.
    fn tokens(&self) -> u64;

    /// Σₜ xₜⱼ² for every feature `j`; empty as long as no token was seen.
    fn sums_of_squares(&self) -> &[f64];

    /// `XᵀX`, if it was gathered.
    #[cfg(feature = "second-order")]
    fn gram(&self) -> Option<&Gram> {
        None
    }

    /// 1 / Uⱼⱼ for every feature, where a sweep has already factored the Gram matrix.
    #[doc(hidden)]
    fn factor_diagonal(&self) -> Option<&[f64]> {
        None
    }
}

/// No statistics: for metrics that look at the weights alone.
///
/// It fits a layer of any shape. A metric that needs activations refuses it with
/// [`Error::NoCalibration`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoStats;

impl ActivationStats for NoStats {
    fn features(&self) -> usize {
        0
    }

    fn tokens(&self) -> u64 {
        0
    }

    fn sums_of_squares(&self) -> &[f64] {
        &[]
    }
}

/// The sums of squares, for a metric that cannot do without, of a layer whose rows and columns
/// are `dim`.
///
/// # Errors
///
/// [`Error::NoCalibration`] if no input other than zero was seen, [`Error::StatsShape`] if the
/// statistics are not those of a layer with `columns` inputs.
pub fn required_sums<'a>(
    stats: &'a dyn ActivationStats,
    metric: &str,
    dim: (usize, usize),
) -> Result<&'a [f64]> {
    let sums = stats.sums_of_squares();
    if sums.iter().all(|&sum| sum == 0.0) {
        return Err(Error::NoCalibration {
            metric: metric.to_owned(),
            tokens: stats.tokens(),
        });
    }
    check_features(sums.len(), dim)?;
    Ok(sums)
}

/// Checks that statistics of so many features are those of a layer of this shape.
///
/// # Errors
///
/// [`Error::StatsShape`] if they are not.
pub(crate) fn check_features(features: usize, (rows, columns): (usize, usize)) -> Result<()> {
    if features == columns {
        return Ok(());
    }
    Err(Error::StatsShape {
        rows,
        columns,
        features,
    })
}
