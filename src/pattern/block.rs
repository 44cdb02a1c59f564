//! Whole blocks of weights.

use std::fmt::{self, Display};

use super::parts::{Parsed, parse_size, parse_sparsity};
use super::{ComparisonGroup, Form, Pattern, SparsityPattern, check_sparsity, quota};
use crate::element::Real;
use crate::error::{Error, Result};

/// Prunes the blocks with the least sums of scores.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for Block {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        if self.rows < 1 || self.cols < 1 {
            return Err(Error::InvalidBlock {
                rows: self.rows,
                columns: self.cols,
            });
        }
        check_sparsity(self.sparsity)
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Blocks {
            rows: self.rows,
            columns: self.cols,
        })
    }

    fn count(&self, size: usize) -> usize {
        quota(size, self.sparsity)
    }
}

impl<T: Real> Form<T> for Block {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::Block {
            rows: self.rows,
            cols: self.cols,
            sparsity,
        })
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            cols,
            sparsity,
        } = self;
        write!(f, "block:{rows}x{cols}:{sparsity}")
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    let ["block", shape, sparsity] = parts else {
        return None;
    };
    let shape = shape
        .split_once('x')
        .ok_or_else(|| format!("`{shape}` is not a block shape like 16x4"));
    let pattern = shape.and_then(|(rows, cols)| {
        Ok(Pattern::Block {
            rows: parse_size(rows)?,
            cols: parse_size(cols)?,
            sparsity: parse_sparsity(sparsity)?,
        })
    });
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn its_text_can_be_read() {
        let pattern = Pattern::Block {
            rows: 16,
            cols: 4,
            sparsity: 0.5,
        };
        check_text("block:16x4:0.5", pattern);
    }
}
