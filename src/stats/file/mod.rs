//! Statistics as files: gathered once, merged from several machines, used for many pruning runs.
//!
//! [`save`] and [`load`] handle the statistics of all layers at once. [`StatsWriter`] and
//! [`StatsFile`] handle one layer at a time, for models whose Gram matrices do not fit in memory
//! together. What is loaded equals what was saved, bit for bit, so calibration can be resumed from
//! it; only the [backend](crate::Gram::backend) of a Gram matrix is not in the file. What is wrong
//! with a file is told by a [`FileError`], in [`Error::File`].
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
//! use wanda::stats::file;
//! use wanda::{ActivationStats, ColumnNorms, ndarray::array};
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
//! assert_eq!(layers["up"].sums_of_squares(), [25.0, 5.0]);
//! assert_eq!(layers["up"].tokens(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod part;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub use read::StatsFile;
pub use write::{Checkpoint, StatsWriter};

use super::gram::LayerStats;
use crate::error::{Error, FileError, Result};

/// The key in a file's metadata that says what the file is.
const FORMAT: &str = "wanda-statistics";
/// The version of the format that is written, and the only one that is read.
const VERSION: &str = "1";

/// Writes the statistics of named layers to a file, which appears under its name when it is
/// complete. A file that is there is replaced.
///
/// # Errors
///
/// [`FileError::Access`] if the operating system refuses; what was there stays as it is.
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
    Error::File(FileError::Damaged {
        path: path.to_owned(),
        place: place.into(),
        reason: reason.into(),
    })
}

/// What the operating system refused.
fn access(path: &Path, action: &'static str, error: &io::Error) -> Error {
    Error::File(FileError::Access {
        path: path.to_owned(),
        action,
        kind: error.kind(),
        reason: error.to_string(),
    })
}
