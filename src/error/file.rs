//! What can go wrong with files.

use std::io;
use std::path::PathBuf;

/// Why a file could not be read or written; what [`Error::File`](crate::Error::File) holds.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refuses to read or write a file of statistics.
    #[error("cannot {action} the statistics file `{}`: {reason}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        action: &'static str,
        /// The kind of refusal.
        kind: io::ErrorKind,
        /// What the operating system says.
        reason: String,
    },
    /// A safetensors file that does not say it holds statistics, or in another version of the
    /// format.
    #[error(
        "`{}` is not a statistics file of format version {expected}: {}",
        path.display(),
        match found {
            Some(version) => format!("its version is `{version}`"),
            None => "its metadata has no `wanda-statistics`".to_owned(),
        }
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it is in, if it is a statistics file.
        found: Option<String>,
        /// The version that can be read.
        expected: &'static str,
    },
    /// A file of statistics whose parts do not fit together.
    #[error("the statistics file `{}` is damaged in {place}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The header, or a layer or tensor by name.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// A layer that a file of statistics does not have.
    #[error("the statistics file `{}` has no layer `{layer}`", path.display())]
    MissingLayer {
        /// The file.
        path: PathBuf,
        /// The layer asked for.
        layer: String,
    },
    /// A layer that was written to a file of statistics twice.
    #[error("layer `{layer}` is already in the statistics file `{}`", path.display())]
    RepeatedLayer {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: String,
    },
    /// A layer that a file of statistics was not begun for.
    #[error("the statistics file `{}` was not begun for a layer `{layer}`", path.display())]
    UnexpectedLayer {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: String,
    },
}
