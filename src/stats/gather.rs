//! Gathering statistics, of whatever kind.

use ndarray::ArrayRef2;

use super::ActivationStats;
use crate::element::Element;
use crate::error::Result;

/// Statistics that are gathered batch by batch, and merged where they were gathered apart.
///
/// This is for code that gathers statistics of any kind. The types of this crate have the same
/// methods without it.
///
/// # Example
///
/// ```
/// use wanda::ndarray::{Array2, array};
/// use wanda::{ActivationStats, ColumnNorms, GatherStats};
///
/// fn gather<S: GatherStats>(mut stats: S, batches: &[Array2<f32>]) -> wanda::Result<S> {
///     for batch in batches {
///         stats.update(batch)?;
///     }
///     Ok(stats)
/// }
///
/// let batches = [array![[3.0, 1.0], [4.0, 0.0]], array![[0.0, 2.0]]];
/// let norms = gather(ColumnNorms::new(2), &batches)?;
/// assert_eq!(norms.sums_of_squares(), [25.0, 5.0]);
/// # Ok::<(), wanda::Error>(())
/// ```
pub trait GatherStats: ActivationStats {
    /// Adds a batch of inputs, [tokens, features]: any number of tokens, any strides.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`](crate::ColumnNorms::update), and
    /// [`Error::TooLarge`](crate::Error::TooLarge) if there is no memory. After an error the
    /// statistics are as before.
    fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()>;

    /// Adds a batch of inputs, of which token `t` counts `token_weights[t]` times.
    ///
    /// A token of weight 0 is padding: its values are not looked at and may be anything.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and as
    /// [`ColumnNorms::update_weighted`](crate::ColumnNorms::update_weighted) of the weights. After
    /// an error the statistics are as before.
    fn update_weighted<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()>;

    /// Adds what other statistics of the same layer have seen.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::merge`](crate::ColumnNorms::merge), and
    /// [`Error::TooLarge`](crate::Error::TooLarge) if there is no memory. After an error the
    /// statistics are as before.
    fn merge(&mut self, other: &Self) -> Result<()>;
}

/// Implements [`GatherStats`] by a type's own methods of the same names, which callers have without
/// importing the trait.
macro_rules! gather_by_own_methods {
    ($type:ty) => {
        impl $crate::GatherStats for $type {
            fn update<A: $crate::Element>(
                &mut self,
                batch: &ndarray::ArrayRef2<A>,
            ) -> $crate::Result<()> {
                <$type>::update(self, batch)
            }

            fn update_weighted<A: $crate::Element>(
                &mut self,
                batch: &ndarray::ArrayRef2<A>,
                token_weights: &[f32],
            ) -> $crate::Result<()> {
                <$type>::update_weighted(self, batch, token_weights)
            }

            fn merge(&mut self, other: &Self) -> $crate::Result<()> {
                <$type>::merge(self, other)
            }
        }
    };
}

pub(super) use gather_by_own_methods;
