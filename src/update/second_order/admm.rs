//! Mask and weights together: the alternating direction method of multipliers.

use super::finish::finish;
use super::least_squares::LeastSquares;
use super::plain::{Plain, union};
use super::zeroed::zeroed;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::linalg::{Backend, Damping};
use crate::mask::{Mask, is_set};
use crate::matrix::{Rows, check_bounds, read_all, zeros};
use crate::report::Solved;
use crate::scores::Scoring;
use crate::stats::ActivationStats;
use crate::stats::gram::required_gram;
use crate::update::{UpdateTask, Updated, WeightUpdate};

/// Mask and weights are sought together, so that the layer's output stays nearest to what it was:
/// the joint solver.
///
/// Metric and pattern are asked for the mask of every iterate, so it goes with all of them. With
/// [`Wanda`](crate::Wanda) the score of an iterate is what the alternating direction method itself
/// would rank by.
///
/// # Formula
///
/// ```text
/// minimise ‖(W − Ŵ) H^½‖²   over Ŵ that have the pattern,   H = G + λ
/// ```
///
/// # Algorithm
///
/// ```text
/// e = √diag H;  C = H / (e eᵀ);  Y = (W e) C;  A = (C + ρI)⁻¹
/// m = what the pattern keeps of W;  T = W e on m, 0 elsewhere
/// repeat:  B = (Y + ρ (T on m, −T elsewhere)) A
///          T = α B + (1 − α) T on m;  T = α B + T elsewhere
///          m = what the pattern keeps of T / e
/// Ŵ = T / e on m, refitted
/// ```
///
/// With several stages ρ grows from one to the next, and T outside m is multiplied by the old ρ over
/// the new. If the result is worse than the dense weights on the pattern's first mask, these are
/// kept, and the report says so.
///
/// # Errors
///
/// As [`ObsSweep`](crate::ObsSweep); [`Error::InvalidDamping`] also for a penalty or a relaxation
/// that is not positive and finite.
///
/// # Complexity
///
/// For an m x n layer, k iterations and r steps of the refit: (k + r + 3) m n² + n³ multiplications
/// with an addition each for one stage; four m x n and three n x n numbers of memory.
///
/// # Example
///
/// ```
/// use wanda::{Admm, Gram, Pattern, Pruner, Wanda, ndarray::array};
///
/// let mut gram = Gram::new(3);
/// gram.update(&array![[1.0_f32, 1.0, 0.0], [2.0, 2.0, 1.0], [1.0, 1.1, 3.0]])?;
/// let mut w = array![[1.0_f32, 3.0, 2.0]];
/// let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.4)).update(Admm::new());
/// let report = pruner.prune(&mut w, &gram)?;
/// assert_eq!(report.pruned(), 1);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Boža, "Fast and Effective Weight Update for Pruned Large Language Models", arXiv 2401.02938; Meng
/// et al., "ALPS", arXiv 2406.07831. Here the penalty is fixed, the inverse made once, and iterates
/// are over-relaxed.
#[derive(Debug, Clone, PartialEq)]
pub struct Admm {
    /// Penalty ρ and iterations of each stage.
    stages: Vec<(f64, usize)>,
    relaxation: f64,
    refit_steps: usize,
    damping: Damping,
    keep_zeros: bool,
    backend: Backend,
}

impl Default for Admm {
    fn default() -> Self {
        Self::new()
    }
}

impl Admm {
    /// One stage of six iterations with a penalty of 0.5, a relaxation of 1.3, five steps of the
    /// refit, and a damping of 0.1 of each diagonal entry.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stages: vec![(0.5, 6)],
            relaxation: 1.3,
            refit_steps: 5,
            damping: Damping::Diagonal(0.1),
            keep_zeros: true,
            backend: Backend::default(),
        }
    }

    /// Penalties ρ, and how many iterations are made with each, in turn.
    #[must_use]
    pub fn stages(mut self, stages: &[(f64, usize)]) -> Self {
        self.stages = stages.to_vec();
        self
    }

    /// α, how far an iterate goes beyond the last: 1 for no further than the method says.
    #[must_use]
    pub fn relaxation(mut self, relaxation: f64) -> Self {
        self.relaxation = relaxation;
        self
    }

    /// Steps of conjugate gradients on the last mask.
    #[must_use]
    pub fn refit_steps(mut self, steps: usize) -> Self {
        self.refit_steps = steps;
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

    /// What computes products and the inverse.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    fn check(&self) -> Result<()> {
        self.damping.check()?;
        let penalties = self.stages.iter().map(|&(penalty, _)| penalty);
        for value in penalties.chain([self.relaxation]) {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::InvalidDamping { damping: value });
            }
        }
        Ok(())
    }
}

