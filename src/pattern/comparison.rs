//! From what is compared, and how many go, to masks.

use std::ops::Range;

use super::SparsityPattern;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::{Mask, check_shape};
use crate::matrix::{FixedShape, Rows};
use crate::select::{cut_lowest, mark_lowest_blocks, mark_lowest_of_columns, mark_rows, mark_runs};

/// Which weights are compared with each other: the comparison group of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComparisonGroup {
    /// The weights of a row, an output.
    Row,
    /// Those of a run of so many consecutive columns of a row, counted from column 0; the last one
    /// may be shorter. A run of 0 columns is one of 1.
    Run(usize),
    /// The weights of a column, an input.
    Column,
    /// All weights of the layer.
    Layer,
    /// All blocks of the layer, each as one that scores the sum of its scores. Blocks start at row
    /// 0 and column 0, and those at the far edges may be smaller. Sides of 0 are sides of 1.
    Blocks {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
}

impl ComparisonGroup {
    /// How many columns belong together, so that a block of columns that is decided alone has to
    /// end with them.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Run(columns) | Self::Blocks { columns, .. } => columns.max(1),
            Self::Row | Self::Column | Self::Layer => 1,
        }
    }
}

/// What a pattern decides of a layer, or of a block of its columns, in numbers: it was asked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// So many of every row go.
    Row { count: usize },
    /// So many of every run of `of` columns, and of the shorter one at the end.
    Run {
        of: usize,
        count: usize,
        of_last: usize,
    },
    /// So many of every column.
    Column { count: usize },
    /// So many of all.
    Layer { count: usize },
    /// So many of all blocks.
    Blocks {
        rows: usize,
        columns: usize,
        count: usize,
    },
}

impl Decision {
    /// Asks a pattern what it decides of `columns` of a layer that has so many rows; `None` if it
    /// decides by code.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a layer of more weights than can be counted.
    pub(crate) fn of<T: Real>(
        pattern: &(impl SparsityPattern<T> + ?Sized),
        rows: usize,
        columns: &Range<usize>,
    ) -> Result<Option<Self>> {
        let Some(comparison) = pattern.comparison() else {
            return Ok(None);
        };
        rows.checked_mul(columns.end).ok_or(Error::TooLarge {
            rows,
            columns: columns.end,
        })?;
        let count = |size: usize| pattern.count(size).min(size);
        // What goes up to the end of the block, less what went before it, adds up to the count of
        // the layer.
        let share = |size: &dyn Fn(usize) -> usize| {
            let (before, up_to) = (size(columns.start), size(columns.end));
            let share = count(up_to).saturating_sub(count(before));
            share.min(up_to - before)
        };
        Ok(Some(match comparison {
            ComparisonGroup::Row => Self::Row {
                count: share(&|column| column),
            },
            ComparisonGroup::Run(_) => {
                let of = comparison.width();
                Self::Run {
                    of,
                    count: count(of),
                    of_last: count(columns.len() % of),
                }
            }
            ComparisonGroup::Column => Self::Column { count: count(rows) },
            ComparisonGroup::Layer => Self::Layer {
                count: share(&|column| rows * column),
            },
            ComparisonGroup::Blocks { rows: height, .. } => {
                let (height, width) = (height.max(1), comparison.width());
                Self::Blocks {
                    rows: height,
                    columns: width,
                    count: share(&|column| rows.div_ceil(height) * column.div_ceil(width)),
                }
            }
        }))
    }

    /// Marks the lowest of each group, in a mask of the shape of `scores`.
    fn project<T: Real>(self, scores: &dyn Rows<T>) -> Result<Mask> {
        match self {
            Self::Row { count } => mark_rows(scores, |_, scores, marks| {
                marks.mark_lowest(0, scores, count);
            }),
            Self::Run { of, count, of_last } => mark_rows(scores, |_, scores, marks| {
                mark_runs(scores, of, count, of_last, marks.words_mut());
            }),
            Self::Column { count } => mark_lowest_of_columns(scores, count),
            Self::Layer { count } => cut_lowest(scores, count)?.project(scores),
            Self::Blocks {
                rows,
                columns,
                count,
            } => mark_lowest_blocks(scores, (rows, columns), count),
        }
    }
}

/// What a pattern prunes of `columns` of a layer, given their scores: the lowest of each comparison
/// group where it has one, or else what its code says.
///
/// # Errors
///
/// As [`SparsityPattern::project`], and [`Error::MaskShape`] for a mask of another shape.
pub(crate) fn project<T: Real>(
    pattern: &(impl SparsityPattern<T> + ?Sized),
    scores: &dyn Rows<T>,
    columns: Range<usize>,
) -> Result<Mask> {
    let scores = FixedShape::new(scores);
    check_block(scores.dim().1, &columns)?;
    let mask = match Decision::of(pattern, scores.dim().0, &columns)? {
        Some(decision) => decision.project(&scores)?,
        None => pattern.project(&scores, columns)?,
    };
    check_shape(scores.dim(), &mask)?;
    Ok(mask)
}

/// What [`SparsityPattern::project`] does by default.
pub(super) fn project_groups<T: Real>(
    pattern: &(impl SparsityPattern<T> + ?Sized),
    scores: &dyn Rows<T>,
    columns: Range<usize>,
) -> Result<Mask> {
    let scores = FixedShape::new(scores);
    let (rows, width) = scores.dim();
    check_block(width, &columns)?;
    pattern.check(rows, columns.end)?;
    let decision = Decision::of(pattern, rows, &columns)?.ok_or_else(|| Error::Custom {
        origin: pattern.name(),
        reason: "the pattern says neither what it compares nor how it projects".to_owned(),
    })?;
    decision.project(&scores)
}

/// Checks that `width` columns of scores can be those of a block of columns.
///
/// # Errors
///
/// [`Error::BlockShape`] if it has another number of columns.
pub(super) fn check_block(width: usize, columns: &Range<usize>) -> Result<()> {
    if columns.start <= columns.end && columns.len() == width {
        return Ok(());
    }
    Err(Error::BlockShape {
        start: columns.start,
        end: columns.end,
        scores: width,
    })
}
