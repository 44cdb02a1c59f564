//! The sweep of SparseGPT: prunes column by column and lets later columns make up for it.

mod block;
mod marks;
mod sweep;
mod tile;

use block::Sweep;

use super::zeroed::zeroed;
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::linalg::{Backend, Damping};
use crate::matrix::read_all;
use crate::metric::obs::DAMPING;
use crate::pattern::ComparisonGroup;
use crate::stats::ActivationStats;
use crate::stats::gram::required_gram;
use crate::update::{UpdateTask, Updated, WeightUpdate};

/// The weights that stay make up for those that go, as the "optimal brain surgeon" would.
///
/// Columns are decided from left to right, a block at a time, on the weights as updated so far.
/// The error of each pruned weight is spread over the columns to its right in the way that
/// changes the layer's output least.
///
/// # Formula
///
/// ```text
/// (G + λI)⁻¹ = Uᵀ U,  U upper triangular,  G = XᵀX,  λ = damping · mean of G's diagonal
/// for each column i, and each row where weight i is pruned
///     e = w[i] / U[i, i]
///     w[i..] -= e · U[i, i..]
/// ```
///
/// # Algorithm
///
/// U itself is never formed. With R = U⁻¹, W₀ the dense and Ŵ the new weights, and
/// E = W₀ − Ŵ on the columns that are done, the updated weights of a block B = [i₁, i₂) are
///
/// ```text
/// W₁ = W₀[:, B] + (E[:, ..i₁] · R[..i₁, B]) · inverse(R[B, B])
/// ```
///
/// so that nearly all work is one matrix product a block, and E is all that is kept. Ŵ is
/// rounded to the type the weights are stored in before E is formed, so the error of rounding is
/// made up for as well, and the relative error of the report is that of the stored weights.
///
/// # Which weights go
///
/// The pattern is asked block by block, [`SparsityPattern::project`]: `PerOutput` within
/// the rows of a block, `PerLayer` among all rows of a block together (as the published code
/// does), N:M within each group when the sweep reaches it. Counts are exact over the whole
/// layer, but for `Cumulative` and `Threshold`. A [`Mask`](crate::Mask) as pattern prunes just what it marks.
///
/// Weights that are zero before the sweep stay zero ([`keep_zeros`](ObsSweep::keep_zeros)), and
/// the weights of dead inputs become zero. That, and every protected weight, is taken into account
/// by what is made up for, within a block and across blocks alike.
///
/// # Errors
///
/// [`Error::NoGram`] if the statistics have no Gram matrix, [`Error::NoCalibration`] if they saw no
/// input other than zero, [`Error::InvalidDamping`], [`Error::NotPositiveDefinite`] if the matrix
/// cannot be factored even with more damping, [`Error::Overflow`] if an updated weight does not fit
/// the type weights are stored in, [`Error::InvalidBlockSize`] for blocks of no columns, and
/// [`Error::TooLarge`] if there is no memory for it.
///
/// # Complexity
///
/// For an m x n layer, in multiplications with an addition each: n³/6 to factor G, m n²/2 for the
/// sweep and as many for the relative error. Memory: m x n numbers for E, n x n for the factor,
/// and about m x 640 for blocks and strips of columns.
///
/// # Example
///
/// ```
/// use wanda::{Gram, ObsSweep, Pattern, Pruner, Wanda, ndarray::array};
///
/// let mut gram = Gram::new(2);
/// gram.update(&array![[1.0_f32, 1.0], [2.0, 2.0], [1.0, 1.1]])?;
/// let mut w = array![[1.0_f32, 3.0]];
/// let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5)).update(ObsSweep::new());
/// let report = pruner.prune(&mut w, &gram)?;
/// // The weight that stays takes over the work of the one that went.
/// assert_eq!(w[[0, 0]], 0.0);
/// assert!((w[[0, 1]] - 4.0).abs() < 0.1);
/// assert_eq!(report.damping(), Some(0.01));
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
/// arXiv 2301.00774, algorithm 1.
///
/// [`SparsityPattern::project`]: crate::SparsityPattern::project
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObsSweep {
    block_size: usize,
    damping: Damping,
    keep_zeros: bool,
    backend: Backend,
}

impl Default for ObsSweep {
    fn default() -> Self {
        Self::new()
    }
}

impl ObsSweep {
    /// Blocks of 128 columns and a damping of 0.01, as published; zeros stay zero; the default
    /// [`Backend`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            block_size: 128,
            damping: DAMPING.into(),
            keep_zeros: true,
            backend: Backend::default(),
        }
    }

    /// Columns that are decided together, rounded up to whole groups of the pattern.
    #[must_use]
    pub fn block_size(mut self, columns: usize) -> Self {
        self.block_size = columns;
        self
    }

    /// λ, by the mean of the diagonal of G (a number says how much) or by its entries.
    ///
    /// Where it does not suffice it is multiplied by 10, at most four times;
    /// [`LayerReport::damping`](crate::LayerReport::damping) says what was used.
    #[must_use]
    pub fn damping(mut self, damping: impl Into<Damping>) -> Self {
        self.damping = damping.into();
        self
    }

    /// Whether weights that are zero before the sweep stay zero, as they do unless `false` is
    /// given.
    ///
    /// The published code lets them take part like all others, so that they may come back to
    /// life.
    #[must_use]
    pub fn keep_zeros(mut self, keep: bool) -> Self {
        self.keep_zeros = keep;
        self
    }

    /// What computes products and factorisations.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

impl<T: Real> WeightUpdate<T> for ObsSweep {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        if self.block_size == 0 {
            return Err(Error::InvalidBlockSize);
        }
        let (_, columns) = task.weights.dim();
        let gram = required_gram(task.stats, "obs sweep", task.weights.dim())?;
        let factor = task.factor(gram, self.backend, self.damping)?;
        let dense = read_all(task.weights)?;
        let diagonal = factor.diagonal();
        let prepared = task.prepare(Some(&diagonal))?;
        let energies = gram.sums_of_squares();
        let dead: Vec<bool> = energies.iter().map(|&energy| energy == 0.0).collect();
        let zeroed = zeroed(task, &dense, &dead, self.keep_zeros)?;
        let sweep = Sweep {
            task,
            factor: &factor,
            scoring: task.scoring(&prepared).zeroed(zeroed.as_ref()),
            dead,
            zeroed: zeroed.as_ref(),
            scale: inverse_power_of_two(task.largest.as_f64()),
        };
        let together = task.pattern.comparison().map_or(1, ComparisonGroup::width);
        let block = self.block_size.div_ceil(together).saturating_mul(together);
        sweep.run(gram, dense, block.min(columns)).map(Some)
    }
}