impl<T: Real> WeightUpdate<T> for Admm {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        self.check()?;
        let gram = required_gram(task.stats, "joint solver", task.weights.dim())?;
        let plain = Plain::of(task, gram, self.damping)?;
        let dense = read_all(task.weights)?;
        let dead = gram.sums_of_squares().iter().map(|&energy| energy == 0.0);
        let zeroed = zeroed(task, &dense, &dead.collect::<Vec<_>>(), self.keep_zeros)?;
        let problem = LeastSquares::new(gram, self.backend, self.damping, task.largest)?;
        let prepared = task.prepare(None)?;
        let solver = Solver {
            task,
            problem: &problem,
            scoring: task.scoring(&prepared).zeroed(zeroed.as_ref()),
            zeroed: zeroed.as_ref(),
            relaxation: T::from_f64(self.relaxation),
        };
        let first = union(&plain.mask, zeroed.as_ref());
        let (mut iterate, mask) = solver.solve(dense, plain.mask.clone(), first, &self.stages)?;
        let zero = union(&mask, zeroed.as_ref());
        let mut wanted = read_all(task.weights)?;
        problem.scale(&mut wanted);
        let residual = problem.refit(wanted, &mut iterate, &zero, self.refit_steps)?;
        problem.unscale(&mut iterate);
        drop(problem);
        let mut updated = finish(task, gram, iterate, mask, &zero)?;
        let iterations: usize = self.stages.iter().map(|&(_, iterations)| iterations).sum();
        updated.damping = Some(self.damping.factor());
        updated.solved = Some(Solved::new(iterations + self.refit_steps, residual));
        if plain.is_better_than(&updated, task, gram, self.damping) {
            let discarded = updated.solved.map(Solved::discarded);
            updated = plain.into_updated(task)?;
            updated.solved = discarded;
        }
        Ok(Some(updated))
    }
}

/// What stays the same from iterate to iterate.
struct Solver<'a, T: Real> {
    task: &'a UpdateTask<'a, T>,
    problem: &'a LeastSquares<T>,
    scoring: Scoring<'a, T>,
    zeroed: Option<&'a Mask>,
    relaxation: T,
}

impl<T: Real> Solver<'_, T> {
    /// From the dense weights, a mask of these, and what is zero besides, to the last iterate,
    /// scaled, and its mask.
    fn solve(
        &self,
        dense: Vec<T>,
        mut mask: Mask,
        mut zero: Mask,
        stages: &[(f64, usize)],
    ) -> Result<(Vec<T>, Mask)> {
        let (rows, columns) = self.task.weights.dim();
        let mut iterate = dense;
        self.problem.scale(&mut iterate);
        let mut wanted = zeros(rows, columns)?;
        self.problem.multiply(&mut wanted, &iterate);
        self.problem.for_each_row(&mut iterate, |row, run| {
            let words = zero.row_words(row);
            for (j, x) in run.iter_mut().enumerate() {
                *x = if is_set(words, j) { T::zero() } else { *x };
            }
        });
        let (mut sum, mut best) = (zeros(rows, columns)?, zeros(rows, columns)?);
        let mut last: Option<T> = None;
        for &(penalty, iterations) in stages {
            let penalty = T::from_f64(penalty);
            if let Some(last) = last {
                self.scale_pruned(&mut iterate, &zero, last / penalty);
            }
            last = Some(penalty);
            let inverse = self.problem.inverse(penalty)?;
            for _ in 0..iterations {
                self.add_penalty(&mut sum, &wanted, &iterate, &zero, penalty);
                self.problem.multiply_by(&inverse, &mut best, &sum);
                self.relax(&mut iterate, &best, &zero);
                mask = self.project(&iterate)?;
                zero = union(&mask, self.zeroed);
            }
        }
        Ok((iterate, mask))
    }

    /// `sum = Y + ρ (T on m, −T elsewhere)`
    fn add_penalty(&self, sum: &mut [T], wanted: &[T], iterate: &[T], zero: &Mask, penalty: T) {
        let n = self.problem.inputs();
        self.problem.for_each_row(sum, |row, sum| {
            let words = zero.row_words(row);
            let (wanted, iterate) = (&wanted[row * n..], &iterate[row * n..]);
            for (j, (sum, (&y, &t))) in sum.iter_mut().zip(wanted.iter().zip(iterate)).enumerate() {
                let signed = if is_set(words, j) { -t } else { t };
                *sum = y + penalty * signed;
            }
        });
    }

    /// `T = α B + (1 − α) T on m;  T = α B + T elsewhere`
    fn relax(&self, iterate: &mut [T], best: &[T], zero: &Mask) {
        let n = self.problem.inputs();
        let relaxation = self.relaxation;
        self.problem.for_each_row(iterate, |row, iterate| {
            let words = zero.row_words(row);
            for (j, (t, &b)) in iterate.iter_mut().zip(&best[row * n..]).enumerate() {
                let kept = if is_set(words, j) {
                    T::one()
                } else {
                    T::one() - relaxation
                };
                *t = relaxation * b + kept * *t;
            }
        });
    }

    fn scale_pruned(&self, iterate: &mut [T], zero: &Mask, factor: T) {
        self.problem.for_each_row(iterate, |row, run| {
            let words = zero.row_words(row);
            for (j, t) in run.iter_mut().enumerate() {
                *t = if is_set(words, j) { *t * factor } else { *t };
            }
        });
    }

    /// Asks metric and pattern what goes of an iterate.
    fn project(&self, iterate: &[T]) -> Result<Mask> {
        let scores = IterateScores {
            dim: self.task.weights.dim(),
            iterate,
            scales: &self.problem.scales,
            scoring: self.scoring,
        };
        self.task.project(&scores, 0..scores.dim.1)
    }
}

/// The scores of an iterate, which is scaled back while it is read.
struct IterateScores<'a, T: Real> {
    dim: (usize, usize),
    iterate: &'a [T],
    scales: &'a [T],
    scoring: Scoring<'a, T>,
}

impl<T: Real> Rows<T> for IterateScores<'_, T> {
    fn dim(&self) -> (usize, usize) {
        self.dim
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        check_bounds(self.dim, row, start, out.len())?;
        let run = &self.iterate[row * self.dim.1 + start..][..out.len()];
        let scales = &self.scales[start..][..out.len()];
        let weights: Vec<T> = run
            .iter()
            .zip(scales)
            .map(|(&t, &scale)| t / scale)
            .collect();
        self.scoring.score(row, start, &weights, out)
    }
}
