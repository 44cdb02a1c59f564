//! Which weights may go together? Patterns of sparsity.

mod block;
mod cumulative;
mod given;
mod n_of_m;
mod per_output;
mod text;
mod validate;

pub use crate::select::LayerCut;
pub use validate::validate;

use std::fmt::Debug;
use std::ops::Range;

use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::{Mask, MaskRow};
use crate::matrix::Rows;
use crate::select;

/// Which weights of a layer go, given the score of each.
///
/// A pattern decides a whole layer in [`project`](Self::project). One that decides each row on
/// its own says so with [`row_rule`](Self::row_rule); its rows are then scored, decided and
/// pruned one by one while they are in the cache. [`Pattern`] has those of this crate.
///
/// Scores are finite and not negative, but for those of protected weights, which are infinite
/// and so come last. What the patterns of this crate make of other numbers is not said; it is no
/// panic.
pub trait SparsityPattern<T: Real = f32>: Debug + Send + Sync {
    /// The name to use in messages.
    fn name(&self) -> String {
        format!("{self:?}")
    }

    /// Checks that the pattern makes sense for a layer of this shape. Called before any work.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the pattern, for example [`Error::InvalidSparsity`].
    fn check(&self, rows: usize, columns: usize) -> Result<()>;

    /// Marks the weights to prune, in a mask of the shape of `scores`.
    ///
    /// # Errors
    ///
    /// What reading `scores` gives, and [`Error::TooLarge`] if there is no memory for the mask.
    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask>;

    /// Marks the weights of a block of columns to prune, for an update that decides a layer block
    /// by block. `scores` are those of `block` alone; the whole layer has `columns` columns.
    ///
    /// By default the block is decided like a layer. A pattern whose count is rounded should see
    /// to it that the counts of all blocks add up.
    ///
    /// # Errors
    ///
    /// As [`project`](Self::project), and [`Error::BlockShape`] if `scores` are not those of such a
    /// block.
    fn project_block(
        &self,
        scores: &dyn Rows<T>,
        block: Range<usize>,
        columns: usize,
    ) -> Result<Mask> {
        let _ = (block, columns);
        self.project(scores)
    }

    /// A block that is decided alone must be a multiple of this many columns. By default 1.
    fn block_columns(&self) -> usize {
        1
    }

    /// The rule for a single row, if that is as far as one decision reaches. By default it is
    /// not: the pattern needs the whole layer.
    fn row_rule(&self) -> Option<Box<dyn RowRule<T> + '_>> {
        None
    }

    /// Where the weights end that go, for a pattern that takes those of a whole layer whose scores
    /// are lowest, and no others. Rows are then scored once more, decided and pruned one by one,
    /// and no mask is made. By default it is another pattern.
    ///
    /// # Errors
    ///
    /// What reading `scores` gives.
    fn layer_cut(&self, scores: &dyn Rows<T>) -> Result<Option<LayerCut<T>>> {
        let _ = scores;
        Ok(None)
    }

    /// Checks that a finished matrix with these zeros has the pattern.
    ///
    /// By default it does if the pattern, given a score of 1 for every weight that is not zero,
    /// would prune nothing but zeros.
    ///
    /// # Errors
    ///
    /// [`Error::PatternViolated`] with the first weight that should be zero, and what
    /// [`check`](Self::check) gives.
    fn validate(&self, zeros: &Mask) -> Result<()> {
        validate::validate_projection(self, zeros)
    }
}

/// How a pattern decides a row that it can decide alone.
pub trait RowRule<T: Real = f32>: Send + Sync {
    /// Marks the weights of a row to prune. `marks` has a column for each score and is empty.
    ///
    /// A rule that decides in [groups](Self::group) may be given the groups of several rows, one
    /// after the other.
    ///
    /// The scores of protected weights are infinite. A rule that marks one all the same makes
    /// pruning fail with [`Error::TooManyProtected`].
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>);

    /// How far one decision reaches: to the end of a run of this many columns, counted from
    /// column 0, or, by default, of the row.
    fn group(&self) -> Option<usize> {
        None
    }

    /// How many of so many columns are marked, those of a row or a [group](Self::group), for a rule
    /// that marks the lowest scores, of equal ones those in the lowest columns, and no others. They
    /// can then be decided while they are scored, without [`select`](Self::select). By default the
    /// rule is another one.
    fn lowest(&self, columns: usize) -> Option<usize> {
        let _ = columns;
        None
    }
}

