//! The rule of the published magnitude and SparseGPT code: all scores up to a threshold.

use std::fmt::{self, Display};
use std::ops::Range;

use super::comparison::check_block;
use super::parts::{Parsed, parse_sparsity};
use super::{Form, Pattern, SparsityPattern, check_sparsity, quota};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::Mask;
use crate::matrix::{FixedShape, Rows};
use crate::select::cut_up_to_rank;

/// Prunes every score up to the one of a rank, ties included. A block of columns is decided like a
/// layer.
#[derive(Debug)]
pub(super) struct Threshold {
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for Threshold {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        check_sparsity(self.sparsity)
    }

    fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
        check_sparsity(self.sparsity)?;
        let scores = FixedShape::new(scores);
        let (rows, width) = scores.dim();
        check_block(width, &columns)?;
        let weights = rows.checked_mul(width).ok_or(Error::TooLarge {
            rows,
            columns: width,
        })?;
        cut_up_to_rank(&scores, quota(weights, self.sparsity))?.project(&scores)
    }
}

impl<T: Real> Form<T> for Threshold {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::Threshold(sparsity))
    }
}

impl Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "threshold:{}", self.sparsity)
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    match parts {
        ["threshold", s] => Some(parse_sparsity(s).map(Pattern::Threshold)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn ties_go_together_and_its_text_can_be_read() {
        let pattern = Threshold { sparsity: 0.5 };
        let mask = pattern.project(&array![[1.0_f32, 2.0, 2.0, 3.0]], 0..4);
        assert_eq!(mask.map(|mask| mask.count()), Ok(3));
        check_text("threshold:0.5", Pattern::Threshold(0.5));
    }
}
