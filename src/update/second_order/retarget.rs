//! Pruning toward the dense model: the weights that best give what it wants from a layer.

use ndarray::{Array2, ArrayView2};

use super::plain;
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::kernels;
use crate::linalg::{Backend, Damping};
use crate::matrix::read_all;
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::gram::{CrossProducts, Gram, required_gram};
use crate::update::{KeepWeights, UpdateTask, Updated, WeightUpdate};

/// What a layer should give on the inputs that calibration saw, which the pruning of earlier layers
/// has changed: as a rule, what it gives in the dense model.
///
/// # Formula
///
/// ```text
/// E = Σₜ (yₜ − W xₜ) xₜᵀ           what is wanted beyond what the layer gives, times its input
/// inputs        yₜ = W xₜ + β W (dₜ − xₜ)        E = β W (DᵀX − XᵀX)     dₜ the dense model's input
/// outputs       yₜ = W xₜ + β (oₜ − W xₜ)        E = β (OᵀX − W XᵀX)     oₜ the output that is wanted
/// differences   yₜ = W xₜ + γ rₜ                 E = γ RᵀX               rₜ what the output lacks
/// ```
///
/// Several add up. β and γ say how far to go: with 1 few calibration tokens are overfitted.
#[derive(Debug, Clone, Default)]
pub struct Target<'a> {
    terms: Vec<Term<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Term<'a> {
    kind: Kind,
    products: &'a CrossProducts,
    strength: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inputs,
    Outputs,
    Differences,
}

impl<'a> Target<'a> {
    /// The layer should make of its inputs what the dense weights make of the dense model's inputs.
    /// `products` are those of the dense model's inputs with the layer's, n x n.
    #[must_use]
    pub fn inputs(products: &'a CrossProducts, strength: f64) -> Self {
        Self::default().plus(Kind::Inputs, products, strength)
    }

    /// The layer should give certain outputs. `products` are those of these with the inputs, m x n.
    #[must_use]
    pub fn outputs(products: &'a CrossProducts, strength: f64) -> Self {
        Self::default().plus(Kind::Outputs, products, strength)
    }

    /// The outputs of the layer lack something. `products` are those of what is lacking with the
    /// inputs, m x n.
    #[must_use]
    pub fn and_differences(self, products: &'a CrossProducts, strength: f64) -> Self {
        self.plus(Kind::Differences, products, strength)
    }

    fn plus(mut self, kind: Kind, products: &'a CrossProducts, strength: f64) -> Self {
        self.terms.push(Term {
            kind,
            products,
            strength,
        });
        self
    }

    /// E, for a layer of these weights.
    fn error<T: Real>(
        &self,
        weights: &Array2<T>,
        gram: &Gram,
        backend: Backend,
    ) -> Result<Array2<T>> {
        let (rows, columns) = weights.dim();
        let mut error = Array2::zeros((rows, columns));
        for term in &self.terms {
            let expected = match term.kind {
                Kind::Inputs => (columns, columns),
                Kind::Outputs | Kind::Differences => (rows, columns),
            };
            if term.products.dim() != expected {
                return Err(Error::UpdateShape {
                    weights: expected,
                    update: term.products.dim(),
                });
            }
            if !term.strength.is_finite() {
                return Err(Error::InvalidDamping {
                    damping: term.strength,
                });
            }
            let strength = T::from_f64(term.strength);
            let mut products = term.products.to_array()?;
            match term.kind {
                Kind::Inputs => {
                    // One product does for both streams.
                    gram.subtract_from(&mut products);
                    let change = products.mapv(T::from_f64);
                    drop(products);
                    let mut wanted = Array2::zeros((rows, columns));
                    backend.multiply(&mut wanted, weights, &change);
                    error.scaled_add(strength, &wanted);
                }
                Kind::Outputs => {
                    let own = gram.multiply(weights)?;
                    for ((error, &wanted), &own) in error.iter_mut().zip(&products).zip(&own) {
                        *error = *error + strength * (T::from_f64(wanted) - own);
                    }
                }
                Kind::Differences => {
                    for (error, &lacking) in error.iter_mut().zip(&products) {
                        *error = *error + strength * T::from_f64(lacking);
                    }
                }
            }
        }
        Ok(error)
    }
}

