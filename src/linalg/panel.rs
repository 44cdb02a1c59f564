//! Rectangular parts of row-major matrices.

use std::ops::Range;

/// A part of a row-major matrix, to be read.
#[derive(Debug)]
pub(crate) struct Panel<'a, T> {
    /// From the first element on; rows start `stride` apart.
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

/// A part of a row-major matrix, to be written.
#[derive(Debug)]
pub(crate) struct PanelMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<T> Clone for Panel<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Panel<'_, T> {}

impl<'a, T> Panel<'a, T> {
    /// A whole matrix, `data.len() / columns` rows.
    pub(crate) fn new(data: &'a [T], columns: usize) -> Self {
        Self {
            data,
            rows: data.len() / columns.max(1),
            columns,
            stride: columns,
        }
    }

    /// The part where `rows` and `columns` cross.
    pub(crate) fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let range = span(&rows, &columns, self.stride);
        Self {
            data: &self.data[range],
            rows: rows.len(),
            columns: columns.len(),
            stride: self.stride,
        }
    }

    /// The part that `rows` make up.
    pub(crate) fn rows_of(self, rows: Range<usize>) -> Self {
        self.part(rows, 0..self.columns)
    }

    /// The part that `columns` make up.
    pub(crate) fn columns_of(self, columns: Range<usize>) -> Self {
        self.part(0..self.rows, columns)
    }

    pub(super) fn is_empty(self) -> bool {
        self.rows == 0 || self.columns == 0
    }

    /// A single row.
    pub(crate) fn row(self, row: usize) -> &'a [T] {
        &self.data[row * self.stride..][..self.columns]
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(super) fn columns(self) -> usize {
        self.columns
    }

    pub(super) fn stride(self) -> usize {
        self.stride
    }

    pub(super) fn data(self) -> &'a [T] {
        self.data
    }
}

impl<'a, T> PanelMut<'a, T> {
    /// A whole matrix, `data.len() / columns` rows.
    pub(crate) fn new(data: &'a mut [T], columns: usize) -> Self {
        Self {
            rows: data.len() / columns.max(1),
            columns,
            stride: columns,
            data,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The part that `columns` make up.
    pub(crate) fn columns_of(self, columns: Range<usize>) -> Self {
        let range = span(&(0..self.rows), &columns, self.stride);
        Self {
            data: &mut self.data[range],
            rows: self.rows,
            columns: columns.len(),
            stride: self.stride,
        }
    }

    pub(super) fn into_data(self) -> &'a mut [T] {
        self.data
    }
}

/// Where the part lies in the data of a matrix whose rows are `stride` apart.
fn span(rows: &Range<usize>, columns: &Range<usize>, stride: usize) -> Range<usize> {
    if rows.is_empty() || columns.is_empty() {
        return 0..0;
    }
    rows.start * stride + columns.start..(rows.end - 1) * stride + columns.end
}
