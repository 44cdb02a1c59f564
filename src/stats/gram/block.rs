//! Tokens that were seen, but not yet added to the sum.

use std::ops::Range;

use ndarray::{Array2, ArrayRef2, s};
use num_traits::Float;

use crate::element::{Element, Real, widened};
use crate::linalg::{Backend, Panel, PanelMut, Store, add_product, add_to};
use crate::parallel;

/// Tokens of a full block.
///
/// More of them mean fewer passes over the sum, and more memory and a coarser sum within the
/// block: this many make the passes cheap beside the product.
const TOKENS: usize = 2048;

/// Up to [`TOKENS`] tokens, each times the root of its weight.
#[derive(Debug, Clone)]
pub(crate) struct Block<T> {
    features: usize,
    /// Features x [`TOKENS`]: the common dimension of the product is contiguous, as products are
    /// fastest. Empty as long as no token came.
    values: Vec<T>,
    tokens: usize,
    /// The largest magnitude of each feature's values.
    largest: Vec<T>,
}

impl<T: Real> Block<T> {
    pub(super) fn new(features: usize) -> Self {
        Self {
            features,
            values: Vec::new(),
            tokens: 0,
            largest: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// How many tokens may still be pushed.
    pub(super) fn room(&self) -> usize {
        TOKENS - self.tokens
    }

    pub(super) fn clear(&mut self) {
        self.tokens = 0;
        self.largest.fill(T::zero());
    }

    /// Adds some tokens of a batch, each times a factor. There is room for them.
    pub(super) fn push<A: Element<Compute = T>>(
        &mut self,
        batch: &ArrayRef2<A>,
        tokens: &[(usize, f64)],
    ) {
        self.values.resize(self.features * TOKENS, T::zero());
        let first = self.tokens;
        self.largest.resize(self.features, T::zero());
        let strips = self
            .values
            .chunks_mut(STRIP * TOKENS)
            .zip(self.largest.chunks_mut(STRIP))
            .enumerate();
        parallel::map(
            strips.collect(),
            || (vec![[T::zero(); TILE]; STRIP], Vec::new()),
            |(tile, buffer), (i, (values, largest)): (usize, (&mut [T], &mut [T]))| {
                let features = i * STRIP..i * STRIP + largest.len();
                let strip = batch.slice(s![.., features]);
                for (j, tokens) in tokens.chunks(TILE).enumerate() {
                    read_turned::<A>(&strip, tokens, tile, largest, buffer);
                    write_turned(tile, tokens.len(), values, first + j * TILE);
                }
            },
        );
        self.tokens += tokens.len();
    }

    /// Adds some columns of the product of the features with each other, in the rows from
    /// `columns.start` on, to `sums`. `product` is memory to work in.
    pub(super) fn add_product(
        &self,
        backend: Backend,
        columns: &Range<usize>,
        sums: &mut [f64],
        product: &mut Vec<T>,
    ) {
        let tokens = 0..self.tokens;
        if self.fits() {
            let values = Panel::new(&self.values, TOKENS).columns_of(tokens);
            add_product(backend, sums, values, columns, product);
        } else {
            let values: Vec<f64> = self.values.iter().map(|x| x.as_f64()).collect();
            let values = Panel::new(&values, TOKENS).columns_of(tokens);
            add_product(backend, sums, values, columns, &mut Vec::new());
        }
    }

    /// Adds the product of these features with those of a block of the same tokens, which has so
    /// many columns, to `sums`.
    pub(super) fn add_cross_product(
        &self,
        backend: Backend,
        other: &Self,
        sums: &mut [f64],
        columns: usize,
    ) {
        let (y, x) = (&self.values, &other.values);
        if self.fits() && other.fits() {
            add_cross(backend, y, x, self.tokens, sums, columns);
        } else {
            let [y, x] = [y, x].map(|run| run.iter().map(|x| x.as_f64()).collect::<Vec<_>>());
            add_cross(backend, &y, &x, self.tokens, sums, columns);
        }
    }

    /// Whether no sum of products overflows, and none of a feature with itself loses digits because
    /// its terms are too small.
    fn fits(&self) -> bool {
        let most = T::max_value().as_f64().sqrt() / TOKENS as f64;
        let least = (T::min_positive_value() / T::epsilon()).as_f64().sqrt();
        let mut largest = self.largest.iter().map(|x| x.as_f64());
        largest.all(|x| x == 0.0 || (least..most).contains(&x))
    }

    /// A block that holds these tokens, row-major; `None` if they are not whole, too many or not
    /// finite.
    #[cfg(any(feature = "serde", feature = "safetensors"))]
    pub(super) fn from_tokens(features: usize, tokens: Vec<T>) -> Option<Self> {
        if tokens.is_empty() {
            return Some(Self::new(features));
        }
        let count = tokens.len() / features.max(1);
        let finite = tokens.iter().all(|x| x.is_finite());
        let batch = Array2::from_shape_vec((count, features), tokens).ok()?;
        let mut block = Self::new(features);
        if !finite || count >= TOKENS {
            return None;
        }
        let all: Vec<_> = (0..count).map(|token| (token, 1.0)).collect();
        block.push(&batch, &all);
        Some(block)
    }

    /// The tokens as a batch, [tokens, features]; `None` if there are none.
    pub(super) fn to_batch(&self) -> Option<Array2<T>> {
        let shape = (self.tokens, self.features);
        let batch = (!self.is_empty()).then(|| Array2::from_shape_vec(shape, self.to_tokens()));
        batch?.ok()
    }

    /// Adds the squares of all tokens to the sums of the features.
    #[cfg(any(feature = "serde", feature = "safetensors"))]
    pub(super) fn add_squares(&self, sums: &mut [f64]) {
        for (sum, values) in sums.iter_mut().zip(self.values.chunks_exact(TOKENS)) {
            let tokens = &values[..self.tokens];
            *sum += tokens.iter().map(|x| x.as_f64().powi(2)).sum::<f64>();
        }
    }

    /// The tokens one after the other.
    pub(super) fn to_tokens(&self) -> Vec<T> {
        let mut tokens = Vec::with_capacity(self.tokens * self.features.min(self.values.len()));
        for token in 0..self.tokens {
            tokens.extend(self.values.iter().skip(token).step_by(TOKENS));
        }
        tokens
    }

    /// All tokens, as [`push`](Self::push) takes them.
    pub(super) fn all(&self) -> Vec<(usize, f64)> {
        (0..self.tokens).map(|token| (token, 1.0)).collect()
    }
}

/// Adds `Y · Xᵀ` of so many tokens to sums, some rows at a time.
fn add_cross<T: Real>(
    backend: Backend,
    y: &[T],
    x: &[T],
    tokens: usize,
    sums: &mut [f64],
    columns: usize,
) {
    /// Rows whose product is computed together.
    const ROWS: usize = 192;
    let [y, x] = [y, x].map(|run| Panel::new(run, TOKENS).columns_of(0..tokens));
    let mut product = vec![T::zero(); ROWS * columns];
    for (i, sums) in sums.chunks_mut(ROWS * columns).enumerate() {
        let rows = i * ROWS..i * ROWS + sums.len() / columns;
        let product = &mut product[..sums.len()];
        backend.operations::<T>().product_with_transposed(
            Store::Replace,
            PanelMut::new(product, columns),
            y.rows_of(rows),
            x,
        );
        add_to(sums, product);
    }
}

/// Blocks are equal that hold the same tokens, whatever is left of earlier ones.
impl<T: Real> PartialEq for Block<T> {
    fn eq(&self, other: &Self) -> bool {
        self.features == other.features && self.to_tokens() == other.to_tokens()
    }
}

/// Features that one worker copies: a few lines of the cache.
const STRIP: usize = 64;
/// Tokens that are turned at a time: a line of the cache for each feature.
const TILE: usize = 16;

/// Reads some tokens of a strip of a batch, each times its factor, a feature a row of `tile`, and
/// raises `largest` to the largest magnitude of each feature.
fn read_turned<A: Element>(
    strip: &ArrayRef2<A>,
    tokens: &[(usize, f64)],
    tile: &mut [[A::Compute; TILE]],
    largest: &mut [A::Compute],
    buffer: &mut Vec<A::Compute>,
) {
    for (t, &(token, factor)) in tokens.iter().enumerate() {
        let factor = A::Compute::from_f64(factor);
        let run = widened::<A>(&strip.row(token), buffer);
        for (values, &x) in tile.iter_mut().zip(run) {
            values[t] = x * factor;
        }
        for (largest, &x) in largest.iter_mut().zip(run) {
            let x = (x * factor).abs();
            *largest = if x > *largest { x } else { *largest };
        }
    }
}

/// Writes `tokens` tokens of a tile to each feature of `values`, from token `first` on.
fn write_turned<T: Real>(tile: &[[T; TILE]], tokens: usize, values: &mut [T], first: usize) {
    for (values, tile) in values.chunks_exact_mut(TOKENS).zip(tile) {
        // A copy of known length is a few instructions, any other a call.
        if let (TILE, Some(values)) = (tokens, values[first..].first_chunk_mut()) {
            *values = *tile;
        } else {
            values[first..first + tokens].copy_from_slice(&tile[..tokens]);
        }
    }
}
