//! From new weights to what an update returns.

use ndarray::Array2;

use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::mask::{Mask, is_set};
use crate::matrix::read_all;
use crate::parallel;
use crate::report::{ErrorBasis, RelativeError};
use crate::stats::gram::Gram;
use crate::update::{UpdateTask, Updated};

/// Rounds new `weights` to the type they are stored in and says what to subtract from the dense
/// ones, and what that costs. The weights that `zero` marks are zero; `mask` are those that the
/// pattern pruned.
pub(super) fn finish<T: Real>(
    task: &UpdateTask<'_, T>,
    gram: &Gram,
    mut weights: Vec<T>,
    mask: Mask,
    zero: &Mask,
) -> Result<Updated<T>> {
    let (rows, columns) = task.weights.dim();
    let dense = read_all(task.weights)?;
    let work = weights
        .chunks_exact_mut(columns)
        .zip(dense.chunks_exact(columns))
        .enumerate();
    parallel::map(
        work.collect(),
        || (),
        |(), (row, (weights, dense)): (usize, (&mut [T], &[T]))| {
            if let Some(round) = task.round {
                round(weights);
            }
            let words = zero.row_words(row);
            for (j, (weight, &dense)) in weights.iter_mut().zip(dense).enumerate() {
                *weight = if is_set(words, j) {
                    dense
                } else {
                    dense - *weight
                };
            }
        },
    );
    let scale = inverse_power_of_two(task.largest.as_f64());
    let lost = gram.energy(&weights, scale);
    let total = gram.energy(&dense, scale);
    let difference = Array2::from_shape_vec((rows, columns), weights)
        .map_err(|_| Error::TooLarge { rows, columns })?;
    let mut updated = Updated::new(difference, mask);
    updated.relative_error = RelativeError::new(lost, total, ErrorBasis::Gram);
    Ok(updated)
}
