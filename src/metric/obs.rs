//! The saliency of SparseGPT.

use super::{Context, ImportanceMetric, Prepared, Scorer};
use crate::element::{Real, inverse_power_of_two};
use crate::error::Result;
use crate::linalg::{Backend, Damping};
use crate::matrix::Rows;
use crate::stats::check_features;
use crate::stats::gram::required_gram;

/// What the layer's output loses when the weight is pruned and all later ones make up for it as
/// well as they can: SparseGPT's saliency.
///
/// # Formula
///
/// ```text
/// score = Wᵢⱼ² / Uⱼⱼ²       (G + λI)⁻¹ = Uᵀ U, U upper triangular, G = XᵀX
/// ```
///
/// `Uⱼⱼ²` is the first diagonal entry of the inverse of G + λI without the inputs before j. It is
/// not the diagonal of the whole inverse. Weights of dead inputs score 0. Scores are scaled by a
/// power of two, the same for all weights of a layer.
///
/// SparseGPT is this metric with the [`ObsSweep`](crate::ObsSweep), which scores weights as it
/// has updated them so far: [`sparsegpt_layer`](crate::sparsegpt_layer). Without an update it
/// ranks the weights as they are.
///
/// # Errors
///
/// [`Error::NoCalibration`] if no input other than zero was seen, [`Error::StatsShape`] if the
/// statistics are of another layer, [`Error::NoGram`] if they have no Gram matrix,
/// [`Error::InvalidDamping`], [`Error::NotPositiveDefinite`] if the matrix cannot be factored,
/// [`Error::TooLarge`] if there is no memory for the factor.
///
/// # Complexity
///
/// n³/6 multiplications with an addition each and n² numbers of memory for n inputs, then two
/// multiplications a weight. Within a sweep, which has factored the matrix, only the latter.
///
/// # Example
///
/// ```
/// use wanda::{Gram, Obs, Pattern, Pruner, ndarray::array};
///
/// let mut gram = Gram::new(3);
/// gram.update(&array![[1.0_f32, 1.0, 0.0], [2.0, 2.0, 1.0], [1.0, 1.1, 3.0]])?;
/// let w = array![[2.0_f32, 1.0, 1.0]];
/// let mask = Pruner::new(Obs::new(), Pattern::PerOutput(0.4)).mask(&w, &gram)?;
/// // The first two inputs are nearly the same, so the second weight can make up for the first,
/// // although that is the largest.
/// assert_eq!(mask.iter().collect::<Vec<_>>(), [(0, 0)]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
/// arXiv 2301.00774, equation 5; Hassibi, Stork, Wolff, "Optimal Brain Surgeon and general
/// network pruning", 1993.
///
/// [`Error::NoCalibration`]: crate::Error::NoCalibration
/// [`Error::StatsShape`]: crate::Error::StatsShape
/// [`Error::NoGram`]: crate::Error::NoGram
/// [`Error::InvalidDamping`]: crate::Error::InvalidDamping
/// [`Error::NotPositiveDefinite`]: crate::Error::NotPositiveDefinite
/// [`Error::TooLarge`]: crate::Error::TooLarge
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Obs {
    damping: Damping,
    backend: Backend,
}

/// The damping that the published code uses.
pub(crate) const DAMPING: f64 = 0.01;

impl Default for Obs {
    fn default() -> Self {
        Self::new()
    }
}

impl Obs {
    /// The metric with the published damping of 0.01 and the default [`Backend`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            damping: DAMPING.into(),
            backend: Backend::default(),
        }
    }

    /// λ, by the mean of the diagonal of G (a number says how much) or by its entries. A sweep uses its own.
    #[must_use]
    pub fn damping(mut self, damping: impl Into<Damping>) -> Self {
        self.damping = damping.into();
        self
    }

    /// What factors the matrix. A sweep uses its own.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

impl<T: Real> ImportanceMetric<T> for Obs {
    fn name(&self) -> String {
        "obs".to_owned()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        context: &Context<'a, T>,
    ) -> Result<Prepared<'a, T>> {
        let stats = context.stats;
        let (diagonal, damping) = if let Some(diagonal) = context.factor_diagonal {
            check_features(diagonal.len(), weights.dim())?;
            check_features(stats.sums_of_squares().len(), weights.dim())?;
            (diagonal.to_vec(), None)
        } else {
            let gram = required_gram(stats, "obs", weights.dim())?;
            let factor = gram.factor::<T>(self.backend, self.damping)?;
            (factor.diagonal(), Some(factor.damping().factor()))
        };
        // Scores are scaled by a power of two, so that their squares neither overflow nor vanish:
        // the factors are brought near 1, and then the weights, as far as factors can do that.
        let highest = diagonal.iter().copied().fold(0.0, f64::max);
        let most = inverse_power_of_two(T::min_positive_value().as_f64());
        let scale = inverse_power_of_two(context.largest.as_f64()).min(most);
        let scale = |x: f64| x * inverse_power_of_two(highest) * scale;
        // The weights of dead inputs go first: no output depends on them.
        let energies = stats.sums_of_squares();
        let live = |(x, &energy)| if energy == 0.0 { 0.0 } else { x };
        let diagonal = diagonal.into_iter().zip(energies).map(live);
        let diagonal = diagonal.map(|x| T::from_f64(scale(x))).collect();
        let prepared = Prepared::scorer(ObsScorer { diagonal });
        Ok(match damping {
            Some(damping) => prepared.damped_by(damping),
            None => prepared,
        })
    }
}

struct ObsScorer<T> {
    /// 1 / Uⱼⱼ, scaled.
    diagonal: Vec<T>,
}

impl<T: Real> Scorer<T> for ObsScorer<T> {
    fn score(&self, _: usize, start: usize, weights: &[T], scores: &mut [T]) {
        let factors = self.diagonal.get(start..).unwrap_or(&[]);
        for ((score, &weight), &factor) in scores.iter_mut().zip(weights).zip(factors) {
            let root = weight * factor;
            *score = root * root;
        }
    }
}
