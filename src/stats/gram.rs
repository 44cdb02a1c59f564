//! The Gram matrix of a layer's inputs: what second-order methods need.

use ndarray::{Array2, ArrayRef2, Axis};

use super::{ActivationStats, ColumnNorms};
use crate::element::{Element, Real, widen_row};
use crate::error::{Error, Result};
use crate::linalg::{Backend, Panel, PanelMut};
use crate::parallel;

/// `XᵀX` of a layer's inputs X, gathered batch by batch.
///
/// It also holds what [`ColumnNorms`] holds, so it serves [`Wanda`](crate::Wanda) as well.
/// Layers that read the same input (queries, keys and values; gate and up) can share one.
///
/// # Formula
///
/// ```text
/// Gⱼₖ = Σₜ aₜ xₜⱼ xₜₖ       aₜ the weight of token t, 1 unless given
/// ```
///
/// The published SparseGPT code scales this by two over the number of sequences, which changes
/// neither a decision nor an updated weight.
///
/// # Accuracy
///
/// Tokens are collected into blocks of 512, each block's product is computed in `f32` (`f64` for
/// `f64` inputs), and blocks are added up in `f64`. The error of an entry is that of one `f32`
/// block, about 10⁻⁷ of dⱼ dₖ with dⱼ = √Gⱼⱼ, however many tokens there are; the diagonal is
/// summed in `f64` throughout. Blocks are cut by the number of tokens seen, so the result has the
/// same bits however the tokens are cut into batches.
///
/// # Complexity
///
/// For n inputs: n² / 2 multiplications and additions a token; 8n² bytes of memory, and
/// `512 · n` numbers for the tokens of the block in the making and as many for its product.
///
/// # Example
///
/// ```
/// use wanda::{ActivationStats, Gram, ndarray::array};
///
/// let mut gram = Gram::new(2);
/// gram.update(&array![[3.0_f32, 1.0], [4.0, 0.0]])?;
/// gram.update(&array![[0.0_f32, 2.0]])?;
/// assert_eq!(gram.to_array()?, array![[25.0, 3.0], [3.0, 5.0]]);
/// assert_eq!(gram.sums_of_squares(), [25.0, 5.0]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
/// arXiv 2301.00774, section 3.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "StoredGram")
)]
pub struct Gram {
    norms: ColumnNorms,
    /// The sum over all full blocks: the part above the diagonal, row-major. Empty until there is
    /// one. The diagonal is in `norms`.
    folded: Vec<f64>,
    narrow: Block<f32>,
    wide: Block<f64>,
    #[cfg_attr(feature = "serde", serde(skip))]
    backend: Backend,
}

/// Tokens that were seen, but not yet added to the sum.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Block<T> {
    /// Each token times the root of its weight, row by row.
    tokens: Vec<T>,
}

/// Tokens of a block.
const BLOCK: usize = 512;
/// Rows of G that are computed at a time.
const PANEL: usize = 512;

impl Gram {
    /// Statistics of a layer with `features` inputs that has seen nothing yet, computed by the
    /// default [`Backend`].
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self::with_backend(features, Backend::default())
    }

    /// Statistics computed by a given backend.
    #[must_use]
    pub fn with_backend(features: usize, backend: Backend) -> Self {
        Self {
            norms: ColumnNorms::new(features),
            folded: Vec::new(),
            narrow: Block::default(),
            wide: Block::default(),
            backend,
        }
    }

    /// Adds a batch of inputs, [tokens, features]: any number of tokens, any strides.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`], and [`Error::TooLarge`] if there is no memory for
    /// features x features numbers. After an error the statistics are as before.
    pub fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()> {
        self.add(batch, None)
    }

    /// Adds a batch of inputs, of which token `t` counts `token_weights[t]` times.
    ///
    /// A token of weight 0 is padding: its values are not looked at and may be anything.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update_weighted`], and [`Error::TooLarge`] if there is no memory for
    /// features x features numbers. After an error the statistics are as before.
    pub fn update_weighted<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()> {
        self.add(batch, Some(token_weights))
    }

    /// Adds what other statistics of the same layer have seen.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::merge`], and [`Error::TooLarge`]. After an error the statistics are as
    /// before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let mut norms = self.norms.clone();
        norms.merge(&other.norms)?;
        self.allocate()?;
        self.norms = norms;
        for (sum, x) in self.folded.iter_mut().zip(&other.folded) {
            *sum += x;
        }
        self.push_tokens(&other.narrow.tokens);
        self.push_tokens(&other.wide.tokens);
        Ok(())
    }

    /// The norms of the inputs alone.
    #[must_use]
    pub fn norms(&self) -> &ColumnNorms {
        &self.norms
    }

    /// `XᵀX`, features x features.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if there is no memory for a copy.
    pub fn to_array(&self) -> Result<Array2<f64>> {
        let n = self.norms.features();
        let mut full = self.upper()?;
        for j in 0..n {
            for k in j + 1..n {
                full[k * n + j] = full[j * n + k];
            }
        }
        Array2::from_shape_vec((n, n), full).map_err(|_| Error::TooLarge {
            rows: n,
            columns: n,
        })
    }

    /// The diagonal and what is above it, row-major, with anything below.
    pub(crate) fn upper(&self) -> Result<Vec<f64>> {
        let n = self.norms.features();
        let mut upper = zeros(n)?;
        upper[..self.folded.len()].copy_from_slice(&self.folded);
        fold(self.backend, &mut upper, &self.narrow.tokens, n);
        fold(self.backend, &mut upper, &self.wide.tokens, n);
        for (j, &sum) in self.norms.sums_of_squares().iter().enumerate() {
            upper[j * n + j] = sum;
        }
        Ok(upper)
    }

    fn add<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: Option<&[f32]>,
    ) -> Result<()> {
        // The norms find whatever is wrong with the batch.
        let mut norms = self.norms.clone();
        match token_weights {
            Some(weights) => norms.update_weighted(batch, weights)?,
            None => norms.update(batch)?,
        }
        self.allocate()?;
        self.norms = norms;
        let n = self.norms.features();
        let mut token = vec![A::Compute::default(); n];
        for (t, row) in batch.axis_iter(Axis(0)).enumerate() {
            let weight = token_weights.map_or(1.0, |weights| f64::from(weights[t]));
            if weight == 0.0 {
                continue;
            }
            widen_row(&row, &mut token);
            if token_weights.is_some() {
                let root = A::Compute::from_f64(weight.sqrt());
                for x in &mut token {
                    *x = *x * root;
                }
            }
            self.push_tokens(&token);
        }
        Ok(())
    }

    fn allocate(&mut self) -> Result<()> {
        if self.folded.is_empty() {
            self.folded = zeros(self.norms.features())?;
        }
        Ok(())
    }

    /// Adds whole tokens to the block of their type, and the block to the sum when it is full.
    fn push_tokens<T: Real>(&mut self, tokens: &[T]) {
        let n = self.norms.features();
        if n == 0 {
            return;
        }
        for token in tokens.chunks_exact(n) {
            let block = T::choose((&mut self.narrow.tokens, &mut self.wide.tokens));
            block.extend_from_slice(token);
            if block.len() == BLOCK * n {
                fold(self.backend, &mut self.folded, block, n);
                block.clear();
            }
        }
    }
}

