//! Patterns as text.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::{Pattern, SparsityPattern};
use crate::error::{Error, Result};

impl Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerOutput(sparsity) => write!(f, "{sparsity}"),
            Self::PerLayer(sparsity) => write!(f, "per-layer:{sparsity}"),
            Self::PerInput(sparsity) => write!(f, "per-input:{sparsity}"),
            Self::NOfM { keep, of } => write!(f, "{keep}:{of}"),
            Self::Block {
                rows,
                cols,
                sparsity,
            } => write!(f, "block:{rows}x{cols}:{sparsity}"),
            Self::Cumulative(sparsity) => write!(f, "cumulative:{sparsity}"),
            Self::Threshold(sparsity) => write!(f, "threshold:{sparsity}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    /// Reads what [`Display`] writes, and `per-output:0.5` for `0.5`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::ParsePattern {
            text: text.to_owned(),
            reason,
        };
        let sparsity = |part: &str| {
            part.parse::<f64>()
                .map_err(|_| wrong(format!("`{part}` is not a sparsity")))
        };
        let size = |part: &str| {
            part.parse::<usize>().map_err(|_| {
                wrong(format!(
                    "`{part}` is neither a whole number nor the name of a pattern"
                ))
            })
        };
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let pattern = match parts[..] {
            [s] | ["per-output", s] => Self::PerOutput(sparsity(s)?),
            ["per-layer", s] => Self::PerLayer(sparsity(s)?),
            ["per-input", s] => Self::PerInput(sparsity(s)?),
            ["cumulative", s] => Self::Cumulative(sparsity(s)?),
            ["threshold", s] => Self::Threshold(sparsity(s)?),
            ["block", shape, s] => {
                let (rows, cols) = shape
                    .split_once('x')
                    .ok_or_else(|| wrong(format!("`{shape}` is not a block shape like 16x4")))?;
                Self::Block {
                    rows: size(rows)?,
                    cols: size(cols)?,
                    sparsity: sparsity(s)?,
                }
            }
            [keep, of] => Self::NOfM {
                keep: size(keep)?,
                of: size(of)?,
            },
            _ => return Err(wrong("it has too many parts".to_owned())),
        };
        SparsityPattern::<f64>::check(&pattern, 0, 0)?;
        Ok(pattern)
    }
}

#[cfg(feature = "serde")]
impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
