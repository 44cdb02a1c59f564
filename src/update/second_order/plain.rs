//! What metric and pattern make of the dense weights, and of what another update leaves.

use ndarray::Array2;

use super::least_squares::loss;
use super::zeroed::zeroed;
use crate::element::{Real, inverse_power_of_two};
use crate::error::{Error, Result};
use crate::linalg::Damping;
use crate::mask::{Mask, is_set};
use crate::matrix::{FixedShape, Rows, read_all};
use crate::parallel;
use crate::report::{ErrorBasis, RelativeError};
use crate::scores::Scoring;
use crate::stats::ActivationStats;
use crate::stats::gram::Gram;
use crate::update::{UpdateTask, Updated, WeightUpdate};

/// The weights that the pattern prunes when nothing is updated, and what that costs.
pub(super) struct Plain {
    pub(super) mask: Mask,
    error: Option<RelativeError>,
    /// What is lost with damping, as the solvers count it.
    loss: f64,
}

impl Plain {
    pub(super) fn of<T: Real>(
        task: &UpdateTask<'_, T>,
        gram: &Gram,
        damping: Damping,
    ) -> Result<Self> {
        let prepared = task.prepare(None)?;
        let scores = WeightScores {
            weights: FixedShape::new(task.weights),
            scoring: task.scoring(&prepared),
        };
        let mask = task.project(&scores, 0..task.weights.dim().1)?;
        let mut weights = read_all(task.weights)?;
        let scale = inverse_power_of_two(task.largest.as_f64());
        let total = gram.energy(&weights, scale);
        keep_marked(&mut weights, &mask);
        let lost = gram.energy(&weights, scale);
        Ok(Self {
            mask,
            error: RelativeError::new(lost, total, ErrorBasis::Gram),
            loss: loss(gram, damping, &weights, scale),
        })
    }

    /// Whether an update loses more than to leave the weights alone.
    pub(super) fn is_better_than<T: Real>(
        &self,
        updated: &Updated<T>,
        task: &UpdateTask<'_, T>,
        gram: &Gram,
        damping: Damping,
    ) -> bool {
        self.loss < loss_of(updated, task, gram, damping)
    }

    /// The dense weights with this mask, as an update.
    pub(super) fn into_updated<T: Real>(self, task: &UpdateTask<'_, T>) -> Result<Updated<T>> {
        let (rows, columns) = task.weights.dim();
        let mut difference = read_all(task.weights)?;
        keep_marked(&mut difference, &self.mask);
        let difference = Array2::from_shape_vec((rows, columns), difference)
            .map_err(|_| Error::TooLarge { rows, columns })?;
        let mut updated = Updated::new(difference, self.mask);
        updated.relative_error = self.error;
        Ok(updated)
    }
}

/// What an update loses, with damping.
pub(super) fn loss_of<T: Real>(
    updated: &Updated<T>,
    task: &UpdateTask<'_, T>,
    gram: &Gram,
    damping: Damping,
) -> f64 {
    let scale = inverse_power_of_two(task.largest.as_f64());
    let copy: Vec<T>;
    let change = if let Some(change) = updated.difference.as_slice() {
        change
    } else {
        copy = updated.difference.iter().copied().collect();
        &copy
    };
    loss(gram, damping, change, scale)
}

/// Zeroes the weights that are not marked.
fn keep_marked<T: Real>(weights: &mut [T], mask: &Mask) {
    let columns = mask.dim().1;
    parallel::map(
        weights.chunks_exact_mut(columns).enumerate().collect(),
        || (),
        |(), (row, weights): (usize, &mut [T])| {
            let words = mask.row_words(row);
            for (j, weight) in weights.iter_mut().enumerate() {
                *weight = if is_set(words, j) { *weight } else { T::zero() };
            }
        },
    );
}

/// What another update makes of a layer, or where it leaves the weights alone the dense ones with
/// the pattern's mask.
pub(super) fn run<T: Real>(
    task: &UpdateTask<'_, T>,
    update: &(impl WeightUpdate<T> + ?Sized),
    gram: &Gram,
) -> Result<Updated<T>> {
    match update.run(task)? {
        Some(updated) => Ok(updated),
        None => Plain::of(task, gram, Damping::Mean(0.0))?.into_updated(task),
    }
}

/// The weights that are zero in the end: those of a mask, and those that are zero whatever it says.
pub(super) fn zero_in_the_end<T: Real>(
    task: &UpdateTask<'_, T>,
    dense: &[T],
    gram: &Gram,
    mask: &Mask,
    keep_zeros: bool,
) -> Result<Mask> {
    let dead = gram.sums_of_squares().iter().map(|&energy| energy == 0.0);
    let zeroed = zeroed(task, dense, &dead.collect::<Vec<_>>(), keep_zeros)?;
    Ok(union(mask, zeroed.as_ref()))
}

/// A mask, and what another marks besides.
pub(super) fn union(mask: &Mask, other: Option<&Mask>) -> Mask {
    let mut union = mask.clone();
    if let Some(other) = other {
        for (row, mut marks) in union.rows_mut().into_iter().enumerate() {
            for (word, other) in marks.words_mut().iter_mut().zip(other.row_words(row)) {
                *word |= other;
            }
        }
    }
    union
}

/// The scores of weights that can only be read.
struct WeightScores<'a, T: Real> {
    weights: FixedShape<'a, T>,
    scoring: Scoring<'a, T>,
}

impl<T: Real> Rows<T> for WeightScores<'_, T> {
    fn dim(&self) -> (usize, usize) {
        self.weights.dim()
    }

    fn read(&self, row: usize, start: usize, out: &mut [T]) -> Result<()> {
        let mut weights = vec![T::zero(); out.len()];
        self.weights.read(row, start, &mut weights)?;
        self.scoring.score(row, start, &weights, out)
    }
}
