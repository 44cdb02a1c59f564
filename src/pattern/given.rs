//! A mask that is given: the pattern that decides nothing.

use std::ops::Range;

use super::SparsityPattern;
use super::comparison::check_block;
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

    fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
        let (rows, width) = scores.dim();
        check_block(width, &columns)?;
        if rows != self.dim().0 || columns.end > self.dim().1 {
            return Err(Error::MaskShape {
                expected: (rows, columns.end),
                found: self.dim(),
            });
        }
        Mask::from_fn(rows, width, |row, column| {
            self.get(row, columns.start + column) == Some(true)
        })
    }
}
