//! Products of two streams of tokens: what the dense model wants from a layer.

use std::marker::PhantomData;

use ndarray::{Array2, ArrayRef2};

use super::block::Block;
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::linalg::Backend;
use crate::matrix::zeros;
use crate::number::{Family, RealNumber};
use crate::stats::{ActivationStats, ColumnNorms};

/// `YᵀX` of two streams Y and X that belong together token by token, gathered batch by batch.
///
/// With X the inputs of a layer in a pruned model, Y tells what the layer should make of them: the
/// inputs of the same layer in the dense model, or the outputs that are wanted. See
/// [`Target`](crate::Target).
///
/// # Formula
///
/// ```text
/// Pᵢⱼ = Σₜ aₜ yₜᵢ xₜⱼ       aₜ the weight of token t, 1 unless given
/// ```
///
/// # Accuracy
///
/// As [`Gram`](crate::Gram): blocks of 2048 tokens are computed in `f32` (`f64` for `f64` streams, and
/// where `f32` does not suffice) and added up in `f64`. The result has the same bits however the
/// tokens are cut into batches.
///
/// # Complexity
///
/// For streams of p and n features: p n multiplications with an addition each a token; 8 p n bytes
/// for the sums and 2048 (p + n) numbers for the tokens of the block in the making.
///
/// # Example
///
/// ```
/// use wanda::{CrossProducts, ndarray::array};
///
/// let mut products = CrossProducts::new(1, 2);
/// products.update(&array![[2.0_f32], [1.0]], &array![[3.0, 1.0], [4.0, 0.0]])?;
/// assert_eq!(products.to_array()?, array![[10.0, 2.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CrossProducts {
    /// What is known of each stream alone: shapes, tokens, and that all values are finite.
    norms: [ColumnNorms; 2],
    /// Row-major. Empty until a block is full.
    sums: Vec<f64>,
    pending_f32: Pair<f32>,
    pending_f64: Pair<f64>,
    backend: Backend,
}

/// The tokens of both streams that wait for their block to fill.
#[derive(Debug, Clone)]
struct Pair<T> {
    y: Block<T>,
    x: Block<T>,
}

impl<T: Real> PartialEq for Pair<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.y, &self.x) == (&other.y, &other.x)
    }
}

impl<T: Real> Pair<T> {
    fn new(outputs: usize, inputs: usize) -> Self {
        Self {
            y: Block::new(outputs),
            x: Block::new(inputs),
        }
    }
}

/// The pair of blocks of each type.
struct PairOf<'a>(PhantomData<&'a ()>);

impl<'a> Family for PairOf<'a> {
    type Of<T: 'static> = &'a mut Pair<T>;
}

impl CrossProducts {
    /// Products of streams of so many features, Y first, that have seen nothing yet.
    #[must_use]
    pub fn new(outputs: usize, inputs: usize) -> Self {
        Self {
            norms: [outputs, inputs].map(ColumnNorms::new),
            sums: Vec::new(),
            pending_f32: Pair::new(outputs, inputs),
            pending_f64: Pair::new(outputs, inputs),
            backend: Backend::default(),
        }
    }

    /// What computes products from now on.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Features of Y and of X.
    #[must_use]
    pub fn dim(&self) -> (usize, usize) {
        let [y, x] = &self.norms;
        (y.features(), x.features())
    }

    /// Tokens seen, not counting those of weight 0.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.norms[1].tokens()
    }

    /// Adds a batch of both streams, [tokens, features] each, of the same tokens.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`] for either stream, [`Error::TokenWeightCount`] if they have
    /// different numbers of tokens, [`Error::TooLarge`] if there is no memory for the sums. After an
    /// error the products are as before.
    pub fn update<A: Element>(&mut self, y: &ArrayRef2<A>, x: &ArrayRef2<A>) -> Result<()> {
        let weights = vec![1.0; x.nrows()];
        self.update_weighted(y, x, &weights)
    }

    /// Adds a batch of both streams, of which token `t` counts `token_weights[t]` times.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and as [`ColumnNorms::update_weighted`] of the weights. After an
    /// error the products are as before.
    pub fn update_weighted<A: Element>(
        &mut self,
        y: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()> {
        let mut norms = self.norms.clone();
        for (norms, batch) in norms.iter_mut().zip([y, x]) {
            norms.update_weighted(batch, token_weights)?;
        }
        self.allocate()?;
        self.norms = norms;
        let tokens = token_weights.iter().map(|&weight| f64::from(weight).sqrt());
        let tokens: Vec<_> = tokens
            .enumerate()
            .filter(|&(_, root)| root != 0.0)
            .collect();
        self.push(y, x, &tokens);
        Ok(())
    }

    /// Adds what other products of the same streams have seen. The backend stays.
    ///
    /// # Errors
    ///
    /// [`Error::MergeFeatures`] if they are of other streams, [`Error::TooLarge`] if there is no
    /// memory. After an error the products are as before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let mut norms = self.norms.clone();
        for (norms, other) in norms.iter_mut().zip(&other.norms) {
            norms.merge(other)?;
        }
        self.allocate()?;
        self.norms = norms;
        for (sum, x) in self.sums.iter_mut().zip(&other.sums) {
            *sum += x;
        }
        self.push_pair(&other.pending_f32);
        self.push_pair(&other.pending_f64);
        Ok(())
    }

    /// `YᵀX`, features of Y x features of X.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if there is no memory for it.
    pub fn to_array(&self) -> Result<Array2<f64>> {
        let (rows, columns) = self.dim();
        let mut sums = zeros(rows, columns)?;
        for (out, &sum) in sums.iter_mut().zip(&self.sums) {
            *out = sum;
        }
        add_pair(self.backend, &self.pending_f32, &mut sums, columns);
        add_pair(self.backend, &self.pending_f64, &mut sums, columns);
        Array2::from_shape_vec((rows, columns), sums).map_err(|_| Error::TooLarge { rows, columns })
    }

    fn allocate(&mut self) -> Result<()> {
        if self.sums.is_empty() {
            let (rows, columns) = self.dim();
            self.sums = zeros(rows, columns)?;
        }
        Ok(())
    }

    fn push_pair<T: Real>(&mut self, pair: &Pair<T>) {
        if let (Some(y), Some(x)) = (pair.y.to_batch(), pair.x.to_batch()) {
            self.push(&y, &x, &pair.x.all());
        }
    }

    /// Adds tokens to the blocks of their type, and the product of these to the sums when they are
    /// full.
    fn push<A: Element>(
        &mut self,
        y: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        mut tokens: &[(usize, f64)],
    ) {
        let columns = self.dim().1;
        let pair = A::Compute::pick::<PairOf<'_>>(&mut self.pending_f32, &mut self.pending_f64);
        while !tokens.is_empty() {
            let (now, later) = tokens.split_at(tokens.len().min(pair.x.room()));
            pair.y.push(y, now);
            pair.x.push(x, now);
            if pair.x.room() == 0 {
                add_pair(self.backend, pair, &mut self.sums, columns);
                pair.y.clear();
                pair.x.clear();
            }
            tokens = later;
        }
    }
}

/// Adds the product of the tokens that wait to the sums of so many columns.
fn add_pair<T: Real>(backend: Backend, pair: &Pair<T>, sums: &mut [f64], columns: usize) {
    if !pair.x.is_empty() {
        pair.y.add_cross_product(backend, &pair.x, sums, columns);
    }
}
