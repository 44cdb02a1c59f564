//! Reading a file of statistics.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};

use super::part::{Number, Part};
use super::{FORMAT, VERSION, access, damaged};
use crate::error::{Error, FileError, Result};
use crate::linalg::Symmetric;
use crate::stats::gram::{Gram, LayerStats, StoredGram};
use crate::stats::{ActivationStats, ColumnNorms};

/// A file of statistics, of which one layer at a time is read.
///
/// Opening it reads and checks what is in it, but no statistics. A layer's are checked when they
/// are read: that they are what was written, by checksums; that sums of squares are finite and not
/// negative, and as many as the layer has inputs; that products are finite and no larger than the
/// norms allow.
#[derive(Debug)]
pub struct StatsFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
    layers: BTreeMap<String, Parts>,
}

/// The tensors of a layer.
type Parts = BTreeMap<Part, TensorInfo>;

/// Bytes that are read at a time, a whole number of numbers.
const READ_BYTES: usize = 1 << 20;

impl StatsFile {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if it cannot be read, [`FileError::Version`] if it is no statistics
    /// file or of another version, [`FileError::Damaged`] if its parts do not fit together.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|e| access(path, "open", &e))?;
        let (header, start) = read_header(path, &mut file)?;
        let version = header.metadata().as_ref().and_then(|m| m.get(FORMAT));
        if version.is_none_or(|version| version != VERSION) {
            return Err(Error::File(FileError::Version {
                path: path.to_owned(),
                found: version.cloned(),
                expected: VERSION,
            }));
        }
        Ok(Self {
            layers: layers(&header).map_err(|(place, reason)| damaged(path, place, reason))?,
            path: path.to_owned(),
            file,
            start,
        })
    }

    /// The names of all layers, in the order of the alphabet.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    /// Whether there are statistics of a layer.
    #[must_use]
    pub fn contains(&self, layer: &str) -> bool {
        self.layers.contains_key(layer)
    }

    /// Whether a layer has a Gram matrix and not norms alone.
    #[must_use]
    pub fn has_gram(&self, layer: &str) -> bool {
        let parts = self.layers.get(layer);
        parts.is_some_and(|parts| parts.contains_key(&Part::Products))
    }

    /// The number of inputs of a layer.
    ///
    /// # Errors
    ///
    /// As [`norms`](Self::norms).
    pub fn features(&mut self, layer: &str) -> Result<usize> {
        let features = self.single::<u64>(layer, Part::Features)?;
        usize::try_from(features).map_err(|_| {
            let place = format!("layer `{layer}`");
            damaged(&self.path, place, format!("it has {features} inputs"))
        })
    }

    /// Reads the statistics of a layer.
    ///
    /// # Errors
    ///
    /// [`FileError::MissingLayer`] if there are none, [`FileError::Access`] if they cannot be read,
    /// [`FileError::Damaged`] if they are not what was written, or cannot be the statistics of
    /// anything.
    pub fn layer(&mut self, layer: &str) -> Result<LayerStats> {
        if self.has_gram(layer) {
            Ok(self.gram(layer)?.into())
        } else {
            Ok(self.norms(layer)?.into())
        }
    }

    /// Reads the norms of a layer's inputs, also where there is a Gram matrix, of which nothing
    /// else is read then.
    ///
    /// # Errors
    ///
    /// As [`layer`](Self::layer).
    pub fn norms(&mut self, layer: &str) -> Result<ColumnNorms> {
        let features = self.features(layer)?;
        let tokens = self.single(layer, Part::Tokens)?;
        let weight = self.single(layer, Part::Weight)?;
        let sums = self.numbers(layer, Part::Sums)?;
        ColumnNorms::from_parts(features, tokens, weight, sums)
            .map_err(|error| self.layer_damaged(layer, &error))
    }

    fn gram(&mut self, layer: &str) -> Result<Gram> {
        let norms = self.norms(layer)?;
        let products = self.numbers(layer, Part::Products)?;
        let folded = Symmetric::from_entries(norms.features(), products);
        let stored = StoredGram {
            norms: Cow::Owned(norms),
            folded: Cow::Owned(folded),
            pending_f32: self.numbers(layer, Part::PendingF32)?,
            pending_f64: self.numbers(layer, Part::PendingF64)?,
        };
        Gram::try_from(stored).map_err(|error| self.layer_damaged(layer, &error))
    }

    fn layer_damaged(&self, layer: &str, error: &Error) -> Error {
        damaged(&self.path, format!("layer `{layer}`"), error.to_string())
    }

    /// The number in a tensor that has one.
    fn single<T: Number>(&mut self, layer: &str, part: Part) -> Result<T> {
        let numbers = self.numbers(layer, part)?;
        // There is one, as was checked when the file was opened.
        numbers.first().copied().ok_or_else(|| {
            let place = format!("tensor `{}`", part.of(layer));
            damaged(&self.path, place, "it is empty".to_owned())
        })
    }

    /// The numbers of a tensor, if they are what was written.
    fn numbers<T: Number>(&mut self, layer: &str, part: Part) -> Result<Vec<T>> {
        let (numbers, found) = self.read(layer, part)?;
        let order = Part::NORMS.into_iter().chain(Part::GRAM);
        let place = order.take_while(|&p| p != part).count();
        let (checksums, _) = self.read::<u32>(layer, Part::Checksums)?;
        if checksums.get(place) == Some(&found) {
            Ok(numbers)
        } else {
            Err(damaged(
                &self.path,
                format!("tensor `{}`", part.of(layer)),
                "its bytes are not those that were written".to_owned(),
            ))
        }
    }

    /// The numbers of a tensor and their checksum.
    fn read<T: Number>(&mut self, layer: &str, part: Part) -> Result<(Vec<T>, u32)> {
        let parts = self.layers.get(layer);
        let info = parts.and_then(|parts| parts.get(&part));
        let (start, end) = info
            .ok_or_else(|| {
                Error::File(FileError::MissingLayer {
                    path: self.path.clone(),
                    layer: layer.to_owned(),
                })
            })?
            .data_offsets;
        read_numbers(&mut self.file, self.start + start as u64, end - start)
            .map_err(|error| access(&self.path, "read", &error))
    }
}

