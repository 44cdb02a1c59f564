//! A bit for each weight of a matrix.

use std::ops::Range;

use ndarray::{ArrayRef2, ArrayViewMut2, Axis};

use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernels;
use crate::matrix::{change_row, check_bounds};
use crate::parallel;

/// Marks some weights of a matrix, one bit each.
///
/// In a mask made by a [`Pruner`](crate::Pruner) the marked weights are those to prune. A mask
/// given to [`Pruner::protect`](crate::Pruner::protect) marks the weights that must stay.
///
/// # Example
///
/// ```
/// use wanda::{Mask, ndarray::array};
///
/// let mask = Mask::from_fn(2, 3, |row, column| row == column)?;
/// assert_eq!(mask.count(), 2);
/// assert_eq!(mask.iter().collect::<Vec<_>>(), [(0, 0), (1, 1)]);
///
/// let mut w = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// mask.apply(&mut w)?;
/// assert_eq!(w, array![[0.0, 2.0, 3.0], [4.0, 0.0, 6.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "StoredMask")
)]
pub struct Mask {
    rows: usize,
    columns: usize,
    /// Every row starts at a new word, column `j` is bit `j % 64` of its word `j / 64`, and the
    /// bits past the last column are zero.
    words: Vec<u64>,
}

impl Mask {
    /// A mask that marks nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if there is no memory for `rows * columns` bits.
    pub fn none(rows: usize, columns: usize) -> Result<Self> {
        let too_large = || Error::TooLarge { rows, columns };
        // Rows of no columns are counted as one word, so that their number is bounded too.
        rows.checked_mul(words_for(columns).max(1))
            .and_then(|len| Vec::<u64>::new().try_reserve_exact(len).ok())
            .ok_or_else(too_large)?;
        Ok(Self {
            rows,
            columns,
            // There was room. Memory that comes zeroed is touched later, by all threads.
            words: vec![0; rows * words_for(columns)],
        })
    }

    /// A mask of the weights for which `marked(row, column)` is true.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] as for [`Mask::none`].
    pub fn from_fn(
        rows: usize,
        columns: usize,
        mut marked: impl FnMut(usize, usize) -> bool,
    ) -> Result<Self> {
        let mut mask = Self::none(rows, columns)?;
        for (row, mut marks) in mask.rows_mut().into_iter().enumerate() {
            marks.fill(|column| marked(row, column));
        }
        Ok(mask)
    }

    /// A mask of the zeros of a matrix, of either sign.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] as for [`Mask::none`].
    pub fn of_zeros<A: Element>(w: &ArrayRef2<A>) -> Result<Self> {
        let (rows, columns) = w.dim();
        let mut mask = Self::none(rows, columns)?;
        let work: Vec<_> = mask.rows_mut().into_iter().zip(w.rows()).collect();
        parallel::map(
            work,
            || (),
            |(), (mut marks, row)| marks.fill(|column| row[column] == A::ZERO),
        );
        Ok(mask)
    }

    /// Rows and columns.
    #[must_use]
    pub fn dim(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// How many weights are marked.
    #[must_use]
    pub fn count(&self) -> usize {
        kernels::ones(&self.words)
    }

    /// How many weights of `row` are marked; `None` if there is no such row.
    #[must_use]
    pub fn count_row(&self, row: usize) -> Option<usize> {
        (row < self.rows).then(|| kernels::ones(self.row_words(row)))
    }

    /// The fraction of weights that are marked; 0 if there are none at all.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        fraction(self.count(), self.rows, self.columns)
    }

