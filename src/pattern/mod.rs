//! Which weights are compared with each other, and how many of them go? One pattern a file.

mod block;
mod comparison;
mod cumulative;
mod given;
mod n_of_m;
mod parts;
mod per_input;
mod per_layer;
mod per_output;
mod text;
mod threshold;
mod validate;

pub use crate::select::mark_rows;
pub use comparison::ComparisonGroup;
pub(crate) use comparison::{Decision, project};
pub use validate::validate;

use std::fmt::{Debug, Display};
use std::ops::Range;

use crate::element::Real;
use crate::error::{Error, Result};
use crate::mask::Mask;
use crate::matrix::Rows;

/// Which weights of a layer go, given the score of each.
///
/// A pattern says what is compared with what, [`comparison`](Self::comparison), and how many of
/// such a group go, [`count`](Self::count): those with the lowest scores, of equal ones the lower
/// column, then the lower row, first. From these two follow the mask of a layer, the share of a
/// block of columns, so that the counts of blocks add up, pruning in passing without a mask, and
/// what [`validate`](fn@validate) checks. A pattern that cannot be said so implements
/// [`project`](Self::project) instead, and that alone. [`Pattern`] has those of this crate.
///
/// Scores are finite and not negative, but for those of protected weights, which are infinite
/// and so come last. What the patterns of this crate make of invalid scores is not said; it is no
/// panic.
///
/// # Example
///
/// ```
/// use wanda::{ComparisonGroup, Magnitude, NoStats, Pruner, Real, SparsityPattern};
/// use wanda::ndarray::array;
///
/// /// Keeps the same number of inputs for every output.
/// #[derive(Debug)]
/// struct Keep(usize);
///
/// impl<T: Real> SparsityPattern<T> for Keep {
///     fn comparison(&self) -> Option<ComparisonGroup> {
///         Some(ComparisonGroup::Row)
///     }
///
///     fn count(&self, size: usize) -> usize {
///         size.saturating_sub(self.0)
///     }
/// }
///
/// let mut w = array![[0.1_f32, -3.0, 0.2], [0.5, 0.6, 0.7]];
/// let report = Pruner::new(Magnitude, Keep(1)).prune(&mut w, &NoStats)?;
/// assert_eq!(w, array![[0.0, -3.0, 0.0], [0.0, 0.0, 0.7]]);
/// assert_eq!(report.pruned(), 4);
/// # Ok::<(), wanda::Error>(())
/// ```
pub trait SparsityPattern<T: Real = f32>: Debug + Send + Sync {
    /// The name to use in messages.
    fn name(&self) -> String {
        format!("{self:?}")
    }

    /// Checks that the pattern makes sense for a layer of this shape. Called before any work. By
    /// default it does.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the pattern, for example [`Error::InvalidSparsity`].
    fn check(&self, rows: usize, columns: usize) -> Result<()> {
        let _ = (rows, columns);
        Ok(())
    }

    /// What is compared with what. `None`, the default, if that is not all there is to say: then
    /// [`project`](Self::project) decides.
    fn comparison(&self) -> Option<ComparisonGroup> {
        None
    }

    /// How many weights of a group of `size` go (of [blocks](ComparisonGroup::Blocks), how many of
    /// so many blocks); all if it is more than that. Not asked without a
    /// [comparison](Self::comparison).
    ///
    /// Where an update decides a layer block by block, groups that reach beyond the block lose what
    /// is counted up to the end of the block, less what was counted up to its start.
    fn count(&self, size: usize) -> usize {
        let _ = size;
        0
    }

