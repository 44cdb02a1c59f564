//! Weights that will be zero, whatever metric and pattern say.

use crate::element::Real;
use crate::error::Result;
use crate::mask::Mask;
use crate::parallel;
use crate::update::UpdateTask;

/// Marks the weights that become zero, or stay so: those of dead inputs unless they are protected,
/// and if `keep_zeros` those that are zero. `None` if there are none.
pub(super) fn zeroed<T: Real>(
    task: &UpdateTask<'_, T>,
    dense: &[T],
    dead: &[bool],
    keep_zeros: bool,
) -> Result<Option<Mask>> {
    let (rows, columns) = task.weights.dim();
    let mut zeroed = Mask::none(rows, columns)?;
    let any_dead = dead.contains(&true);
    let work = zeroed.rows_mut().into_iter().enumerate();
    parallel::map(
        work.zip(dense.chunks_exact(columns)).collect(),
        || (),
        |(), ((row, mut marks), weights)| {
            let any_zero = weights.iter().fold(false, |any, w| any | w.is_zero());
            if any_dead || (keep_zeros && any_zero) {
                marks.fill(|column| {
                    (keep_zeros && weights[column].is_zero())
                        || (dead[column] && !task.is_protected(row, column))
                });
            }
        },
    );
    Ok((zeroed.count() > 0).then_some(zeroed))
}