/// Decides a layer row by row: [`SparsityPattern::project`] for patterns with a [`RowRule`].
///
/// # Errors
///
/// What reading `scores` gives, and [`Error::TooLarge`] if there is no memory for the mask.
pub fn project_rows<T: Real>(rule: &dyn RowRule<T>, scores: &dyn Rows<T>) -> Result<Mask> {
    select::mark_rows(scores, |_, scores, marks| rule.select(scores, marks))
}

/// The patterns of this crate.
///
/// A sparsity s is the fraction to prune, at least 0 and less than 1. Counts are rounded down,
/// in `f64`, and met exactly: of equal scores the lower column goes first, in one column the
/// lower row.
///
/// # Text
///
/// A pattern can be written and read:
///
/// ```
/// use wanda::Pattern;
///
/// assert_eq!("0.5".parse(), Ok(Pattern::PerOutput(0.5)));
/// assert_eq!("per-output:0.5".parse(), Ok(Pattern::PerOutput(0.5)));
/// assert_eq!("per-layer:0.5".parse(), Ok(Pattern::PerLayer(0.5)));
/// assert_eq!("per-input:0.5".parse(), Ok(Pattern::PerInput(0.5)));
/// assert_eq!("2:4".parse(), Ok(Pattern::NOfM { keep: 2, of: 4 }));
/// let block = Pattern::Block { rows: 16, cols: 4, sparsity: 0.5 };
/// assert_eq!("block:16x4:0.5".parse(), Ok(block));
/// assert_eq!("cumulative:0.5".parse(), Ok(Pattern::Cumulative(0.5)));
/// assert_eq!("threshold:0.5".parse(), Ok(Pattern::Threshold(0.5)));
/// assert_eq!(block.to_string(), "block:16x4:0.5");
/// ```
///
/// # Complexity
///
/// For m rows and n columns: time linear in m · n, but for [`Cumulative`](Self::Cumulative),
/// which sorts. `PerOutput` and `NOfM` need a few rows of memory a thread, `PerLayer` and
/// `Threshold` besides room for the scores around the threshold, one in eight at most or 65536, the
/// others the mask and what is said with each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "String", try_from = "String")
)]
#[non_exhaustive]
pub enum Pattern {
    /// Prunes exactly `floor(columns * s)` weights of every row (output): the comparison group of
    /// the Wanda paper.
    PerOutput(f64),
    /// Prunes exactly `floor(rows * columns * s)` weights of the layer, wherever they are.
    PerLayer(f64),
    /// Prunes exactly `floor(rows * s)` weights of every column (input). Holds the scores of 64
    /// columns a thread, and a second time where many of a column are equal.
    PerInput(f64),
    /// Leaves at most `keep` weights of every run of `of` consecutive columns of a row. Written
    /// `keep:of`; the first number is what is **kept**.
    ///
    /// A short last run may keep as many. Runs start at column 0 of every row.
    NOfM {
        /// Weights of a run that stay, at least 1.
        keep: usize,
        /// Weights of a run.
        of: usize,
    },
    /// Prunes exactly `floor(blocks * s)` whole blocks: those with the least sum of scores in the
    /// layer.
    ///
    /// Blocks start at row 0 and column 0; those at the far edges may be smaller and are ranked
    /// by their sum like all others. Takes 8 bytes of memory a block.
    Block {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        cols: usize,
        /// The fraction of blocks to prune.
        sparsity: f64,
    },
    /// The variant of the Wanda paper's appendix: each row loses its lowest scores up to where
    /// they make up a fraction α of the row's sum, so that rows differ in sparsity.
    ///
    /// α is the same for all rows. It is found by halving the range 0 to 0.8 until the sparsity
    /// of the layer is within 0.001 of s or the range is narrower than 0.001, so the sparsity is
    /// met only about. Scores equal to the highest pruned one go too. Holds all scores sorted,
    /// one number a weight.
    Cumulative(f64),
    /// Prunes every score up to and including the one of rank `floor(rows * columns * s)`,
    /// counted from 0: the rule of the published magnitude and SparseGPT code.
    ///
    /// It prunes at least one weight more than [`PerLayer`](Self::PerLayer), and all ties.
    /// SparseGPT applies it to each block of columns.
    Threshold(f64),
}

