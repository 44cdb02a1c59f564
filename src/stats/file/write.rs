//! Writing a file of statistics.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};

use super::part::{Number, Part};
use super::{FORMAT, VERSION, access, damaged};
use crate::error::{Error, FileError, Result};
use crate::stats::gram::{LayerStats, StoredGram};
use crate::stats::{ActivationStats, ColumnNorms};

/// Writes a file of statistics layer by layer.
///
/// Memory holds no more than the layer at hand, and the disk no more than the file: its header
/// goes last into room that was left for it. The file has another name until
/// [`finish`](Self::finish). Dropped before, it leaves nothing behind, unless it is
/// [resumable](Self::create_resumable).
///
/// # Example
///
/// ```
/// use wanda::stats::file::{StatsFile, StatsWriter};
/// use wanda::{ActivationStats, ColumnNorms, ndarray::array};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("statistics.safetensors");
/// let mut writer = StatsWriter::create(&path, ["up", "down"])?;
/// for layer in ["up", "down"] {
///     let mut norms = ColumnNorms::new(2);
///     norms.update(&array![[3.0_f32, 1.0]])?;
///     writer.add(layer, &norms.into())?;
/// }
/// writer.finish()?;
///
/// let mut file = StatsFile::open(&path)?;
/// assert_eq!(file.norms("down")?.sums_of_squares(), [9.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StatsWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    written: Checkpoint,
    /// Whether a layer could not be written, so that the file is not what the tensors say.
    broken: bool,
}

/// How far a file of statistics is written: what another process needs to resume it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Bytes in front of the tensors.
    room: usize,
    /// Whether each layer has been added.
    layers: BTreeMap<String, bool>,
    /// Bytes of tensors.
    len: usize,
    tensors: Vec<(String, TensorInfo)>,
}

impl StatsWriter {
    /// Begins a file that no other layers than these will be added to.
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if nothing can be written to the folder it is to be in.
    pub fn create<L: Into<String>>(
        path: impl AsRef<Path>,
        layers: impl IntoIterator<Item = L>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let begin = || Self::begin(path, named(folder(path))?, layers);
        begin().map_err(|error| access(path, "create", &error))
    }

    /// Begins a file that has the name `unfinished` until it is finished, and stays under it if it
    /// never is, for [`resume`](Self::resume) to complete. Both names have to be on one disk.
    ///
    /// # Example
    ///
    /// ```
    /// use wanda::stats::file::{StatsFile, StatsWriter};
    /// use wanda::{ColumnNorms, ndarray::array};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("statistics.safetensors");
    /// # let unfinished = folder.path().join("unfinished");
    /// let mut norms = ColumnNorms::new(2);
    /// norms.update(&array![[3.0_f32, 1.0]])?;
    /// let mut writer = StatsWriter::create_resumable(&path, &unfinished, ["up", "down"])?;
    /// writer.add("up", &norms.clone().into())?;
    /// let checkpoint = serde_json::to_string(&writer.checkpoint()?)?;
    /// drop(writer);
    ///
    /// // In another process:
    /// let checkpoint = serde_json::from_str(&checkpoint)?;
    /// let mut writer = StatsWriter::resume(&path, &unfinished, checkpoint)?;
    /// writer.add("down", &norms.into())?;
    /// writer.finish()?;
    /// assert!(StatsFile::open(&path)?.contains("up"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if `unfinished` cannot be written. What is there is replaced.
    pub fn create_resumable<L: Into<String>>(
        path: impl AsRef<Path>,
        unfinished: impl AsRef<Path>,
        layers: impl IntoIterator<Item = L>,
    ) -> Result<Self> {
        let unfinished = unfinished.as_ref();
        let begin = || {
            Self::begin(
                path.as_ref(),
                kept(File::create(unfinished)?, unfinished)?,
                layers,
            )
        };
        begin().map_err(|error| access(unfinished, "create", &error))
    }

    /// Resumes a file where it was when the checkpoint was made.
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if `unfinished` cannot be written, [`FileError::Damaged`] if it has
    /// less than the checkpoint tells of.
    pub fn resume(
        path: impl AsRef<Path>,
        unfinished: impl AsRef<Path>,
        checkpoint: Checkpoint,
    ) -> Result<Self> {
        let unfinished = unfinished.as_ref();
        let refused = |error: io::Error| access(unfinished, "write", &error);
        let open = || File::options().write(true).open(unfinished);
        let mut file = open().map_err(refused)?;
        let found = file.metadata().map_err(refused)?.len();
        let expected = checkpoint.room.saturating_add(checkpoint.len) as u64;
        if found < expected {
            let reason = format!("it has {found} bytes where {expected} were written");
            return Err(damaged(unfinished, "its end", reason));
        }
        let mut cut = || {
            file.set_len(expected)?;
            file.seek(SeekFrom::End(0))
        };
        cut().map_err(refused)?;
        let file = kept(file, unfinished).map_err(refused)?;
        Ok(Self::with(path.as_ref(), file, checkpoint))
    }

