//! Statistics of one layer whose kind is chosen at run time.

use ndarray::ArrayRef2;

use super::Gram;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::stats::{ActivationStats, ColumnNorms, OutputEnergy, gather::gather_by_own_methods};

/// The statistics of one layer, of either kind.
///
/// # Example
///
/// ```
/// use wanda::LayerStats;
/// use wanda::{ActivationStats, ColumnNorms, Gram, ndarray::array};
///
/// let mut layers: [LayerStats; 2] = [ColumnNorms::new(2).into(), Gram::new(2).into()];
/// for stats in &mut layers {
///     stats.update(&array![[3.0_f32, 1.0], [4.0, 2.0]])?;
///     assert_eq!(stats.sums_of_squares(), [25.0, 5.0]);
/// }
/// assert!(layers[0].gram().is_none() && layers[1].gram().is_some());
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LayerStats {
    /// The norms of the inputs.
    Norms(ColumnNorms),
    /// Their Gram matrix.
    Gram(Gram),
}

impl LayerStats {
    /// Adds a batch of inputs, [tokens, features]: any number of tokens, any strides.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`] or [`Gram::update`]. After an error the statistics are as before.
    pub fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()> {
        match self {
            Self::Norms(norms) => norms.update(batch),
            Self::Gram(gram) => gram.update(batch),
        }
    }

    /// Adds a batch of inputs, of which token `t` counts `token_weights[t]` times.
    ///
    /// A token of weight 0 is padding: its values are not looked at and may be anything.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update_weighted`] or [`Gram::update_weighted`]. After an error the
    /// statistics are as before.
    pub fn update_weighted<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()> {
        match self {
            Self::Norms(norms) => norms.update_weighted(batch, token_weights),
            Self::Gram(gram) => gram.update_weighted(batch, token_weights),
        }
    }

    /// Adds what other statistics of the same layer have seen.
    ///
    /// # Errors
    ///
    /// [`Error::MergeKinds`] if one has norms and the other a Gram matrix, else as
    /// [`ColumnNorms::merge`] or [`Gram::merge`]. After an error the statistics are as before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Norms(norms), Self::Norms(other)) => norms.merge(other),
            (Self::Gram(gram), Self::Gram(other)) => gram.merge(other),
            (left, right) => Err(Error::MergeKinds {
                left: left.kind(),
                right: right.kind(),
            }),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Norms(_) => "norms",
            Self::Gram(_) => "a Gram matrix",
        }
    }

    fn inner(&self) -> &dyn ActivationStats {
        match self {
            Self::Norms(norms) => norms,
            Self::Gram(gram) => gram,
        }
    }
}

gather_by_own_methods!(LayerStats);

impl ActivationStats for LayerStats {
    fn features(&self) -> usize {
        self.inner().features()
    }

    fn tokens(&self) -> u64 {
        self.inner().tokens()
    }

    fn sums_of_squares(&self) -> &[f64] {
        self.inner().sums_of_squares()
    }

    fn output_energy(&self) -> Option<&dyn OutputEnergy> {
        self.inner().output_energy()
    }

    fn gram(&self) -> Option<&Gram> {
        self.inner().gram()
    }
}

impl From<ColumnNorms> for LayerStats {
    fn from(norms: ColumnNorms) -> Self {
        Self::Norms(norms)
    }
}

impl From<Gram> for LayerStats {
    fn from(gram: Gram) -> Self {
        Self::Gram(gram)
    }
}
