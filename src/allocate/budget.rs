//! Whole numbers of weights that add up to what is asked for.

use super::target::Target;
use crate::error::{Error, Result};

/// So many weights can be counted and divided in `f64`, and no fraction rounds to a whole number.
const MOST: u64 = 1 << 51;

/// The sum of sizes of layers.
///
/// # Errors
///
/// [`Error::TooManyWeights`].
pub(super) fn total(sizes: &[usize]) -> Result<usize> {
    let sum = sizes.iter().try_fold(0_usize, |sum, &size| {
        let sum = sum.checked_add(size)?;
        (sum as u64 <= MOST).then_some(sum)
    });
    sum.ok_or(Error::TooManyWeights { most: MOST })
}

/// How many weights to prune of layers of some sizes, near to their targets and `total` together.
/// There are as many targets, all valid.
///
/// # Errors
///
/// [`Error::OutOfReach`] if the limits of the targets allow no such sum.
pub(super) fn counts(sizes: &[usize], targets: &[Target], total: usize) -> Result<Vec<usize>> {
    let layers = sizes.iter().zip(targets);
    let layers: Vec<Layer> = layers.map(|(&size, t)| Layer::new(size, t)).collect();
    let least = layers.iter().map(Layer::least).sum();
    let most = layers.iter().map(Layer::most).sum();
    if !(least..=most).contains(&total) {
        return Err(Error::OutOfReach { total, least, most });
    }
    let shift = shift(&layers, total as f64);
    let wanted: Vec<f64> = layers.iter().map(|layer| layer.wanted(shift)).collect();
    Ok(rounded(&layers, &wanted, total))
}

/// A layer whose target is within its limits.
struct Layer {
    size: usize,
    sparsity: f64,
    low: f64,
    high: f64,
}

impl Layer {
    fn new(size: usize, target: &Target) -> Self {
        // One weight stays.
        let most = size.saturating_sub(1) as f64 / size.max(1) as f64;
        let high = target.limits().end().min(most);
        let low = target.limits().start().min(high);
        Self {
            size,
            sparsity: target.sparsity().clamp(low, high),
            low,
            high,
        }
    }

    /// What to prune if targets are moved by `shift`, as a fractional number of weights.
    fn wanted(&self, shift: f64) -> f64 {
        self.size as f64 * (self.sparsity + shift).clamp(self.low, self.high)
    }

    /// The least whole number that is less than one weight outside the limits.
    fn least(&self) -> usize {
        whole((self.size as f64 * self.low).ceil()).saturating_sub(1)
    }

    /// The greatest number that is at most one weight outside the limits.
    fn most(&self) -> usize {
        let most = whole(self.size as f64 * self.high) + 1;
        most.min(self.size.saturating_sub(1))
    }
}

/// Halvings of the range of shifts, after which shifts are as fine as `f64` can tell them apart.
const HALVINGS: usize = 64;

/// By how much to move all targets so that they add up to `total`.
fn shift(layers: &[Layer], total: f64) -> f64 {
    let sum = |shift: f64| -> f64 { layers.iter().map(|layer| layer.wanted(shift)).sum() };
    if (sum(0.0) - total).abs() < 1.0 {
        return 0.0;
    }
    let (mut low, mut high) = (-1.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Rounds to whole numbers within the limits whose sum is `total`, which the limits allow.
fn rounded(layers: &[Layer], wanted: &[f64], total: usize) -> Vec<usize> {
    let fit = |(layer, &wanted): (&Layer, &f64)| whole(wanted).clamp(layer.least(), layer.most());
    let mut counts: Vec<usize> = layers.iter().zip(wanted).map(fit).collect();
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by(|&i, &j| wanted[j].fract().total_cmp(&wanted[i].fract()));
    let mut sum: usize = counts.iter().sum();
    // Once round as a rule.
    while sum < total {
        for &i in &order {
            if sum < total && counts[i] < layers[i].most() {
                counts[i] += 1;
                sum += 1;
            }
        }
    }
    // Only if sums in `f64` were off.
    while sum > total {
        for &i in order.iter().rev() {
            if sum > total && counts[i] > layers[i].least() {
                counts[i] -= 1;
                sum -= 1;
            }
        }
    }
    counts
}

/// A number that is not negative, rounded down.
fn whole(x: f64) -> usize {
    num_traits::cast(x).unwrap_or(0)
}
