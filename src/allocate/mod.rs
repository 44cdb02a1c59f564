//! How sparse should each layer be? One allocation a file.
//!
//! Layers are summed up one after the other, each in a [`LayerSummary`] of a few kilobytes. Then an
//! [`Allocation`] looks at all of them, and [`allocate`] gives each layer a share of the weights to
//! prune, whose sum is the asked one to the weight.
//!
//! # Example
//!
//! ```
//! use wanda::allocate::{LayerSummary, Owl, allocate};
//! use wanda::ndarray::{Array2, array};
//! use wanda::{ColumnNorms, Context, ImportanceMetric, Pattern, Pruner, Scoring, Wanda};
//!
//! let mut stats = ColumnNorms::new(50);
//! stats.update(&Array2::<f32>::ones((1, 50)))?;
//! // The second layer has a few weights that are much larger than the others.
//! let plain = Array2::from_elem((20, 50), 1.0_f32);
//! let uneven = Array2::from_shape_fn((20, 50), |(_, j)| if j == 0 { 40.0_f32 } else { 1.0 });
//!
//! let mut layers = Vec::new();
//! for (block, w) in [&plain, &uneven].into_iter().enumerate() {
//!     let prepared = Wanda.prepare(w, &Context::new(&stats, 40.0))?;
//!     layers.push(LayerSummary::new(block, &Scoring::new(&Wanda, &prepared).of(w, 0))?);
//! }
//! let shares = allocate(&Owl::default(), &layers, 0.7)?;
//! assert_eq!([shares[0].pruned(), shares[1].pruned()], [780, 620]);
//!
//! let pattern = Pattern::PerLayer(shares[1].sparsity());
//! assert_eq!(Pruner::new(Wanda, pattern).mask(&uneven, &stats)?.count(), 620);
//! # Ok::<(), wanda::Error>(())
//! ```

mod blocks;
mod budget;
mod dlp;
mod global_budget;
mod histogram;
mod layer;
mod owl;
mod target;
mod uniform;

use std::fmt::Debug;

pub use dlp::Dlp;
pub use global_budget::GlobalBudget;
pub use histogram::ScoreHistogram;
pub use layer::{LayerShare, LayerSummary};
pub use owl::Owl;
pub use target::Target;
pub use uniform::Uniform;

use crate::error::{Error, Result};
use crate::pattern::{check_sparsity, quota};

/// How sparse each layer of a model should be.
///
/// An allocation says what it would like for each layer. [`allocate`] makes whole numbers of that,
/// whose sum is exact.
///
/// # Example
///
/// ```
/// use wanda::allocate::{Allocation, LayerSummary, Target, allocate};
///
/// /// Prunes the first and the last layer less than the others.
/// #[derive(Debug)]
/// struct SpareTheEnds;
///
/// impl Allocation for SpareTheEnds {
///     fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> wanda::Result<Vec<Target>> {
///         let target = |i| match i {
///             _ if i == 0 || i + 1 == layers.len() => Target::fixed(sparsity / 2.0),
///             _ => Target::within(sparsity, 0.0..=0.99),
///         };
///         Ok((0..layers.len()).map(target).collect())
///     }
/// }
///
/// let layers = [(); 4].map(|()| LayerSummary::unscored(100));
/// let shares = allocate(&SpareTheEnds, &layers, 0.4)?;
/// let pruned: Vec<usize> = shares.iter().map(|share| share.pruned()).collect();
/// assert_eq!(pruned, [20, 60, 60, 20]);
/// # Ok::<(), wanda::Error>(())
/// ```
pub trait Allocation: Debug + Send + Sync {
    /// The name to use in messages.
    fn name(&self) -> String {
        format!("{self:?}")
    }

    /// The target of each layer, where `sparsity`, at least 0 and less than 1, is that of all their
    /// weights together. The targets need not add up to it.
    ///
    /// # Errors
    ///
    /// Whatever keeps the allocation from deciding, for example [`Error::InvalidAllocation`].
    fn targets(&self, layers: &[LayerSummary], sparsity: f64) -> Result<Vec<Target>>;
}

/// Gives each layer its share of the weights to prune, in the order of `layers`.
///
/// # Formula
///
/// With nₗ the weights of layer l, N their sum and tₗ the target of the layer, clipped to its
/// limits lowₗ and highₗ:
///
/// ```text
/// find λ such that  Σ nₗ · clip(tₗ + λ, lowₗ, highₗ) = ⌊N · s⌋
/// ```
///
/// λ is 0 if that is met to less than one weight. The products are rounded down, and what the sum
/// lacks goes to the layers with the largest remainders, the first of equal ones first, a weight
/// each. So the sum is exactly ⌊N · s⌋, computed in `f64` like the counts of patterns, limits are
/// kept to within one weight, and layers with equal targets differ by one weight at most. A layer
/// keeps one weight at least.
///
/// # Errors
///
/// [`Error::InvalidSparsity`] if `sparsity` is not at least 0 and less than 1. [`Error::OutOfReach`]
/// if the limits allow no such sum: with the allocations of this crate only where a share of s, or
/// of 0.99, would leave less than one weight of a layer. [`Error::TooManyWeights`] for more than
/// 2⁵¹. What the allocation gives, and
/// [`Error::Custom`] if its targets are not one a layer, or are no numbers, or have limits that are
/// not 0 ≤ low ≤ high ≤ 1.
///
/// # Complexity
///
/// For L layers L log L operations and some numbers a layer of memory, besides what the allocation
/// takes.
pub fn allocate(
    allocation: &dyn Allocation,
    layers: &[LayerSummary],
    sparsity: f64,
) -> Result<Vec<LayerShare>> {
    check_sparsity(sparsity)?;
    let sizes: Vec<usize> = layers.iter().map(LayerSummary::weights).collect();
    let weights = budget::total(&sizes)?;
    let targets = allocation.targets(layers, sparsity)?;
    check_targets(&targets, layers.len()).map_err(|reason| Error::Custom {
        origin: allocation.name(),
        reason,
    })?;
    let counts = budget::counts(&sizes, &targets, quota(weights, sparsity))?;
    let shares = counts.into_iter().zip(sizes);
    Ok(shares
        .map(|(pruned, weights)| LayerShare::new(pruned, weights))
        .collect())
}

/// What is wrong with the targets of an allocation.
fn check_targets(targets: &[Target], layers: usize) -> std::result::Result<(), String> {
    if targets.len() != layers {
        let found = targets.len();
        return Err(format!("there are {layers} layers, but {found} targets"));
    }
    match targets.iter().position(|target| !target.is_valid()) {
        Some(layer) => Err(format!("the target of layer {layer} is invalid")),
        None => Ok(()),
    }
}

/// Checks that a parameter of an allocation is finite and not negative.
fn check_parameter(parameter: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::InvalidAllocation { parameter, value })
    }
}
