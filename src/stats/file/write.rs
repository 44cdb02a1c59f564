//! Writing a file of statistics.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};

use super::part::{Number, Part};
use super::{FORMAT, LayerStats, VERSION, access};
use crate::error::{Error, Result};
#[cfg(any(feature = "faer", feature = "lapack"))]
use crate::stats::gram::StoredGram;
use crate::stats::{ActivationStats, ColumnNorms};

/// Writes a file of statistics layer by layer.
///
/// What is added goes to a file without a name in the same folder, so memory holds no more than
/// the layer at hand. The file appears under its name when [`finish`](Self::finish) has copied it
/// behind its header. Dropped before, it leaves nothing behind.
///
/// # Example
///
/// ```
/// use wanda::stats::file::{StatsFile, StatsWriter};
/// use wanda::{ActivationStats, ColumnNorms, ndarray::array};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("statistics.safetensors");
/// let mut writer = StatsWriter::create(&path)?;
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
    body: BufWriter<File>,
    /// Bytes in the body.
    len: usize,
    tensors: Vec<(String, TensorInfo)>,
    layers: BTreeSet<String>,
    /// Whether a layer could not be written, so that the body is not what the tensors say.
    broken: bool,
}

impl StatsWriter {
    /// Begins a file without layers.
    ///
    /// # Errors
    ///
    /// [`Error::StatsFileAccess`] if nothing can be written to the folder it is to be in.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let body = tempfile::tempfile_in(folder(path)).map_err(|e| access(path, "create", &e))?;
        Ok(Self {
            path: path.to_owned(),
            body: BufWriter::new(body),
            len: 0,
            tensors: Vec::new(),
            layers: BTreeSet::new(),
            broken: false,
        })
    }

    /// Adds a layer.
    ///
    /// # Errors
    ///
    /// [`Error::LayerTwice`] if there is one of this name, [`Error::StatsFileAccess`] if the
    /// operating system refuses, as on a full disk. Then the file cannot be finished.
    pub fn add(&mut self, layer: &str, stats: &LayerStats) -> Result<()> {
        if !self.layers.insert(layer.to_owned()) {
            return Err(Error::LayerTwice {
                path: self.path.clone(),
                layer: layer.to_owned(),
            });
        }
        let parts = Parts {
            writer: self,
            layer,
            checksums: Vec::new(),
        };
        let result = match stats {
            LayerStats::Norms(norms) => parts.norms(norms),
            #[cfg(any(feature = "faer", feature = "lapack"))]
            LayerStats::Gram(gram) => parts.gram(&StoredGram::from(gram)),
        };
        self.broken |= result.is_err();
        result.map_err(|error| access(&self.path, "write", &error))
    }

    /// Completes the file and moves it to its place. A file that is there is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::StatsFileAccess`] if the operating system refuses; what was there stays as it is.
    pub fn finish(self) -> Result<()> {
        let path = self.path.clone();
        self.publish()
            .map_err(|error| access(&path, "write", &error))
    }

    fn publish(self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("a layer could not be written"));
        }
        let format = [(FORMAT.to_owned(), VERSION.to_owned())].into();
        let header = Metadata::new(Some(format), self.tensors).map_err(io::Error::other)?;
        let mut header = serde_json::to_vec(&header)?;
        // Readers that map the file into memory want the numbers aligned.
        header.resize(header.len().next_multiple_of(8), b' ');

        let mut body = self.body.into_inner().map_err(io::Error::from)?;
        body.rewind()?;
        let mut whole = named(folder(&self.path))?;
        whole.write_all(&(header.len() as u64).to_le_bytes())?;
        whole.write_all(&header)?;
        io::copy(&mut body, whole.as_file_mut())?;
        whole.as_file().sync_all()?;
        whole.persist(&self.path)?;
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
        let start = self.len;
        let mut bytes = Vec::new();
        for run in numbers.chunks(RUN) {
            bytes.clear();
            for &number in run {
                bytes.extend_from_slice(number.to_bytes().as_ref());
            }
            checksum.update(&bytes);
            self.body.write_all(&bytes)?;
            self.len += bytes.len();
        }
        let info = TensorInfo {
            dtype: T::DTYPE,
            shape,
            data_offsets: (start, self.len),
        };
        self.tensors.push((name, info));
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

    #[cfg(any(feature = "faer", feature = "lapack"))]
    fn gram(mut self, gram: &StoredGram<'_>) -> io::Result<()> {
        let n = gram.norms.features();
        let tokens = |values: usize| vec![values.checked_div(n).unwrap_or(0), n];
        self.add_norms(&gram.norms)?;
        let products = gram.folded.entries();
        self.add(Part::Products, vec![products.len()], products)?;
        self.add(Part::Narrow, tokens(gram.narrow.len()), &gram.narrow)?;
        self.add(Part::Wide, tokens(gram.wide.len()), &gram.wide)?;
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

/// The folder a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A temporary file with a name, which goes away unless it is moved. It may be read by whoever may
/// read files that are made the usual way.
fn named(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".statistics-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn a_file_that_lacks_a_part_of_a_layer_is_not_finished() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("statistics");
        let mut writer = StatsWriter::create(&path).expect("a folder that can be written to");
        let source = folder.path().join("read-only");
        std::fs::write(&source, "").expect("a file");
        // As on a full disk: writing fails.
        writer.body = BufWriter::new(File::open(source).expect("the file just written"));
        let mut norms = ColumnNorms::new(10_000);
        norms
            .update(&Array2::<f32>::ones((1, 10_000)))
            .expect("finite inputs");
        let error = writer.add("up", &norms.into()).expect_err("no place");
        assert!(matches!(
            error,
            Error::StatsFileAccess {
                action: "write",
                ..
            }
        ));
        let error = writer.finish().expect_err("a layer is missing");
        assert!(
            error.to_string().contains("could not be written"),
            "{error}"
        );
        assert!(!path.exists());
    }
}