    /// Marks the weights to prune, in a mask of the shape of `scores`, which are those of `columns`
    /// of the layer: of all, or of a block that an update decides alone.
    ///
    /// By default these are the lowest of each [comparison group](Self::comparison). Where there is
    /// one, this method is not asked otherwise: implement either.
    ///
    /// # Errors
    ///
    /// What reading `scores` gives, [`Error::TooLarge`] if there is no memory for the mask, and
    /// [`Error::BlockShape`] if `scores` are not those of so many columns. [`Error::Custom`] from a
    /// pattern that implements neither.
    fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
        comparison::project_groups(self, scores, columns)
    }

    /// Checks that a finished matrix with these zeros has the pattern.
    ///
    /// By default it does if the pattern, given a score of 1 for every weight that is not zero,
    /// would prune nothing but zeros. A pattern whose decision depends on more than the order of
    /// the scores says here what its zeros have in common.
    ///
    /// # Errors
    ///
    /// [`Error::PatternViolated`] with the first weight that should be zero, and what
    /// [`check`](Self::check) gives.
    fn validate(&self, zeros: &Mask) -> Result<()> {
        validate::validate_projection(self, zeros)
    }
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
        self.form::<f32>().with_sparsity(sparsity)
    }

    /// What knows the pattern: the only place where variants are told apart.
    fn form<T: Real>(self) -> Box<dyn Form<T>> {
        match self {
            Self::PerOutput(sparsity) => Box::new(per_output::PerOutput { sparsity }),
            Self::PerLayer(sparsity) => Box::new(per_layer::PerLayer { sparsity }),
            Self::PerInput(sparsity) => Box::new(per_input::PerInput { sparsity }),
            Self::NOfM { keep, of } => Box::new(n_of_m::NOfM { keep, of }),
            Self::Block {
                rows,
                cols,
                sparsity,
            } => Box::new(block::Block {
                rows,
                cols,
                sparsity,
            }),
            Self::Cumulative(sparsity) => Box::new(cumulative::Cumulative { sparsity }),
            Self::Threshold(sparsity) => Box::new(threshold::Threshold { sparsity }),
        }
    }
}

/// A pattern of this crate: its [text](Pattern#text) is how it is displayed, and its name.
trait Form<T: Real>: SparsityPattern<T> + Display {
    /// The same pattern with another sparsity, if it has one.
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern>;
}

/// A pointer to a pattern is a pattern, and so is what says which one it is.
macro_rules! pattern_behind {
    ([$($parameters:tt)*] $type:ty, |$self:ident| $pattern:expr) => {
        impl<T: Real, $($parameters)*> SparsityPattern<T> for $type {
            fn name(&self) -> String {
                let $self = self;
                $pattern.name()
            }

            fn check(&self, rows: usize, columns: usize) -> Result<()> {
                let $self = self;
                $pattern.check(rows, columns)
            }

            fn comparison(&self) -> Option<ComparisonGroup> {
                let $self = self;
                $pattern.comparison()
            }

            fn count(&self, size: usize) -> usize {
                let $self = self;
                $pattern.count(size)
            }

            fn project(&self, scores: &dyn Rows<T>, columns: Range<usize>) -> Result<Mask> {
                let $self = self;
                $pattern.project(scores, columns)
            }

            fn validate(&self, zeros: &Mask) -> Result<()> {
                let $self = self;
                $pattern.validate(zeros)
            }
        }
    };
}

pattern_behind!([P: SparsityPattern<T> + ?Sized] &P, |pointer| (**pointer));
pattern_behind!([P: SparsityPattern<T> + ?Sized] Box<P>, |pointer| (**pointer));
pattern_behind!([] Pattern, |pattern| pattern.form::<T>());

/// How many of `count` things a sparsity prunes.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product lies between 0 and `count`, and rounding down is what is defined"
)]
pub(crate) fn quota(count: usize, sparsity: f64) -> usize {
    (count as f64 * sparsity) as usize
}

pub(crate) fn check_sparsity(sparsity: f64) -> Result<()> {
    if (0.0..1.0).contains(&sparsity) {
        Ok(())
    } else {
        Err(Error::InvalidSparsity { sparsity })
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, SparsityPattern};

    /// Checks that a pattern is written as `text`, read from it, and named by it.
    pub(super) fn check_text(text: &str, pattern: Pattern) {
        assert_eq!(pattern.to_string(), text);
        assert_eq!(SparsityPattern::<f32>::name(&pattern), text);
        assert_eq!(text.parse(), Ok(pattern));
    }
}
