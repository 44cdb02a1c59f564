//! Statistics as files: gathered once, merged from several machines, used for many pruning runs.
//!
//! [`save`] and [`load`] handle the statistics of all layers at once. [`StatsWriter`] and
//! [`StatsFile`] handle one layer at a time, for models whose Gram matrices do not fit in memory
//! together. What is loaded equals what was saved, bit for bit, and goes on where it stopped. Files
//! do not tell the backend of a Gram matrix: [`Gram::backend`](crate::Gram::backend).
//!
//! # Format
//!
//! A safetensors file whose metadata has `wanda-statistics`: the version of the format, `1`. Each
//! layer has a name, any text, and these tensors:
//!
//! ```text
//! NAME.features   U64 [1]        inputs of the layer, n
//! NAME.tokens     U64 [1]        tokens seen
//! NAME.weight     F64 [1]        the sum of their weights
//! NAME.sums       F64 [n]        sums of squares; [0] as long as no token was seen
//! NAME.products   F64 [...]      the Gram matrix of whole blocks of tokens, without its diagonal
//! NAME.narrow     F32 [t, n]     tokens since the last whole block, computed with in f32
//! NAME.wide       F64 [t, n]     the same, computed with in f64
//! NAME.crc32      U32 [4 or 7]   checksums of the bytes of the tensors above, in this order
//! ```
//!
//! `products`, `narrow` and `wide` are those of a Gram matrix, all or none of them. Of the
//! symmetric products one triangle is held, so that they cannot contradict each other: for every
//! 192 columns from c on (fewer at the end) a row-major block of the rows from c on, one block
//! after the other. What a block has on and above the diagonal has no effect, but must be finite.
//!
//! # Example
//!
//! ```
//! use std::collections::BTreeMap;
//! use wanda::stats::file::{self, LayerStats};
//! use wanda::{ColumnNorms, ndarray::array};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = |name| folder.path().join(name);
//! // On two machines, each with its part of the calibration set:
//! for (name, inputs) in [("a", array![[3.0_f32, 1.0]]), ("b", array![[4.0, 0.0], [0.0, 2.0]])] {
//!     let mut norms = ColumnNorms::new(2);
//!     norms.update(&inputs)?;
//!     file::save(path(name), &BTreeMap::from([("up".to_owned(), norms.into())]))?;
//! }
//!
//! // Later, on one of them:
//! let mut layers = file::load(path("a"))?;
//! file::merge(&mut layers, &file::load(path("b"))?)?;
//! assert_eq!(layers["up"].as_stats().sums_of_squares(), [25.0, 5.0]);
//! assert_eq!(layers["up"].as_stats().tokens(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod part;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ndarray::ArrayRef2;

pub use read::StatsFile;
pub use write::{Checkpoint, StatsWriter};

#[cfg(feature = "second-order")]
use super::Gram;
use super::{ActivationStats, ColumnNorms};
use crate::element::Element;
use crate::error::{Error, Result};

/// The key in a file's metadata that says what the file is.
const FORMAT: &str = "wanda-statistics";
/// The version of the format that is written, and the only one that is read.
const VERSION: &str = "1";

/// The statistics of one layer, of either kind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LayerStats {
    /// The norms of the inputs.
    Norms(ColumnNorms),
    /// Their Gram matrix.
    #[cfg(feature = "second-order")]
    #[cfg_attr(docsrs, doc(cfg(feature = "second-order")))]
    Gram(Gram),
}

impl LayerStats {
    /// The statistics as metrics and updates take them.
    #[must_use]
    pub fn as_stats(&self) -> &dyn ActivationStats {
        match self {
            Self::Norms(norms) => norms,
            #[cfg(feature = "second-order")]
            Self::Gram(gram) => gram,
        }
    }

    /// Adds a batch of inputs, [tokens, features].
    ///
    /// # Errors
    ///
    /// As [`ColumnNorms::update`] and [`Gram::update`](crate::Gram::update). After an error the
    /// statistics are as before.
    pub fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()> {
        match self {
            Self::Norms(norms) => norms.update(batch),
            #[cfg(feature = "second-order")]
            Self::Gram(gram) => gram.update(batch),
        }
    }

    /// Adds what other statistics of the same layer have seen.
    ///
    /// # Errors
    ///
    /// [`Error::MergeKinds`] if one has norms and the other a Gram matrix, else as
    /// [`ColumnNorms::merge`] and [`Gram::merge`](crate::Gram::merge). After an error the
    /// statistics are as before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Norms(norms), Self::Norms(other)) => norms.merge(other),
            #[cfg(feature = "second-order")]
            (Self::Gram(gram), Self::Gram(other)) => gram.merge(other),
            #[cfg(feature = "second-order")]
            (left, right) => Err(Error::MergeKinds {
                left: left.kind(),
                right: right.kind(),
            }),
        }
    }

    #[cfg(feature = "second-order")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Norms(_) => "norms",
            Self::Gram(_) => "a Gram matrix",
        }
    }
}

impl From<ColumnNorms> for LayerStats {
    fn from(norms: ColumnNorms) -> Self {
        Self::Norms(norms)
    }
}

#[cfg(feature = "second-order")]
impl From<Gram> for LayerStats {
    fn from(gram: Gram) -> Self {
        Self::Gram(gram)
    }
}

/// Writes the statistics of named layers to a file, which appears under its name when it is
/// complete. A file that is there is replaced.
///
/// # Errors
///
/// [`Error::StatsFileAccess`] if the operating system refuses; what was there stays as it is.
pub fn save(path: impl AsRef<Path>, layers: &BTreeMap<String, LayerStats>) -> Result<()> {
    let mut writer = StatsWriter::create(path, layers.keys().cloned())?;
    for (layer, stats) in layers {
        writer.add(layer, stats)?;
    }
    writer.finish()
}

/// Reads the statistics of all layers of a file.
///
/// # Errors
///
/// As [`StatsFile::open`] and [`StatsFile::layer`].
pub fn load(path: impl AsRef<Path>) -> Result<BTreeMap<String, LayerStats>> {
    let mut file = StatsFile::open(path)?;
    let names: Vec<String> = file.layers().map(str::to_owned).collect();
    names
        .into_iter()
        .map(|layer| {
            let stats = file.layer(&layer)?;
            Ok((layer, stats))
        })
        .collect()
}

/// Adds what others have seen, layer by layer; a layer that only they have is added whole.
///
/// # Errors
///
/// [`Error::InLayer`] with what [`LayerStats::merge`] says of a layer that both have. After an
/// error `layers` are as before.
pub fn merge(
    layers: &mut BTreeMap<String, LayerStats>,
    others: &BTreeMap<String, LayerStats>,
) -> Result<()> {
    let mut merged = Vec::with_capacity(others.len());
    for (layer, other) in others {
        let mut stats = other.clone();
        if let Some(own) = layers.get(layer) {
            stats.clone_from(own);
            stats.merge(other).map_err(|error| Error::InLayer {
                layer: layer.clone(),
                error: Box::new(error),
            })?;
        }
        merged.push((layer.clone(), stats));
    }
    layers.extend(merged);
    Ok(())
}

fn damaged(path: &Path, place: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::StatsFileDamaged {
        path: path.to_owned(),
        place: place.into(),
        reason: reason.into(),
    }
}

/// What the operating system refused.
fn access(path: &Path, action: &'static str, error: &io::Error) -> Error {
    Error::StatsFileAccess {
        path: path.to_owned(),
        action,
        kind: error.kind(),
        reason: error.to_string(),
    }
}