impl ActivationStats for Gram {
    fn features(&self) -> usize {
        self.norms.features()
    }

    fn tokens(&self) -> u64 {
        self.norms.tokens()
    }

    fn sums_of_squares(&self) -> &[f64] {
        self.norms.sums_of_squares()
    }

    fn gram(&self) -> Option<&Gram> {
        Some(self)
    }
}

/// Adds the product of a block of tokens with itself to the upper triangle of `sum`.
fn fold<T: Real>(backend: Backend, sum: &mut [f64], tokens: &[T], n: usize) {
    if tokens.is_empty() {
        return;
    }
    let count = tokens.len() / n;
    let tokens = Panel::new(tokens, n);
    let mut product = vec![T::zero(); PANEL.min(n) * n];
    for rows in parallel::runs(n, PANEL) {
        let len = rows.len();
        let left = tokens.part(0..count, rows.clone());
        let width = n - rows.end;
        // The square on the diagonal, of which one half is computed, and what is right of it.
        let (square, rest) = product.split_at_mut(len * len);
        let rest = &mut rest[..len * width];
        square.fill(T::zero());
        rest.fill(T::zero());
        T::symmetric_product(backend, PanelMut::new(square, len), left);
        if width > 0 {
            let right = tokens.part(0..count, rows.end..n);
            T::product_of_transposed(backend, PanelMut::new(rest, width), left, right);
        }
        let sums = sum[rows.start * n..rows.end * n].chunks_exact_mut(n);
        let work = sums.enumerate().collect();
        parallel::map(
            work,
            || (),
            |(), (i, sums): (usize, &mut [f64])| {
                let (head, tail) = sums.split_at_mut(rows.end);
                add(
                    &mut head[rows.start + i..],
                    &square[i * len + i..(i + 1) * len],
                );
                add(tail, &rest[i * width..(i + 1) * width]);
            },
        );
    }
}

fn add<T: Real>(sums: &mut [f64], terms: &[T]) {
    for (sum, term) in sums.iter_mut().zip(terms) {
        *sum += term.as_f64();
    }
}

/// n x n zeros, if there is memory for them.
fn zeros(n: usize) -> Result<Vec<f64>> {
    let too_large = || Error::TooLarge {
        rows: n,
        columns: n,
    };
    let mut zeros = Vec::new();
    n.checked_mul(n)
        .and_then(|len| zeros.try_reserve_exact(len).ok())
        .ok_or_else(too_large)?;
    zeros.resize(n * n, 0.0);
    Ok(zeros)
}

/// Statistics as they were stored, not yet checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Gram")]
struct StoredGram {
    norms: ColumnNorms,
    folded: Vec<f64>,
    narrow: Block<f32>,
    wide: Block<f64>,
}

#[cfg(feature = "serde")]
impl TryFrom<StoredGram> for Gram {
    type Error = Error;

    fn try_from(stored: StoredGram) -> Result<Self> {
        let StoredGram {
            norms,
            folded,
            narrow,
            wide,
        } = stored;
        let damaged = |reason: String| Error::Damaged {
            what: "statistics",
            reason,
        };
        let n = norms.features();
        let expected = if norms.tokens() == 0 {
            Some(0)
        } else {
            n.checked_mul(n)
        };
        if expected != Some(folded.len()) {
            return Err(damaged(format!("{} sums for {n} x {n}", folded.len())));
        }
        let whole = |len: usize| len.is_multiple_of(n.max(1)) && len / n.max(1) < BLOCK;
        if !whole(narrow.tokens.len()) || !whole(wide.tokens.len()) {
            return Err(damaged(format!("tokens that are not of {n} features")));
        }
        let finite = folded.iter().all(|x| x.is_finite())
            && narrow.tokens.iter().all(|x| x.is_finite())
            && wide.tokens.iter().all(|x| x.is_finite());
        if !finite {
            return Err(damaged("a sum that is not finite".to_owned()));
        }
        Ok(Self {
            norms,
            folded,
            narrow,
            wide,
            backend: Backend::default(),
        })
    }
}
