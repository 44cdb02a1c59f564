//! The Gram matrix of a layer's inputs: what second-order methods need.

mod algebra;
mod block;
mod cross;
mod energy;
mod layer_stats;
#[cfg(any(feature = "serde", feature = "safetensors"))]
mod stored;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{Array2, ArrayRef2, ArrayView1};

use super::gather::gather_by_own_methods;
use super::{ActivationStats, ColumnNorms, OutputEnergy, required_sums};
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::linalg::{Backend, LowerTriangle, Symmetric};
use crate::matrix::zeros;
use crate::number::{Family, RealNumber};
use block::Block;
pub use cross::CrossProducts;
pub use layer_stats::LayerStats;
#[cfg(any(feature = "serde", feature = "safetensors"))]
pub(super) use stored::StoredGram;

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
/// Tokens are collected into blocks of 2048. Each block's product is computed in `f32`, and blocks
/// are added up in `f64`. The error of an entry is that of one `f32` block, about 10⁻⁷ of dⱼ dₖ
/// with dⱼ = √Gⱼⱼ, however many tokens there are; the diagonal is summed in `f64` throughout.
/// Products are computed in `f64` for `f64` inputs, for tokens whose weights are below 10⁻⁶ or
/// above 10⁶, for tokens of any weight but 1 that have a value below 10⁻³⁰ or above 10³⁰, and for a
/// block with a feature whose largest value is above 9 · 10¹⁵ or below 3 · 10⁻¹⁶. Blocks are cut by
/// the number of tokens seen, so the result has the same bits however the tokens are cut into
/// batches.
///
/// # Complexity
///
/// For n inputs: n² / 2 multiplications with an addition each a token; 4n² bytes of memory for one
/// triangle of the sum, and 2240 n numbers for the tokens of the block in the making and for a part
/// of its product.
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
#[derive(Debug, Clone)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "StoredGram")
)]
pub struct Gram {
    norms: ColumnNorms,
    /// The sum over all full blocks, but for the diagonal, which is in `norms`. Without entries
    /// until a token is seen, so that a number of features that no batch confirms costs nothing.
    folded: Symmetric,
    /// The tokens that wait for a full block, by the type they are computed with in.
    pending_f32: Block<f32>,
    pending_f64: Block<f64>,
    backend: Backend,
}

/// The block of each type.
struct BlockOf<'a>(PhantomData<&'a ()>);

impl<'a> Family for BlockOf<'a> {
    type Of<T: 'static> = &'a mut Block<T>;
}

/// Whether all values of a token, times the root of its weight, keep their digits in `f32`.
fn scales_in_range<A: Element>(token: &ArrayView1<'_, A>, root: f64) -> bool {
    let keeps_digits = |x: f64| x == 0.0 || (1e-30..=1e30).contains(&x.abs());
    // Exactly 1 is not multiplied by.
    root.to_bits() == 1.0_f64.to_bits()
        || (1e-3..=1e3).contains(&root) && token.iter().all(|x| keeps_digits(x.widen().as_f64()))
}

/// Statistics are equal that have seen the same, whatever backend they continue with.
impl PartialEq for Gram {
    fn eq(&self, other: &Self) -> bool {
        self.norms == other.norms
            && self.folded == other.folded
            && self.pending_f32 == other.pending_f32
            && self.pending_f64 == other.pending_f64
    }
}

