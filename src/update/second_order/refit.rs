//! The best weights on a fixed mask.

use super::finish::finish;
use super::least_squares::LeastSquares;
use super::plain;
use crate::element::Real;
use crate::error::Result;
use crate::linalg::{Backend, Damping};
use crate::matrix::read_all;
use crate::report::Solved;
use crate::stats::gram::required_gram;
use crate::update::{KeepWeights, UpdateTask, Updated, WeightUpdate};

/// The weights that stay get the values that keep the layer's output nearest to what it was.
///
/// The mask is that of another update ([`Refit::after`]), or what the pattern makes of the dense
/// weights, or a [`Mask`](crate::Mask) that is the pattern.
///
/// # Formula
///
/// ```text
/// minimise ‖(W − Ŵ) H^½‖²   over Ŵ that are zero where the mask says so,   H = G + λ
/// ```
///
/// # Algorithm
///
/// Conjugate gradients on the normal equations of all rows at once, preconditioned by the diagonal
/// of H, from the weights that the other update left. If the result is worse than these, they are
/// kept.
///
/// # Errors
///
/// As [`ObsSweep`](crate::ObsSweep), and those of the other update.
///
/// # Complexity
///
/// For an m x n layer and k steps: (k + 2) m n² multiplications with an addition each; four m x n
/// and n x n numbers of memory.
///
/// # Example
///
/// ```
/// use wanda::{Gram, Obs, ObsSweep, Pattern, Pruner, Refit, ndarray::array};
///
/// let mut gram = Gram::new(3);
/// gram.update(&array![[1.0_f32, 1.0, 0.0], [2.0, 2.0, 1.0], [1.0, 1.1, 3.0]])?;
/// let mut w = array![[1.0_f32, 3.0, 2.0]];
/// let update = Refit::after(ObsSweep::new());
/// let report = Pruner::new(Obs::new(), Pattern::PerOutput(0.4)).update(update).prune(&mut w, &gram)?;
/// assert_eq!(report.pruned(), 1);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
/// Models", arXiv 2406.07831, algorithm 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refit<U = KeepWeights> {
    steps: usize,
    damping: Damping,
    keep_zeros: bool,
    backend: Backend,
    after: U,
}

impl Default for Refit {
    fn default() -> Self {
        Self::new()
    }
}

impl Refit {
    /// A refit on the mask of the dense weights: ten steps, a damping of 0.1 of each diagonal entry.
    #[must_use]
    pub fn new() -> Self {
        Self::after(KeepWeights)
    }
}

impl<U> Refit<U> {
    /// A refit of what another update leaves.
    #[must_use]
    pub fn after(update: U) -> Self {
        Self {
            steps: 10,
            damping: Damping::Diagonal(0.1),
            keep_zeros: true,
            backend: Backend::default(),
            after: update,
        }
    }

    /// Steps of conjugate gradients.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// λ, by the mean of the diagonal of G (a number says how much) or by its entries.
    #[must_use]
    pub fn damping(mut self, damping: impl Into<Damping>) -> Self {
        self.damping = damping.into();
        self
    }

    /// Whether weights that are zero before stay zero, as they do unless `false` is given.
    #[must_use]
    pub fn keep_zeros(mut self, keep: bool) -> Self {
        self.keep_zeros = keep;
        self
    }

    /// What computes products.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

impl<T: Real, U: WeightUpdate<T>> WeightUpdate<T> for Refit<U> {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        let gram = required_gram(task.stats, "refit", task.weights.dim())?;
        self.damping.check()?;
        let before = plain::run(task, &self.after, gram)?;
        let mut dense = read_all(task.weights)?;
        let zero = plain::zero_in_the_end(task, &dense, gram, &before.mask, self.keep_zeros)?;
        let problem = LeastSquares::new(gram, self.backend, self.damping, task.largest)?;
        let mut solution: Vec<T> = dense.clone();
        for (weight, &difference) in solution.iter_mut().zip(&before.difference) {
            *weight = *weight - difference;
        }
        problem.scale(&mut solution);
        problem.scale(&mut dense);
        let residual = problem.refit(dense, &mut solution, &zero, self.steps)?;
        problem.unscale(&mut solution);
        drop(problem);
        let mask = before.mask.clone();
        let mut updated = finish(task, gram, solution, mask, &zero)?;
        updated.damping = Some(self.damping.factor());
        updated.solved = Some(Solved::new(self.steps, residual));
        let loss = |updated| plain::loss_of(updated, task, gram, self.damping);
        if loss(&before) < loss(&updated) {
            let solved = updated.solved.map(Solved::discarded);
            return Ok(Some(Updated { solved, ..before }));
        }
        Ok(Some(updated))
    }
}
