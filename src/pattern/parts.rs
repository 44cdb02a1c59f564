//! The parts that texts of patterns are made of.

use super::Pattern;

/// A pattern that was read, or what is wrong with its text.
pub(super) type Parsed = std::result::Result<Pattern, String>;

/// Reads a sparsity, of any value.
pub(super) fn parse_sparsity(part: &str) -> std::result::Result<f64, String> {
    part.parse()
        .map_err(|_| format!("`{part}` is not a sparsity"))
}

/// Reads a number of rows or columns.
pub(super) fn parse_size(part: &str) -> std::result::Result<usize, String> {
    part.parse()
        .map_err(|_| format!("`{part}` is neither a whole number nor the name of a pattern"))
}