    fn begin<L: Into<String>>(
        path: &Path,
        mut file: NamedTempFile,
        layers: impl IntoIterator<Item = L>,
    ) -> io::Result<Self> {
        let layers: BTreeMap<String, bool> =
            layers.into_iter().map(|l| (l.into(), false)).collect();
        let room = room(layers.keys())?;
        // The header is JSON, and may be followed by blanks.
        file.write_all(&vec![b' '; room])?;
        let written = Checkpoint {
            room,
            layers,
            len: 0,
            tensors: Vec::new(),
        };
        Ok(Self::with(path, file, written))
    }

    fn with(path: &Path, file: NamedTempFile, written: Checkpoint) -> Self {
        Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            written,
            broken: false,
        }
    }

    /// Adds a layer.
    ///
    /// # Errors
    ///
    /// [`FileError::RepeatedLayer`] if there is one of this name, [`FileError::UnexpectedLayer`] if
    /// it is not one of those the file was begun for, [`FileError::Access`] if the operating system
    /// refuses, as on a full disk. Then the file cannot be finished, only resumed from a
    /// checkpoint.
    pub fn add(&mut self, layer: &str, stats: &LayerStats) -> Result<()> {
        let (path, name) = (self.path.clone(), layer.to_owned());
        match self.written.layers.get_mut(layer) {
            None => {
                return Err(Error::File(FileError::UnexpectedLayer {
                    path,
                    layer: name,
                }));
            }
            Some(true) => return Err(Error::File(FileError::RepeatedLayer { path, layer: name })),
            Some(added) => *added = true,
        }
        let parts = Parts {
            writer: self,
            layer,
            checksums: Vec::new(),
        };
        let result = match stats {
            LayerStats::Norms(norms) => parts.norms(norms),
            LayerStats::Gram(gram) => parts.gram(&StoredGram::from(gram)),
        };
        self.broken |= result.is_err();
        result.map_err(|error| access(&self.path, "write", &error))
    }

    /// Makes what has been added so far safe, and returns what is needed to resume from there.
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if the operating system refuses.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.sync()
            .map_err(|error| access(&self.path, "write", &error))?;
        Ok(self.written.clone())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.file.flush()?;
        self.file.get_ref().as_file().sync_all()
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a layer could not be written"));
        }
        Ok(())
    }

    /// Completes the file and moves it to its place. A file that is there is replaced. Layers that
    /// were named and never added are not in it.
    ///
    /// # Errors
    ///
    /// [`FileError::Access`] if the operating system refuses; what was there stays as it is.
    pub fn finish(self) -> Result<()> {
        let path = self.path.clone();
        self.publish()
            .map_err(|error| access(&path, "write", &error))
    }

    fn publish(self) -> io::Result<()> {
        self.check()?;
        let Checkpoint { room, tensors, .. } = self.written;
        let header = Metadata::new(Some(format()), tensors).map_err(io::Error::other)?;
        let header = serde_json::to_vec(&header)?;
        let length = room.checked_sub(LENGTH);
        let length = length
            .filter(|&length| header.len() <= length)
            .ok_or_else(|| io::Error::other("there is not enough room for the header"))?;
        let mut file = self.file.into_inner().map_err(io::Error::from)?;
        file.as_file_mut().rewind()?;
        file.write_all(&(length as u64).to_le_bytes())?;
        file.write_all(&header)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    /// Appends a tensor and returns its checksum.
    fn tensor<T: Number>(
        &mut self,
        name: String,
        shape: Vec<usize>,
        numbers: &[T],
    ) -> io::Result<u32> {
        let mut checksum = crc32fast::Hasher::new();
        let start = self.written.len;
        let mut bytes = Vec::new();
        for run in numbers.chunks(RUN) {
            bytes.clear();
            for &number in run {
                bytes.extend_from_slice(number.to_bytes().as_ref());
            }
            checksum.update(&bytes);
            self.file.write_all(&bytes)?;
            self.written.len += bytes.len();
        }
        let info = TensorInfo {
            dtype: T::DTYPE,
            shape,
            data_offsets: (start, self.written.len),
        };
        self.written.tensors.push((name, info));
        Ok(checksum.finalize())
    }
}

/// Numbers that are written at a time.
const RUN: usize = 1 << 14;

/// The tensors of one layer as they are appended.
struct Parts<'a> {
    writer: &'a mut StatsWriter,
    layer: &'a str,
    checksums: Vec<u32>,
}