impl Pattern {
    /// The same pattern with another sparsity; `None` for N:M, whose numbers are its sparsity.
    ///
    /// # Example
    ///
    /// ```
    /// use wanda::Pattern;
    ///
    /// let denser = Pattern::PerLayer(0.5).with_sparsity(0.25);
    /// assert_eq!(denser, Some(Pattern::PerLayer(0.25)));
    /// assert_eq!(Pattern::NOfM { keep: 2, of: 4 }.with_sparsity(0.25), None);
    /// ```
    #[must_use]
    pub fn with_sparsity(self, sparsity: f64) -> Option<Self> {
        Some(match self {
            Self::PerOutput(_) => Self::PerOutput(sparsity),
            Self::PerLayer(_) => Self::PerLayer(sparsity),
            Self::PerInput(_) => Self::PerInput(sparsity),
            Self::NOfM { .. } => return None,
            Self::Block { rows, cols, .. } => Self::Block {
                rows,
                cols,
                sparsity,
            },
            Self::Cumulative(_) => Self::Cumulative(sparsity),
            Self::Threshold(_) => Self::Threshold(sparsity),
        })
    }
}

/// A pointer to a pattern is a pattern.
macro_rules! pattern_behind {
    ($pointer:ty) => {
        impl<T: Real, P: SparsityPattern<T> + ?Sized> SparsityPattern<T> for $pointer {
            fn name(&self) -> String {
                (**self).name()
            }

            fn check(&self, rows: usize, columns: usize) -> Result<()> {
                (**self).check(rows, columns)
            }

            fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
                (**self).project(scores)
            }

            fn project_block(
                &self,
                scores: &dyn Rows<T>,
                block: Range<usize>,
                columns: usize,
            ) -> Result<Mask> {
                (**self).project_block(scores, block, columns)
            }

            fn block_columns(&self) -> usize {
                (**self).block_columns()
            }

            fn row_rule(&self) -> Option<Box<dyn RowRule<T> + '_>> {
                (**self).row_rule()
            }

            fn layer_cut(&self, scores: &dyn Rows<T>) -> Result<Option<LayerCut<T>>> {
                (**self).layer_cut(scores)
            }

            fn validate(&self, zeros: &Mask) -> Result<()> {
                (**self).validate(zeros)
            }
        }
    };
}

pattern_behind!(&P);
pattern_behind!(Box<P>);

