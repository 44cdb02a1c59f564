//! Tokens that were seen, but not yet added to the sum.

use std::ops::Range;

use ndarray::{Array2, ArrayRef2, s};

use crate::element::{Element, Real, widen_row};
use crate::linalg::{Backend, Panel, add_product};
use crate::{kernels, parallel};

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
    /// The largest magnitude of a value.
    largest: T,
}

impl<T: Real> Block<T> {
    pub(super) fn new(features: usize) -> Self {
        Self {
            features,
            values: Vec::new(),
            tokens: 0,
            largest: T::zero(),
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
        self.largest = T::zero();
    }

    /// Adds some tokens of a batch, each times a factor. There is room for them.
    pub(super) fn push<A: Element<Compute = T>>(
        &mut self,
        batch: &ArrayRef2<A>,
        tokens: &[(usize, f64)],
    ) {
        self.values.resize(self.features * TOKENS, T::zero());
        let first = self.tokens;
        let strips = self.values.chunks_mut(STRIP * TOKENS).enumerate().collect();
        let largest = parallel::map(
            strips,
            || vec![T::zero(); STRIP * TILE],
            |tile, (i, values): (usize, &mut [T])| {
                let features = i * STRIP..i * STRIP + values.len() / TOKENS;
                let strip = batch.slice(s![.., features]);
                let mut largest = T::zero();
                for (j, tokens) in tokens.chunks(TILE).enumerate() {
                    let tile = read_tile(&strip, tokens, tile);
                    largest = largest.max(kernels::largest(tile));
                    write_turned(tile, tokens.len(), values, first + j * TILE);
                }
                largest
            },
        );
        self.largest = self.largest.max(kernels::largest(&largest));
        self.tokens += tokens.len();
    }

    /// Adds the rows `rows` of the product of the features with each other, as many columns as
    /// `rows.end`, to `sums`. What lies above the diagonal may be anything.
    pub(super) fn add_product(
        &self,
        backend: Backend,
        rows: &Range<usize>,
        sums: &mut [f64],
        product: &mut Vec<T>,
    ) {
        let tokens = 0..self.tokens;
        if self.fits() {
            let values = Panel::new(&self.values, TOKENS).part(0..self.features, tokens);
            add_product(backend, sums, values, rows, product);
        } else {
            let values = &self.values[..rows.end * TOKENS];
            let wide: Vec<f64> = values.iter().map(|x| x.as_f64()).collect();
            let wide = Panel::new(&wide, TOKENS).part(0..rows.end, tokens);
            add_product(backend, sums, wide, rows, &mut Vec::new());
        }
    }

    /// Whether no sum of products of two features overflows, nor all of them vanish.
    fn fits(&self) -> bool {
        let largest = self.largest.as_f64();
        largest < T::max_value().as_f64().sqrt() / TOKENS as f64
            && largest > T::min_positive_value().as_f64().powf(0.25)
    }

    /// A block that holds these tokens, row-major; `None` if they are not whole, too many or not
    /// finite.
    #[cfg(feature = "serde")]
    pub(super) fn from_tokens(features: usize, tokens: Vec<T>) -> Option<Self> {
        let count = tokens.len() / features.max(1);
        let finite = tokens.iter().all(|x| x.is_finite());
        let batch = Array2::from_shape_vec((count, features), tokens).ok()?;
        let mut block = Self::new(features);
        if !finite || count >= TOKENS {
            return None;
        }
        if count > 0 {
            block.push(
                &batch,
                &(0..count).map(|token| (token, 1.0)).collect::<Vec<_>>(),
            );
        }
        Some(block)
    }

    /// The tokens as a batch, [tokens, features].
    pub(super) fn to_batch(&self) -> Array2<T> {
        Array2::from_shape_fn((self.tokens, self.features), |(token, feature)| {
            self.values[feature * TOKENS + token]
        })
    }

    /// All tokens, as [`push`](Self::push) takes them.
    pub(super) fn all(&self) -> Vec<(usize, f64)> {
        (0..self.tokens).map(|token| (token, 1.0)).collect()
    }
}

/// Blocks are equal that hold the same tokens, whatever is left of earlier ones.
impl<T: Real> PartialEq for Block<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to_batch() == other.to_batch()
    }
}

/// Features that one worker copies: a few lines of the cache.
const STRIP: usize = 64;
/// Tokens that are turned at a time: a line of the cache for each feature.
const TILE: usize = 16;

/// Copies some tokens of a strip of a batch, each times its factor.
fn read_tile<'a, A: Element>(
    strip: &ArrayRef2<A>,
    tokens: &[(usize, f64)],
    tile: &'a mut [A::Compute],
) -> &'a [A::Compute] {
    let width = strip.ncols();
    for (run, &(token, factor)) in tile.chunks_exact_mut(width).zip(tokens) {
        widen_row(&strip.row(token), run);
        let factor = A::Compute::from_f64(factor);
        for x in run {
            *x = *x * factor;
        }
    }
    &tile[..tokens.len() * width]
}

/// Writes a tile of `tokens` tokens feature by feature, from token `first` of `values` on.
fn write_turned<T: Real>(tile: &[T], tokens: usize, values: &mut [T], first: usize) {
    let width = tile.len() / tokens;
    for (feature, values) in values.chunks_exact_mut(TOKENS).enumerate() {
        for (value, run) in values[first..first + tokens]
            .iter_mut()
            .zip(tile.chunks_exact(width))
        {
            *value = run[feature];
        }
    }
}
