//! Changes the weights that stay as an update says.

use ndarray::{Array2, ArrayRef2, ArrayView1, Axis};

use super::Done;
use crate::element::{Element, widened};
use crate::error::{Error, Result};
use crate::report::{ErrorBasis, RelativeError};
use crate::update::Updated;
use crate::{kernels, parallel};

/// Checks that what an update removed fits the layer and leaves finite weights.
pub(super) fn check<A: Element>(w: &ArrayRef2<A>, removed: &Array2<A::Compute>) -> Result<()> {
    if removed.dim() != w.dim() {
        return Err(Error::UpdateShape {
            weights: w.dim(),
            update: removed.dim(),
        });
    }
    let rows = w.axis_iter(Axis(0)).zip(removed.rows());
    let overflows = parallel::map(rows.collect(), Row::new, |row, (weights, removed)| {
        let stored = row.subtract(&weights, &removed);
        let finite = stored.iter().fold(true, |finite, w| {
            finite & num_traits::Float::is_finite(w.widen())
        });
        let column = || {
            stored
                .iter()
                .position(|w| !num_traits::Float::is_finite(w.widen()))
        };
        if finite { None } else { column() }
    });
    let mut places = overflows.iter().enumerate();
    match places.find_map(|(row, column)| Some((row, (*column)?))) {
        None => Ok(()),
        Some((row, column)) => Err(Error::Overflow {
            row,
            column,
            value: crate::Real::as_f64(w[[row, column]].widen() - removed[[row, column]]),
        }),
    }
}

/// Subtracts what an update removed, which was [checked](check).
pub(super) fn apply<A: Element>(w: &mut ArrayRef2<A>, updated: &Updated<A::Compute>) -> Done {
    let rows = w.axis_iter_mut(Axis(0)).zip(updated.removed.rows());
    let zeros = parallel::map(rows.collect(), Row::new, |row, (mut weights, removed)| {
        let stored = row.subtract(&weights.view(), &removed);
        weights.assign(&ArrayView1::from(stored));
        stored.iter().filter(|&&w| w == A::ZERO).count()
    });
    Done {
        pruned: updated.mask.count(),
        zeros: zeros.into_iter().sum(),
        error: updated.relative_error.map(|value| RelativeError {
            value,
            basis: ErrorBasis::Gram,
        }),
        damping: updated.damping,
    }
}

/// Memory for a row.
struct Row<A: Element> {
    dense: Vec<A::Compute>,
    removed: Vec<A::Compute>,
    difference: Vec<A::Compute>,
    stored: Vec<A>,
}

impl<A: Element> Row<A> {
    fn new() -> Self {
        Self {
            dense: Vec::new(),
            removed: Vec::new(),
            difference: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// The row less what is removed from it, as it will be stored.
    fn subtract(
        &mut self,
        weights: &ArrayView1<'_, A>,
        removed: &ArrayView1<'_, A::Compute>,
    ) -> &[A] {
        let dense = widened(weights, &mut self.dense);
        let removed = widened(removed, &mut self.removed);
        self.difference.resize(dense.len(), A::Compute::default());
        kernels::subtract(dense, removed, &mut self.difference);
        self.stored.resize(dense.len(), A::ZERO);
        A::narrow_run(&self.difference, &mut self.stored);
        &self.stored
    }
}