impl<T: Real> SparsityPattern<T> for Pattern {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        match *self {
            Self::NOfM { keep, of } if keep < 1 || keep > of => {
                Err(Error::InvalidGroup { keep, of })
            }
            Self::NOfM { .. } => Ok(()),
            Self::Block { rows, cols, .. } if rows < 1 || cols < 1 => Err(Error::InvalidBlock {
                rows,
                columns: cols,
            }),
            Self::PerOutput(sparsity)
            | Self::PerLayer(sparsity)
            | Self::PerInput(sparsity)
            | Self::Cumulative(sparsity)
            | Self::Threshold(sparsity)
            | Self::Block { sparsity, .. } => check_sparsity(sparsity),
        }
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule<T> + '_>> {
        match *self {
            Self::PerOutput(sparsity) => Some(Box::new(per_output::PerOutput { sparsity })),
            Self::NOfM { keep, of } => Some(Box::new(n_of_m::NOfM::new(keep, of))),
            _ => None,
        }
    }

    fn layer_cut(&self, scores: &dyn Rows<T>) -> Result<Option<LayerCut<T>>> {
        let scores = &Steady::new(scores);
        let (rows, columns) = scores.dim();
        SparsityPattern::<T>::check(self, rows, columns)?;
        let weights = area(rows, columns)?;
        match *self {
            Self::PerLayer(sparsity) => {
                select::cut_lowest(scores, quota(weights, sparsity)).map(Some)
            }
            Self::Threshold(sparsity) => {
                select::cut_up_to_rank(scores, quota(weights, sparsity)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        let scores = &Steady::new(scores);
        let (height, columns) = scores.dim();
        SparsityPattern::<T>::check(self, height, columns)?;
        let weights = area(height, columns)?;
        match *self {
            Self::PerOutput(sparsity) => project_rows(&per_output::PerOutput { sparsity }, scores),
            Self::PerLayer(sparsity) => {
                select::cut_lowest(scores, quota(weights, sparsity))?.project(scores)
            }
            Self::PerInput(sparsity) => {
                select::mark_lowest_of_columns(scores, quota(height, sparsity))
            }
            Self::NOfM { keep, of } => project_rows(&n_of_m::NOfM::new(keep, of), scores),
            Self::Block {
                rows,
                cols,
                sparsity,
            } => {
                let blocks = height.div_ceil(rows) * columns.div_ceil(cols);
                block::mark_lowest(scores, (rows, cols), quota(blocks, sparsity))
            }
            Self::Cumulative(sparsity) => cumulative::project(scores, sparsity),
            Self::Threshold(sparsity) => {
                select::cut_up_to_rank(scores, quota(weights, sparsity))?.project(scores)
            }
        }
    }

    fn project_block(
        &self,
        scores: &dyn Rows<T>,
        block: Range<usize>,
        columns: usize,
    ) -> Result<Mask> {
        let scores = &Steady::new(scores);
        let (rows, width) = scores.dim();
        SparsityPattern::<T>::check(self, rows, columns)?;
        check_block(width, &block, columns)?;
        area(rows, columns)?;
        // What is pruned up to the end of the block, less what was pruned before it, adds up to
        // the exact count.
        let share = |count_at: &dyn Fn(usize) -> usize, sparsity: f64| {
            quota(count_at(block.end), sparsity) - quota(count_at(block.start), sparsity)
        };
        match *self {
            Self::PerOutput(sparsity) => {
                let count = share(&|column| column, sparsity);
                project_rows(&per_output::Lowest { count }, scores)
            }
            Self::PerLayer(sparsity) => {
                let count = share(&|column| rows * column, sparsity);
                select::cut_lowest(scores, count)?.project(scores)
            }
            Self::Block {
                rows: height,
                cols,
                sparsity,
            } => {
                let blocks = |column: usize| rows.div_ceil(height) * column.div_ceil(cols);
                block::mark_lowest(scores, (height, cols), share(&blocks, sparsity))
            }
            _ => self.project(scores),
        }
    }

    fn block_columns(&self) -> usize {
        match *self {
            Self::NOfM { of, .. } => of,
            Self::Block { cols, .. } => cols,
            _ => 1,
        }
    }

    fn validate(&self, zeros: &Mask) -> Result<()> {
        match *self {
            Self::Cumulative(sparsity) => {
                check_sparsity(sparsity)?;
                cumulative::validate(self, zeros, sparsity)
            }
            _ => validate::validate_projection::<T>(self, zeros),
        }
    }
}

/// Scores that are asked for their shape but once, so that it cannot change on the way.
struct Steady<'a, T> {
    scores: &'a dyn Rows<T>,
    dim: (usize, usize),
}

impl<'a, T: Real> Steady<'a, T> {
    fn new(scores: &'a dyn Rows<T>) -> Self {
        let dim = scores.dim();
        Self { scores, dim }
    }
}

impl<T: Real> Rows<T> for Steady<'_, T> {
    fn dim(&self) -> (usize, usize) {
        self.dim
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        self.scores.read(row, start, out)
    }

    fn read_block(&self, row: usize, start: usize, width: usize, out: &mut [T]) -> Result<()> {
        self.scores.read_block(row, start, width, out)
    }
}

/// How many weights a layer has.
///
/// # Errors
///
/// [`Error::TooLarge`] if there is no such number.
fn area(rows: usize, columns: usize) -> Result<usize> {
    rows.checked_mul(columns)
        .ok_or(Error::TooLarge { rows, columns })
}

/// Checks that `width` columns of scores can be those of a block of a layer with `columns` columns.
///
/// # Errors
///
/// [`Error::BlockShape`] if the layer has no such block, or it has another number of columns.
fn check_block(width: usize, block: &Range<usize>, columns: usize) -> Result<()> {
    if block.start <= block.end && block.end <= columns && block.len() == width {
        return Ok(());
    }
    Err(Error::BlockShape {
        start: block.start,
        end: block.end,
        columns,
        scores: width,
    })
}

/// How many of `count` things a sparsity prunes.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product lies between 0 and `count`, and rounding down is what is defined"
)]
fn quota(count: usize, sparsity: f64) -> usize {
    (count as f64 * sparsity) as usize
}

fn check_sparsity(sparsity: f64) -> Result<()> {
    if (0.0..1.0).contains(&sparsity) {
        Ok(())
    } else {
        Err(Error::InvalidSparsity { sparsity })
    }
}
