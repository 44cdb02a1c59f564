//! Patterns as text.

use std::fmt::{self, Display};
use std::str::FromStr;

use super::parts::Parsed;
use super::{
    Pattern, SparsityPattern, block, cumulative, n_of_m, per_input, per_layer, per_output,
    threshold,
};
use crate::error::{Error, Result};

/// Reads the text of a pattern, given its parts; `None` if it is of another one.
type Parser = fn(&[&str]) -> Option<Parsed>;

/// What reads the text of each pattern. N:M, whose text begins with no name, comes
/// last.
const PARSERS: [Parser; 7] = [
    per_output::parse,
    per_layer::parse,
    per_input::parse,
    cumulative::parse,
    threshold::parse,
    block::parse,
    n_of_m::parse,
];

impl Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.form::<f32>().fmt(f)
    }
}

impl FromStr for Pattern {
    type Err = Error;

    /// Reads what [`Display`] writes, and `per-output:0.5` for `0.5`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let pattern = PARSERS
            .iter()
            .find_map(|parse| parse(&parts))
            .unwrap_or_else(|| Err("it has too many parts".to_owned()))
            .map_err(|reason| Error::ParsePattern {
                text: text.to_owned(),
                reason,
            })?;
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