    /// Whether the weight is marked; `None` if there is no such weight.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> Option<bool> {
        (row < self.rows && column < self.columns).then(|| is_set(self.row_words(row), column))
    }

    /// Marks the weight, or takes its mark away.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there is no such weight.
    pub fn set(&mut self, row: usize, column: usize, marked: bool) -> Result<()> {
        check_bounds(self.dim(), row, column, 1)?;
        let word = &mut self.words[row * words_for(self.columns) + column / 64];
        let bit = 1 << (column % 64);
        if marked {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        Ok(())
    }

    /// The marked weights as `(row, column)`, row by row.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows).flat_map(|row| self.iter_row(row).map(move |column| (row, column)))
    }

    /// A mask that marks what this one does not.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut mask = self.clone();
        for word in &mut mask.words {
            *word = !*word;
        }
        for mut marks in mask.rows_mut() {
            marks.clear_padding();
        }
        mask
    }

    /// In how many weights two masks differ.
    ///
    /// # Errors
    ///
    /// [`Error::MaskShape`] if they have different shapes.
    pub fn differences(&self, other: &Self) -> Result<usize> {
        check_shape(self.dim(), other)?;
        let differ = self.words.iter().zip(&other.words).map(|(a, b)| a ^ b);
        Ok(differ.map(|word| word.count_ones() as usize).sum())
    }

    /// The first weight that both masks mark, row by row.
    pub(crate) fn first_common(&self, other: &Self) -> Option<(usize, usize)> {
        self.iter()
            .find(|&(row, column)| other.get(row, column) == Some(true))
    }

    /// Sets the marked weights to `+0.0` and leaves the bits of all others alone.
    ///
    /// # Errors
    ///
    /// [`Error::MaskShape`] if the matrix has another shape.
    pub fn apply<A: Element>(&self, w: &mut ArrayRef2<A>) -> Result<()> {
        check_shape(w.dim(), self)?;
        let rows: Vec<_> = w.axis_iter_mut(Axis(0)).enumerate().collect();
        parallel::map(rows, Vec::new, |buffer, (row, mut weights)| {
            let marks = self.row_words(row);
            change_row(&mut weights, buffer, |run| {
                kernels::zero_marked(run, marks, 1.0, &[], 0)
            });
        });
        Ok(())
    }

    /// Where the weights that are *not* marked stand, as compressed sparse rows: what a sparse
    /// matrix product needs besides the weights themselves.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if there are more columns than a `u32` counts, or no memory for the
    /// indices: 4 bytes for every weight that stays and a `usize` for every row.
    pub fn to_csr(&self) -> Result<CsrIndices> {
        let too_large = || Error::TooLarge {
            rows: self.rows,
            columns: self.columns,
        };
        // A mask without rows has no indices, however many columns it has.
        let end = match self.rows {
            0 => 0,
            _ => u32::try_from(self.columns).map_err(|_| too_large())?,
        };
        let (mut row_starts, mut columns) = (Vec::new(), Vec::new());
        row_starts
            .try_reserve_exact(self.rows.saturating_add(1))
            .and_then(|()| columns.try_reserve_exact(self.rows * self.columns - self.count()))
            .map_err(|_| too_large())?;
        row_starts.push(0);
        for row in 0..self.rows {
            let words = self.row_words(row);
            columns.extend((0..end).filter(|&column| !is_set(words, column as usize)));
            row_starts.push(columns.len());
        }
        Ok(CsrIndices {
            row_starts,
            columns,
        })
    }

    /// The words of one row; `row` is one of the mask's.
    pub(crate) fn row_words(&self, row: usize) -> &[u64] {
        self.words_of_rows(row..row + 1)
    }

    /// The words of some of the mask's rows.
    pub(crate) fn words_of_rows(&self, rows: Range<usize>) -> &[u64] {
        let len = words_for(self.columns);
        &self.words[rows.start * len..rows.end * len]
    }

    /// Whether some of `len` columns of a row from `start` on may be marked. Says so too often where
    /// a run begins or ends within a word.
    pub(crate) fn any_in_run(&self, row: usize, start: usize, len: usize) -> bool {
        let words = (row < self.rows).then(|| self.row_words(row));
        let words = words.and_then(|words| words.get(start / 64..(start + len).div_ceil(64)));
        words.is_none_or(|words| words.iter().any(|&word| word != 0))
    }

    /// The columns that are marked in `row`, which is one of the mask's.
    pub(crate) fn iter_row(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        set_bits(self.row_words(row))
    }

    /// The words in strips of 64 columns, a word for every row. They can be written independently
    /// of each other.
    pub(crate) fn strips_mut(&mut self) -> Vec<ArrayViewMut2<'_, u64>> {
        let shape = (self.rows, words_for(self.columns));
        let mut strips = Vec::new();
        // Never fails: the words are as many as that.
        let Ok(mut rest) = ArrayViewMut2::from_shape(shape, &mut self.words) else {
            return strips;
        };
        while rest.ncols() > 0 {
            let (strip, others) = rest.split_at(Axis(1), 1);
            strips.push(strip);
            rest = others;
        }
        strips
    }

    /// The words of runs of `height` rows.
    pub(crate) fn row_runs_mut(&mut self, height: usize) -> Vec<&mut [u64]> {
        let len = words_for(self.columns).saturating_mul(height).max(1);
        self.words.chunks_mut(len).collect()
    }

    /// All rows, to be marked independently of each other.
    pub(crate) fn rows_mut(&mut self) -> Vec<MaskRow<'_>> {
        let columns = self.columns;
        if columns == 0 {
            return Vec::new();
        }
        self.words
            .chunks_exact_mut(words_for(columns))
            .map(|words| MaskRow { words, columns })
            .collect()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask")
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .field("marked", &self.count())
            .finish_non_exhaustive()
    }
}

