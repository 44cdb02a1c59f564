//! Metrics, each with its formula as the oracle needs it.

use wanda::{
    Context, Element, ImportanceMetric, Magnitude, Prepared, Real, Result, Rows, Scorer, Wanda,
};

/// A metric whose score is the magnitude times a factor.
pub(crate) trait Factored<T: Real>: ImportanceMetric<T> + Copy {
    /// Whether there is no score without activations.
    const NEEDS_INPUTS: bool;

    /// What the magnitude in this place is multiplied by, before the factor is rounded.
    fn factor(row: usize, column: usize, sum_of_squares: f64) -> f64;
}

impl<T: Real> Factored<T> for Magnitude {
    const NEEDS_INPUTS: bool = false;

    fn factor(_: usize, _: usize, _: f64) -> f64 {
        1.0
    }
}

impl<T: Real> Factored<T> for Wanda {
    const NEEDS_INPUTS: bool = true;

    fn factor(_: usize, _: usize, sum_of_squares: f64) -> f64 {
        sum_of_squares.sqrt()
    }
}

/// A user's metric that depends on the place of the weight, gives zeros a high score, which must
/// not count, and promises nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed;

impl Placed {
    fn factor_at(row: usize, column: usize) -> f64 {
        ((row + 2 * column) % 3 + 1) as f64
    }
}

impl<T: Real> Factored<T> for Placed {
    const NEEDS_INPUTS: bool = false;

    fn factor(row: usize, column: usize, _: f64) -> f64 {
        Self::factor_at(row, column)
    }
}

impl<T: Real> ImportanceMetric<T> for Placed {
    fn name(&self) -> String {
        "placed".to_owned()
    }

    fn prepare<'a>(&'a self, _: &dyn Rows<T>, _: &Context<'a, T>) -> Result<Prepared<'a, T>> {
        Ok(Prepared::scorer(*self))
    }
}

impl<T: Real> Scorer<T> for Placed {
    fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) {
        for (i, (score, &weight)) in scores.iter_mut().zip(weights).enumerate() {
            *score = if weight == <T as Element>::ZERO {
                T::from_f64(1e4)
            } else {
                weight.abs() * T::from_f64(Self::factor_at(row, start + i))
            };
        }
    }
}
