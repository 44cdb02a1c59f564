//! What keeps a Gram matrix from being singular.

use std::fmt;

use crate::error::{Error, Result};

/// What is added to the diagonal of a Gram matrix G before it is factored.
///
/// # Formula
///
/// ```text
/// Mean(d)        λⱼ = d · mean(diag G)
/// Diagonal(d)    λⱼ = d · max(Gⱼⱼ, 10⁻⁴ · mean(diag G))
/// ```
///
/// The mean is that of inputs that are not dead. The published methods damp by the mean, which
/// weighs quiet inputs down; by the diagonal, all inputs are damped alike. The floor keeps a matrix
/// regular in which many inputs are (nearly) zero.
///
/// A number is a multiple of the mean.
///
/// # Example
///
/// ```
/// use wanda::Damping;
///
/// assert_eq!(Damping::from(0.01), Damping::Mean(0.01));
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT", arXiv 2301.00774, section 3, for the mean; Marquardt, "An
/// Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963, for the diagonal.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Damping {
    /// A multiple of the mean of the diagonal, the same for all inputs.
    Mean(f64),
    /// A multiple of each diagonal entry.
    Diagonal(f64),
}

impl Damping {
    /// Diagonal entries count as this part of their mean at least.
    const FLOOR: f64 = 1e-4;

    /// The multiple.
    #[must_use]
    pub fn factor(self) -> f64 {
        match self {
            Self::Mean(factor) | Self::Diagonal(factor) => factor,
        }
    }

    /// Checks that the multiple can be used.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidDamping`] if it is negative, infinite or not a number.
    pub(crate) fn check(self) -> Result<()> {
        let damping = self.factor();
        if damping.is_finite() && damping >= 0.0 {
            Ok(())
        } else {
            Err(Error::InvalidDamping { damping })
        }
    }

    /// The same kind of damping, so many times as strong.
    pub(super) fn times(self, raise: f64) -> Self {
        match self {
            Self::Mean(factor) => Self::Mean(factor * raise),
            Self::Diagonal(factor) => Self::Diagonal(factor * raise),
        }
    }

    /// λⱼ for an entry of the diagonal, given the mean of all that are not zero.
    pub(crate) fn shift(self, entry: f64, mean: f64) -> f64 {
        match self {
            Self::Mean(factor) => factor * mean,
            Self::Diagonal(factor) => factor * entry.max(Self::FLOOR * mean),
        }
    }
}

impl From<f64> for Damping {
    fn from(of_mean: f64) -> Self {
        Self::Mean(of_mean)
    }
}

impl fmt::Display for Damping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean(factor) => write!(f, "{factor}"),
            Self::Diagonal(factor) => write!(f, "{factor} of each diagonal entry"),
        }
    }
}
