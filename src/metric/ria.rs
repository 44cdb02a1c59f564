//! Relative importance and activations.

use super::{Context, Factors, ImportanceMetric, Prepared};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::matrix::{Rows, zeros};
use crate::stats;

/// The size of a weight relative to all others of its output and of its input, times a power of the
/// norm of the input.
///
/// # Formula
///
/// ```text
/// score = (|Wᵢⱼ| / Σᵢ |Wᵢⱼ| + |Wᵢⱼ| / Σⱼ |Wᵢⱼ|) · ‖Xⱼ‖₂ᵃ       a = 0.5
/// ```
///
/// Terms whose sum is 0 are 0. Sums are those of the weights the layer had when it was prepared. The
/// published method compares the weights of the layer
/// ([`Pattern::PerLayer`](crate::Pattern::PerLayer)).
///
/// # Errors
///
/// As [`Wanda`](crate::Wanda).
///
/// # Complexity
///
/// A pass over the weights for the sums, then two multiplications and an addition a weight; m + 2 n
/// numbers of memory for m rows and n columns.
///
/// # Example
///
/// ```
/// use wanda::{ColumnNorms, Pattern, Pruner, Ria, ndarray::array};
///
/// let mut stats = ColumnNorms::new(2);
/// stats.update(&array![[1.0_f32, 1.0]])?;
/// let mut w = array![[9.0_f32, 4.0], [8.0, 1.0]];
/// Pruner::new(Ria::new(), Pattern::PerLayer(0.25)).prune(&mut w, &stats)?;
/// // 4 is smaller than 8, but most of what there is of its input.
/// assert_eq!(w, array![[9.0, 4.0], [8.0, 0.0]]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning Method
/// for Large Language Models", ICLR 2024, equation 4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ria {
    power: f64,
}

impl Default for Ria {
    fn default() -> Self {
        Self::new()
    }
}

impl Ria {
    /// With the published power of 0.5.
    #[must_use]
    pub fn new() -> Self {
        Self { power: 0.5 }
    }

    /// The power a of the norms: 0 looks at the weights alone.
    #[must_use]
    pub fn power(mut self, power: f64) -> Self {
        self.power = power;
        self
    }
}

impl<T: Real> ImportanceMetric<T> for Ria {
    fn name(&self) -> String {
        "ria".to_owned()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        context: &Context<'a, T>,
    ) -> Result<Prepared<'a, T>> {
        let sums = stats::required_sums(context.stats, "ria", weights.dim())?;
        let norms: Vec<f64> = sums.iter().map(|sum| sum.sqrt().powf(self.power)).collect();
        if let Some(feature) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(Error::InvalidStatistic {
                feature,
                value: norms[feature],
            });
        }
        let (rows, columns) = sums_of_magnitudes(weights)?;
        let inverse = |sum: f64| if sum > 0.0 { 1.0 / sum } else { 0.0 };
        let of_columns = norms.iter().zip(columns);
        let of_columns = of_columns.map(|(norm, sum)| T::from_f64(norm * inverse(sum)));
        let of_rows = rows.into_iter().map(|sum| T::from_f64(inverse(sum)));
        let norms = norms.iter().map(|&norm| T::from_f64(norm));
        let factors = Factors::new(of_columns.collect());
        Ok(Prepared::factors(
            factors.plus(of_rows.collect(), norms.collect()),
        ))
    }
}

/// The sum of magnitudes of every row and of every column.
fn sums_of_magnitudes<T: Real>(weights: &dyn Rows<T>) -> Result<(Vec<f64>, Vec<f64>)> {
    let (rows, columns) = weights.dim();
    let mut of_columns: Vec<f64> = zeros(1, columns)?;
    let mut buffer = zeros(1, columns)?;
    let mut of_rows = Vec::with_capacity(rows);
    for row in 0..rows {
        weights.read(row, 0, &mut buffer)?;
        let mut of_row = 0.0;
        for (sum, weight) in of_columns.iter_mut().zip(&buffer) {
            let magnitude: f64 = weight.as_f64().abs();
            *sum += magnitude;
            of_row += magnitude;
        }
        of_rows.push(of_row);
    }
    Ok((of_rows, of_columns))
}