/// Bytes that the header of a safetensors file may have, as other readers of the format say too.
const MAX_HEADER: u64 = 100_000_000;

/// The header of a safetensors file, and where the tensors begin.
fn read_header(path: &Path, file: &mut File) -> Result<(Metadata, u64)> {
    let wrong = |reason: String| damaged(path, "its header", reason);
    let refused = |error: io::Error| access(path, "read", &error);
    let size = file.metadata().map_err(refused)?.len();
    let mut len = [0; 8];
    if size < 8 {
        return Err(wrong(format!("the file has only {size} bytes")));
    }
    file.read_exact(&mut len).map_err(refused)?;
    let len = u64::from_le_bytes(len);
    let start = len
        .checked_add(8)
        .filter(|&start| start <= size)
        .ok_or_else(|| wrong(format!("it claims {len} of the file's {size} bytes")))?;
    if len > MAX_HEADER {
        return Err(wrong(format!(
            "it claims {len} bytes, more than {MAX_HEADER}"
        )));
    }
    let mut text = Vec::new();
    file.take(len).read_to_end(&mut text).map_err(refused)?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    let expected = start.checked_add(header.data_len() as u64);
    if expected == Some(size) {
        Ok((header, start))
    } else {
        let tensors = header.data_len();
        Err(wrong(format!(
            "it lists {tensors} bytes of tensors, and {} follow",
            size - start
        )))
    }
}

/// The layers that a header lists, or what is wrong with it: where, and what.
fn layers(header: &Metadata) -> Result<BTreeMap<String, Parts>, (String, String)> {
    let mut layers = BTreeMap::<String, Parts>::new();
    for (tensor, info) in header.tensors() {
        let wrong = |reason| (format!("tensor `{tensor}`"), reason);
        let Some((layer, part)) = Part::parse(&tensor) else {
            return Err(wrong("it is no part of a layer's statistics".to_owned()));
        };
        if info.dtype != part.dtype() {
            let (found, expected) = (info.dtype, part.dtype());
            return Err(wrong(format!("it is {found} and not {expected}")));
        }
        let parts = layers.entry(layer.to_owned()).or_default();
        parts.insert(part, info.clone());
    }
    for (layer, parts) in &layers {
        check_parts(layer, parts)?;
    }
    Ok(layers)
}

/// Refuses a layer of which something is missing, or whose tensors have impossible shapes.
fn check_parts(layer: &str, parts: &Parts) -> Result<(), (String, String)> {
    let is_gram = Part::GRAM.iter().any(|part| parts.contains_key(part));
    let values = Part::NORMS
        .into_iter()
        .chain(Part::GRAM.into_iter().filter(|_| is_gram));
    let checksums = values.clone().count();
    for part in values.chain([Part::Checksums]) {
        let Some(info) = parts.get(&part) else {
            let reason = format!("it has no tensor `{}`", part.of(layer));
            return Err((format!("layer `{layer}`"), reason));
        };
        let fits = match (part, info.shape.as_slice()) {
            (Part::Features | Part::Tokens | Part::Weight, [len]) => *len == 1,
            (Part::Checksums, [len]) => *len == checksums,
            (Part::Sums | Part::Products, [_]) | (Part::PendingF32 | Part::PendingF64, [_, _]) => {
                true
            }
            _ => false,
        };
        if !fits {
            let reason = format!("its shape is {:?}", info.shape);
            return Err((format!("tensor `{}`", part.of(layer)), reason));
        }
    }
    Ok(())
}

/// Reads numbers from some bytes of a file, which it is known to have.
fn read_numbers<T: Number>(file: &mut File, start: u64, len: usize) -> io::Result<(Vec<T>, u32)> {
    file.seek(SeekFrom::Start(start))?;
    let mut checksum = crc32fast::Hasher::new();
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(len / size_of::<T>())?;
    let mut buffer = vec![0; READ_BYTES.min(len)];
    for chunk in (0..len).step_by(READ_BYTES) {
        let bytes = &mut buffer[..READ_BYTES.min(len - chunk)];
        file.read_exact(bytes)?;
        checksum.update(bytes);
        let each = bytes.chunks_exact(size_of::<T>());
        numbers.extend(each.filter_map(|bytes| bytes.try_into().ok().map(T::from_bytes)));
    }
    Ok((numbers, checksum.finalize()))
}
