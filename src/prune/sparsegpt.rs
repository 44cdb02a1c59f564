//! SparseGPT: the `Obs` metric with the `ObsSweep`.

use ndarray::ArrayRef2;

use super::Pruner;
use crate::element::Element;
use crate::error::Result;
use crate::metric::obs::Obs;
use crate::pattern::SparsityPattern;
use crate::report::LayerReport;
use crate::stats::gram::Gram;
use crate::update::second_order::obs_sweep::ObsSweep;

/// Prunes a layer with SparseGPT, in place: the [`Obs`] metric with the [`ObsSweep`], which makes
/// up for pruned weights by changing those that stay.
///
/// `w` is outputs x inputs; `gram` saw the inputs of this layer. The published method compares
/// all rows of a block of 128 columns ([`Pattern::PerLayer`](crate::Pattern::PerLayer)) or within
/// groups ([`Pattern::NOfM`](crate::Pattern::NOfM)). For another metric, damping or backend, a
/// given mask, or weights to protect, use [`Pruner::update`].
///
/// # Errors
///
/// As [`Pruner::prune`] and [`ObsSweep`]. After an error `w` is as before.
///
/// # Complexity
///
/// As [`ObsSweep`].
///
/// # Example
///
/// ```
/// use wanda::{Gram, Pattern, ndarray::array};
///
/// let mut gram = Gram::new(2);
/// gram.update(&array![[1.0_f32, 1.0], [2.0, 2.0], [1.0, 1.1]])?;
/// let mut w = array![[1.0_f32, 3.0]];
/// wanda::sparsegpt_layer(&mut w, &gram, Pattern::PerOutput(0.5))?;
/// // The inputs are nearly the same, so the second weight takes over the work of the first.
/// assert_eq!(w[[0, 0]], 0.0);
/// assert!((w[[0, 1]] - 4.0).abs() < 0.1);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
/// arXiv 2301.00774.
pub fn sparsegpt_layer<A: Element, P: SparsityPattern<A::Compute>>(
    w: &mut ArrayRef2<A>,
    gram: &Gram,
    pattern: P,
) -> Result<LayerReport> {
    Pruner::new(Obs::new(), pattern)
        .update(ObsSweep::new())
        .prune(w, gram)
}