/// Before metric, pattern and another update are asked, the layer becomes the dense weights that
/// best give the target.
///
/// It goes with every metric and pattern, and with every update ([`then`](Self::then)). With
/// [`KeepWeights`], the default, what stays is the retargeted weight. The report has the error
/// against the layer's own dense output, and against the target
/// ([`LayerReport::target_error`](crate::LayerReport::target_error)).
///
/// # Formula
///
/// ```text
/// W' = W + E (G + λ)⁻¹        E that of the Target
/// ```
///
/// # Errors
///
/// As [`ObsSweep`](crate::ObsSweep), those of the other update, and [`Error::UpdateShape`] for a
/// target of another layer.
///
/// # Complexity
///
/// For an m x n layer: 2 m n² + n³/6 multiplications with an addition each, and m n² more for a
/// target of inputs; three m x n and two n x n numbers of memory. A factor that the update damps
/// alike is made once.
///
/// # Example
///
/// ```
/// use wanda::{CrossProducts, Gram, Magnitude, Pattern, Pruner, Retarget, Target, ndarray::array};
///
/// let dense_inputs = array![[1.0_f32, 1.0], [2.0, 0.0], [0.0, 1.0]];
/// let inputs = array![[0.9_f32, 1.0], [1.8, 0.0], [0.0, 1.0]];
/// let mut gram = Gram::new(2);
/// gram.update(&inputs)?;
/// let mut products = CrossProducts::new(2, 2);
/// products.update(&dense_inputs, &inputs)?;
///
/// let mut w = array![[1.0_f32, 0.1]];
/// let retarget = Retarget::to(Target::inputs(&products, 1.0)).damping(0.0);
/// Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(retarget).prune(&mut w, &gram)?;
/// // The first input is smaller by a tenth than in the dense model.
/// assert!((w[[0, 0]] - 1.0 / 0.9).abs() < 1e-5);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Retarget<'a, U = KeepWeights> {
    target: Target<'a>,
    damping: Damping,
    keep_zeros: bool,
    backend: Backend,
    update: U,
}

impl<'a> Retarget<'a> {
    /// Toward a target, with a damping of 0.1 of each diagonal entry.
    #[must_use]
    pub fn to(target: Target<'a>) -> Self {
        Self {
            target,
            damping: Damping::Diagonal(0.1),
            keep_zeros: true,
            backend: Backend::default(),
            update: KeepWeights,
        }
    }

    /// What happens to the retargeted weights.
    #[must_use]
    pub fn then<U>(self, update: U) -> Retarget<'a, U> {
        Retarget {
            target: self.target,
            damping: self.damping,
            keep_zeros: self.keep_zeros,
            backend: self.backend,
            update,
        }
    }
}

impl<U> Retarget<'_, U> {
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

    /// What computes products and the factor.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// The weights that best give the target.
    fn retargeted<T: Real>(
        &self,
        task: &UpdateTask<'_, T>,
        dense: &Array2<T>,
        gram: &Gram,
    ) -> Result<Array2<T>> {
        let factor = task.factor(gram, self.backend, self.damping)?;
        let mut weights = self.target.error(dense, gram, self.backend)?;
        factor.solve(&mut weights)?;
        for ((row, column), weight) in weights.indexed_iter_mut() {
            let dense = dense[[row, column]];
            *weight = if self.keep_zeros && dense.is_zero() {
                T::zero()
            } else {
                dense + *weight
            };
            if !weight.is_finite() {
                return Err(Error::Overflow {
                    row,
                    column,
                    value: weight.as_f64(),
                });
            }
        }
        Ok(weights)
    }
}

impl<T: Real, U: WeightUpdate<T>> WeightUpdate<T> for Retarget<'_, U> {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        let (rows, columns) = task.weights.dim();
        let gram = required_gram(task.stats, "retargeting", (rows, columns))?;
        let dense = Array2::from_shape_vec((rows, columns), read_all(task.weights)?)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        let weights = self.retargeted(task, &dense, gram)?;
        let largest = weights.as_slice().map_or(T::zero(), kernels::largest);
        let weights_of_task: ArrayView2<'_, T> = weights.view();
        let retargeted = UpdateTask {
            weights: &weights_of_task,
            largest,
            ..*task
        };
        let mut updated = plain::run(&retargeted, &self.update, gram)?;
        // What is zero now is subtracted from the dense weights whole.
        for ((difference, &weight), &dense) in
            updated.difference.iter_mut().zip(&weights).zip(&dense)
        {
            let mut stored = [weight - *difference];
            if let Some(round) = task.round {
                round(&mut stored);
            }
            *difference = dense - stored[0];
        }
        updated.target_error = updated.relative_error;
        updated.relative_error = {
            let scale = inverse_power_of_two(task.largest.as_f64());
            let energy =
                |weights: &Array2<T>| gram.energy(weights.as_slice().unwrap_or(&[]), scale);
            let (lost, total) = (energy(&updated.difference), energy(&dense));
            RelativeError::new(lost, total, ErrorBasis::Gram)
        };
        Ok(Some(updated))
    }
}
