//! The same for all.

use super::{Allocation, LayerSummary, Target};
use crate::error::Result;

/// The same sparsity for every layer, whatever its scores.
///
/// # Formula
///
/// ```text
/// tₗ = s
/// ```
///
/// # Example
///
/// ```
/// use wanda::allocate::{LayerSummary, Uniform, allocate};
///
/// let layers = [3, 3, 4].map(LayerSummary::unscored);
/// let shares = allocate(&Uniform, &layers, 0.5)?;
/// let pruned: Vec<usize> = shares.iter().map(|share| share.pruned()).collect();
/// assert_eq!(pruned, [2, 1, 2]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uniform;

impl Allocation for Uniform {
    fn name(&self) -> String {
        "uniform".to_owned()
    }

    fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> Result<Vec<Target>> {
        Ok(vec![Target::free(sparsity, sparsity); layers.len()])
    }
}