impl Gram {
    /// Statistics of a layer with `features` inputs that has seen nothing yet, computed by the
    /// default [`Backend`].
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self {
            norms: ColumnNorms::new(features),
            folded: Symmetric::default(),
            pending_f32: Block::new(features),
            pending_f64: Block::new(features),
            backend: Backend::default(),
        }
    }

    /// What computes products from now on. Stored statistics do not tell.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Adds a batch of inputs, [tokens, features]: any number of tokens, any strides.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`], and [`Error::TooLarge`] if there is no memory for the sums.
    /// After an error the statistics are as before.
    pub fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()> {
        let mut norms = self.norms.clone();
        norms.update(batch)?;
        let tokens: Vec<_> = (0..batch.nrows()).map(|token| (token, 1.0)).collect();
        self.add(norms, batch, &tokens)
    }

    /// Adds a batch of inputs, of which token `t` counts `token_weights[t]` times.
    ///
    /// A token of weight 0 is padding: its values are not looked at and may be anything.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update_weighted`], and [`Error::TooLarge`] if there is no memory for the
    /// sums. After an error the statistics are as before.
    pub fn update_weighted<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()> {
        let mut norms = self.norms.clone();
        norms.update_weighted(batch, token_weights)?;
        let weights = token_weights.iter().map(|&weight| f64::from(weight));
        let seen = weights.enumerate().filter(|&(_, weight)| weight != 0.0);
        let roots = seen.map(|(token, weight)| (token, weight.sqrt()));
        let (near, far): (Vec<_>, Vec<_>) =
            roots.partition(|&(token, root)| scales_in_range(&batch.row(token), root));
        if !far.is_empty() {
            self.allocate()?;
        }
        self.add(norms, batch, &near)?;
        if !far.is_empty() {
            self.push(&batch.mapv(|x| x.widen().as_f64()), &far);
        }
        Ok(())
    }

    /// Adds what other statistics of the same layer have seen. The backend stays.
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::merge`], and [`Error::TooLarge`]. After an error the statistics are as
    /// before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let mut norms = self.norms.clone();
        norms.merge(&other.norms)?;
        if other.norms.tokens() > 0 {
            self.allocate()?;
        }
        self.norms = norms;
        self.folded.add(&other.folded);
        if let Some(batch) = other.pending_f32.to_batch() {
            self.push(&batch, &other.pending_f32.all());
        }
        if let Some(batch) = other.pending_f64.to_batch() {
            self.push(&batch, &other.pending_f64.all());
        }
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
    /// [`Error::TooLarge`] if there is no memory for it.
    pub fn to_array(&self) -> Result<Array2<f64>> {
        let n = self.norms.features();
        let mut full = zeros::<f64>(n, n)?;
        for columns in self.panels() {
            let panel = self.panel(&columns);
            for (j, row) in (columns.start..).zip(panel.chunks_exact(columns.len())) {
                for (k, &entry) in columns.clone().zip(row).take_while(|&(k, _)| k < j) {
                    full[j * n + k] = entry;
                    full[k * n + j] = entry;
                }
            }
        }
        for (j, &sum) in self.norms.sums_of_squares().iter().enumerate() {
            full[j * n + j] = sum;
        }
        Array2::from_shape_vec((n, n), full).map_err(|_| Error::TooLarge {
            rows: n,
            columns: n,
        })
    }

    /// Adds the tokens of a batch, each times a factor, and then has seen what `norms` have.
    fn add<A: Element>(
        &mut self,
        norms: ColumnNorms,
        batch: &ArrayRef2<A>,
        tokens: &[(usize, f64)],
    ) -> Result<()> {
        if !tokens.is_empty() {
            self.allocate()?;
        }
        self.norms = norms;
        self.push(batch, tokens);
        Ok(())
    }

    fn allocate(&mut self) -> Result<()> {
        if self.folded.is_empty() {
            self.folded = Symmetric::zeros(self.norms.features())?;
        }
        Ok(())
    }

    /// Adds tokens to the block of their type, and the block to the sum when it is full.
    fn push<A: Element>(&mut self, batch: &ArrayRef2<A>, mut tokens: &[(usize, f64)]) {
        let block = A::Compute::pick::<BlockOf<'_>>(&mut self.pending_f32, &mut self.pending_f64);
        while !tokens.is_empty() {
            let (now, later) = tokens.split_at(tokens.len().min(block.room()));
            block.push(batch, now);
            if block.room() == 0 {
                let mut product = Vec::new();
                for (columns, sums) in self.folded.panels_mut() {
                    block.add_product(self.backend, &columns, sums, &mut product);
                }
                block.clear();
            }
            tokens = later;
        }
    }
}

gather_by_own_methods!(Gram);

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

    fn output_energy(&self) -> Option<&dyn OutputEnergy> {
        Some(self)
    }

    fn gram(&self) -> Option<&Gram> {
        Some(self)
    }
}

impl LowerTriangle for Gram {
    fn diagonal(&self) -> &[f64] {
        self.norms.sums_of_squares()
    }

    fn panels(&self) -> Vec<Range<usize>> {
        self.folded.panels()
    }

    fn panel(&self, columns: &Range<usize>) -> Cow<'_, [f64]> {
        let mut panel = Cow::Borrowed(self.folded.panel(columns));
        if !self.pending_f32.is_empty() {
            self.pending_f32
                .add_product(self.backend, columns, panel.to_mut(), &mut Vec::new());
        }
        if !self.pending_f64.is_empty() {
            self.pending_f64
                .add_product(self.backend, columns, panel.to_mut(), &mut Vec::new());
        }
        panel
    }
}

/// The Gram matrix, for what cannot do without, of a layer whose rows and columns are `dim`.
///
/// # Errors
///
/// As [`required_sums`], of the matrix as well, and [`Error::NoGram`] if there is none.
pub fn required_gram<'a>(
    stats: &'a dyn ActivationStats,
    what: &str,
    dim: (usize, usize),
) -> Result<&'a Gram> {
    required_sums(stats, what, dim)?;
    let gram = stats.gram().ok_or_else(|| Error::NoGram {
        what: what.to_owned(),
    })?;
    required_sums(gram, what, dim)?;
    Ok(gram)
}
