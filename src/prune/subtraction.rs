//! Changes the weights that stay as an update says.

use ndarray::{ArrayRef2, ArrayView1, Axis};
use num_traits::Float;

use super::Done;
use crate::element::{Element, Real, widened};
use crate::error::{Error, Result};
use crate::update::Updated;
use crate::{kernels, parallel};

/// Checks that what an update subtracts fits the layer, leaves finite weights, and nothing of pruned
/// ones. The mask has the shape of the layer.
pub(super) fn check<A: Element>(w: &ArrayRef2<A>, updated: &Updated<A::Compute>) -> Result<()> {
    let Updated {
        difference, mask, ..
    } = updated;
    if difference.dim() != w.dim() {
        return Err(Error::UpdateShape {
            weights: w.dim(),
            update: difference.dim(),
        });
    }
    let rows = w.axis_iter(Axis(0)).zip(difference.rows()).enumerate();
    let wrong = parallel::map(
        rows.collect(),
        Row::new,
        |row, (i, (weights, difference))| {
            let stored = row.subtract(&weights, &difference);
            let is_finite = |w: &A| w.widen().is_finite();
            // All are looked at before any is looked for, as that makes vectors.
            if !stored.iter().fold(true, |finite, w| finite & is_finite(w)) {
                return stored.iter().position(|w| !is_finite(w));
            }
            let is_pruned = |w: A| w == A::ZERO && !w.is_negative_zero();
            mask.iter_row(i).find(|&column| !is_pruned(stored[column]))
        },
    );
    let mut places = wrong.iter().enumerate();
    let Some((row, column)) = places.find_map(|(row, column)| Some((row, (*column)?))) else {
        return Ok(());
    };
    let value = w[[row, column]].widen() - difference[[row, column]];
    let (fits, value) = (A::narrow(value).widen().is_finite(), value.as_f64());
    Err(if fits {
        Error::NotPruned { row, column, value }
    } else {
        Error::Overflow { row, column, value }
    })
}

/// Subtracts what an update says, which was [checked](check).
pub(super) fn apply<A: Element>(w: &mut ArrayRef2<A>, updated: &Updated<A::Compute>) -> Done {
    let rows = w.axis_iter_mut(Axis(0)).zip(updated.difference.rows());
    let zeros = parallel::map(
        rows.collect(),
        Row::new,
        |row, (mut weights, difference)| {
            let stored = row.subtract(&weights.view(), &difference);
            weights.assign(&ArrayView1::from(stored));
            stored.iter().filter(|&&w| w == A::ZERO).count()
        },
    );
    Done {
        pruned: updated.mask.count(),
        zeros: zeros.into_iter().sum(),
        error: updated.relative_error,
        target_error: updated.target_error,
        damping: updated.damping,
        solved: updated.solved,
    }
}

/// Memory for a row.
struct Row<A: Element> {
    dense: Vec<A::Compute>,
    difference: Vec<A::Compute>,
    changed: Vec<A::Compute>,
    stored: Vec<A>,
}

impl<A: Element> Row<A> {
    fn new() -> Self {
        Self {
            dense: Vec::new(),
            difference: Vec::new(),
            changed: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// The row less what is subtracted from it, as it will be stored.
    fn subtract(
        &mut self,
        weights: &ArrayView1<'_, A>,
        difference: &ArrayView1<'_, A::Compute>,
    ) -> &[A] {
        let dense = widened(weights, &mut self.dense);
        let difference = widened(difference, &mut self.difference);
        self.changed.resize(dense.len(), A::Compute::default());
        kernels::subtract(dense, difference, &mut self.changed);
        self.stored.resize(dense.len(), A::ZERO);
        A::narrow_run(&self.changed, &mut self.stored);
        &self.stored
    }
}
