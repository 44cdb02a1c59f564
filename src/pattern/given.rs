//! A mask that is given: the pattern that decides nothing.

use std::ops::Range;

use super::{SparsityPattern, check_block};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::{Mask, check_shape};
use crate::matrix::Rows;

/// Prunes just the weights that the mask marks, whatever their scores.
///
/// With an update, that is the way to keep a mask and improve the weights that stay.
impl<T: Real> SparsityPattern<T> for Mask {
    fn check(&self, rows: usize, columns: usize) -> Result<()> {
        check_shape((rows, columns), self)
    }

    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        check_shape(scores.dim(), self)?;
        Ok(self.clone())
    }

    fn project_block(
        &self,
        scores: &dyn Rows<T>,
        block: Range<usize>,
        columns: usize,
    ) -> Result<Mask> {
        check_shape((scores.dim().0, columns), self)?;
        check_block(scores.dim().1, &block, columns)?;
        Mask::from_fn(scores.dim().0, block.len(), |row, column| {
            self.get(row, block.start + column) == Some(true)
        })
    }

    fn validate(&self, zeros: &Mask) -> Result<()> {
        check_shape(zeros.dim(), self)?;
        match self.first_common(&zeros.complement()) {
            None => Ok(()),
            Some((row, column)) => Err(Error::PatternViolated {
                pattern: format!("{self:?}"),
                row,
                column,
            }),
        }
    }
}