/// Column indices of the weights that stay, row by row; see [`Mask::to_csr`].
///
/// Row `i` has the columns `columns[row_starts[i]..row_starts[i + 1]]`, in ascending order.
///
/// Columns are `u32`, half of what `usize` takes, since there is one for every weight. Where rows
/// start is `usize`, since a layer may keep more than 2³² weights.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CsrIndices {
    /// Where each row starts in `columns`; one entry more than there are rows.
    pub row_starts: Vec<usize>,
    /// The columns.
    pub columns: Vec<u32>,
}

/// One row of a [`Mask`] in the making, which a pattern marks.
#[derive(Debug)]
pub struct MaskRow<'a> {
    words: &'a mut [u64],
    columns: usize,
}

impl<'a> MaskRow<'a> {
    /// A row of `columns` columns over words that are all zero.
    pub(crate) fn new(words: &'a mut [u64], columns: usize) -> Self {
        debug_assert_eq!(words.len(), words_for(columns));
        Self { words, columns }
    }

    /// How many columns the row has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Marks the columns for which `marked` is true, and takes away the mark of all others.
    pub fn fill(&mut self, mut marked: impl FnMut(usize) -> bool) {
        for (i, word) in self.words.iter_mut().enumerate() {
            let len = (self.columns - i * 64).min(64);
            *word = (0..len).fold(0, |bits, bit| bits | u64::from(marked(i * 64 + bit)) << bit);
        }
    }

    /// All words of the row.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        self.words
    }

    fn clear_padding(&mut self) {
        if let (Some(last), used @ 1..) = (self.words.last_mut(), self.columns % 64) {
            *last &= (1 << used) - 1;
        }
    }
}

/// Checks that a mask fits a matrix of shape `expected`.
pub(crate) fn check_shape(expected: (usize, usize), mask: &Mask) -> Result<()> {
    if mask.dim() == expected {
        Ok(())
    } else {
        Err(Error::MaskShape {
            expected,
            found: mask.dim(),
        })
    }
}

/// `part` of `rows * columns`; 0 of nothing.
pub(crate) fn fraction(part: usize, rows: usize, columns: usize) -> f64 {
    let total = rows as f64 * columns as f64;
    if total == 0.0 {
        0.0
    } else {
        part as f64 / total
    }
}

/// How many words a row of `columns` columns takes.
pub(crate) fn words_for(columns: usize) -> usize {
    columns.div_ceil(64)
}

/// Whether bit `j` of some words is set.
pub(crate) fn is_set(words: &[u64], j: usize) -> bool {
    words[j / 64] >> (j % 64) & 1 == 1
}

/// The positions of the ones in some words, lowest first.
pub(crate) fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(i, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                i * 64 + bit
            })
        })
    })
}

/// A mask as it was stored, not yet checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Mask")]
struct StoredMask {
    rows: usize,
    columns: usize,
    words: Vec<u64>,
}

#[cfg(feature = "serde")]
impl TryFrom<StoredMask> for Mask {
    type Error = Error;

    fn try_from(stored: StoredMask) -> Result<Self> {
        let StoredMask {
            rows,
            columns,
            words,
        } = stored;
        let damaged = |reason: String| Error::Damaged {
            what: "mask",
            reason,
        };
        if rows.checked_mul(words_for(columns)) != Some(words.len()) {
            return Err(damaged(format!(
                "{} words do not make {rows} x {columns}",
                words.len()
            )));
        }
        let mask = Self {
            words,
            ..Self::none(rows, columns)?
        };
        let mut clean = mask.clone();
        for mut marks in clean.rows_mut() {
            marks.clear_padding();
        }
        if clean == mask {
            Ok(mask)
        } else {
            Err(damaged(format!("marks past the last of {columns} columns")))
        }
    }
}