impl Parts<'_> {
    fn norms(mut self, norms: &ColumnNorms) -> io::Result<()> {
        self.add_norms(norms)?;
        self.add_checksums()
    }

    fn gram(mut self, gram: &StoredGram<'_>) -> io::Result<()> {
        let n = gram.norms.features();
        let tokens = |values: usize| vec![values.checked_div(n).unwrap_or(0), n];
        self.add_norms(&gram.norms)?;
        let products = gram.folded.entries();
        self.add(Part::Products, vec![products.len()], products)?;
        self.add(
            Part::PendingF32,
            tokens(gram.pending_f32.len()),
            &gram.pending_f32,
        )?;
        self.add(
            Part::PendingF64,
            tokens(gram.pending_f64.len()),
            &gram.pending_f64,
        )?;
        self.add_checksums()
    }

    fn add_norms(&mut self, norms: &ColumnNorms) -> io::Result<()> {
        let sums = norms.sums_of_squares();
        self.add(Part::Features, vec![1], &[norms.features() as u64])?;
        self.add(Part::Tokens, vec![1], &[norms.tokens()])?;
        self.add(Part::Weight, vec![1], &[norms.weight()])?;
        self.add(Part::Sums, vec![sums.len()], sums)
    }

    fn add_checksums(mut self) -> io::Result<()> {
        let checksums = std::mem::take(&mut self.checksums);
        self.add(Part::Checksums, vec![checksums.len()], &checksums)
    }

    fn add<T: Number>(&mut self, part: Part, shape: Vec<usize>, numbers: &[T]) -> io::Result<()> {
        let name = part.of(self.layer);
        self.checksums
            .push(self.writer.tensor(name, shape, numbers)?);
        Ok(())
    }
}

/// Bytes of the header's length, which comes first.
const LENGTH: usize = size_of::<u64>();

/// The metadata of a file.
fn format() -> HashMap<String, String> {
    [(FORMAT.to_owned(), VERSION.to_owned())].into()
}

/// Bytes in front of the tensors: as many as the longest header of these layers takes.
fn room<'a>(layers: impl Iterator<Item = &'a String>) -> io::Result<usize> {
    let tensors = layers.flat_map(|layer| Part::ALL.map(|part| (part.of(layer), part.dtype())));
    let longest = |dtype| TensorInfo {
        dtype,
        shape: vec![usize::MAX; 2],
        data_offsets: (usize::MAX, usize::MAX),
    };
    let tensors: HashMap<String, TensorInfo> = tensors
        .map(|(name, dtype)| (name, longest(dtype)))
        .collect();
    let header = serde_json::to_vec(&(("__metadata__", format()), tensors))?;
    // Readers that map the file into memory want the numbers aligned.
    Ok((LENGTH + header.len()).next_multiple_of(8))
}

/// The folder a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A temporary file with a name, which goes away unless it is moved. It may be read by whoever may
/// read files that are made the usual way.
fn named(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".statistics-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// A file that stays where it is unless it is moved.
fn kept(file: File, path: &Path) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::from_parts(file, TempPath::try_from_path(path)?);
    file.disable_cleanup(true);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn a_file_that_lacks_a_part_of_a_layer_is_not_finished() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("statistics");
        let mut writer = StatsWriter::create(&path, ["up"]).expect("a folder to write to");
        let source = folder.path().join("read-only");
        std::fs::write(&source, "").expect("a file");
        // As on a full disk: writing fails.
        let file = File::open(&source).expect("the file just written");
        writer.file = BufWriter::new(kept(file, &source).expect("a path"));
        let mut norms = ColumnNorms::new(10_000);
        norms
            .update(&Array2::<f32>::ones((1, 10_000)))
            .expect("finite inputs");
        let error = writer.add("up", &norms.into()).expect_err("no place");
        assert!(matches!(
            error,
            Error::File(FileError::Access {
                action: "write",
                ..
            })
        ));
        for error in [writer.checkpoint().map(drop), writer.finish()] {
            let error = error.expect_err("a layer is missing").to_string();
            assert!(error.contains("could not be written"), "{error}");
        }
        assert!(!path.exists());
    }

    /// Whatever the statistics: the longest numbers, and names that JSON writes longer.
    #[test]
    fn there_is_room_for_every_header() {
        let layers = ["", "model.layers.0.mlp.up_proj", "\"\\\n\u{1}", "\u{fffd}"];
        let layers = layers.map(str::to_owned);
        let mut len = 0;
        let mut tensors = Vec::new();
        for part in layers
            .iter()
            .flat_map(|layer| Part::ALL.map(|part| (layer, part)))
        {
            let (layer, part) = part;
            let size = usize::MAX / 1000 / part.dtype().bitsize() * 8;
            tensors.push((
                part.of(layer),
                TensorInfo {
                    dtype: part.dtype(),
                    shape: vec![1, size],
                    data_offsets: (len, len + size * part.dtype().bitsize() / 8),
                },
            ));
            len += size * part.dtype().bitsize() / 8;
        }
        let header = Metadata::new(Some(format()), tensors).expect("tensors one after the other");
        let header = serde_json::to_vec(&header).expect("a header");
        let room = room(layers.iter()).expect("layers");
        assert!(header.len() + LENGTH <= room, "{} {room}", header.len());
        assert!(room < 2 * header.len());
    }
}
