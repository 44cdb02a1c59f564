//! Second-order pruning as published: with an explicit inverse, column by column, in `f64`.

use std::ops::Range;

use wanda::ndarray::{Array2, ArrayRef2, s};
use wanda::{
    ImportanceMetric, Magnitude, Mask, Obs, ObsSweep, Pattern, Real, SparsityPattern, Wanda,
};

use super::element::TestElement;
use super::metric::{Factored, Placed};
use super::oracle::{self, Refusal};

/// A metric that a sweep asks about updated weights, with its formula.
pub(crate) trait Formula<T: Real>: ImportanceMetric<T> + Copy {
    /// The score of a weight that is not zero, given the sum of squares of its input and the
    /// diagonal entry of U.
    fn formula(weight: f64, place: (usize, usize), sum_of_squares: f64, u: f64) -> f64;
}

impl<T: Real> Formula<T> for Obs {
    fn formula(weight: f64, _: (usize, usize), _: f64, u: f64) -> f64 {
        (weight / u).powi(2)
    }
}

macro_rules! magnitude_times_factor {
    ($($metric:ty),*) => {$(
        impl<T: Real> Formula<T> for $metric {
            fn formula(weight: f64, place: (usize, usize), sum_of_squares: f64, _: f64) -> f64 {
                weight.abs() * <Self as Factored<T>>::factor(place.0, place.1, sum_of_squares)
            }
        }
    )*};
}

magnitude_times_factor!(Magnitude, Wanda, Placed);

/// What decides which weights go.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Pattern(Pattern),
    /// Just these.
    Given(Mask),
}

impl Choice {
    pub(crate) fn as_pattern<T: Real>(&self) -> &dyn SparsityPattern<T> {
        match self {
            Self::Pattern(pattern) => pattern,
            Self::Given(mask) => mask,
        }
    }

    /// Columns that have to be decided together, and the columns of a group that is decided only
    /// when the sweep reaches it.
    fn columns(&self) -> (usize, Option<usize>) {
        match *self {
            Self::Pattern(Pattern::NOfM { of, .. }) => (of, Some(of)),
            Self::Pattern(Pattern::Block { cols, .. }) => (cols, None),
            _ => (1, None),
        }
    }

    /// What goes of a block of columns that starts at `start`.
    fn decide(
        &self,
        scores: &Array2<f64>,
        protected: &Array2<bool>,
        start: usize,
    ) -> Result<Array2<bool>, Refusal> {
        match self {
            Self::Pattern(pattern) => oracle::pruned_of_block(*pattern, scores, protected, start),
            Self::Given(mask) => {
                let marked = |(row, column): (usize, usize)| {
                    mask.get(row, start + column).expect("a place in the mask")
                };
                let marks = Array2::from_shape_fn(scores.dim(), marked);
                if marks
                    .iter()
                    .zip(protected)
                    .any(|(&mark, &protected)| mark && protected)
                {
                    return Err(Refusal::TooManyProtected);
                }
                Ok(marks)
            }
        }
    }
}

/// A sweep and its options.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(crate) block_size: usize,
    pub(crate) damping: f64,
    pub(crate) keep_zeros: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            block_size: 128,
            damping: 0.01,
            keep_zeros: true,
        }
    }
}

/// A layer that a sweep works on.
#[derive(Debug, Clone)]
pub(crate) struct Layer<A> {
    pub(crate) weights: Array2<A>,
    /// `XᵀX`
    pub(crate) gram: Array2<f64>,
    pub(crate) protected: Array2<bool>,
}

/// What a sweep makes of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Swept {
    pub(crate) weights: Array2<f64>,
    pub(crate) mask: Mask,
}

impl Sweep {
    /// The same sweep by the crate.
    pub(crate) fn update(&self) -> ObsSweep {
        ObsSweep::new()
            .block_size(self.block_size)
            .damping(self.damping)
            .keep_zeros(self.keep_zeros)
    }

    /// The published sweep, with every weight rounded to `A` when it is final. `upper` is the
    /// [`upper_factor`] of the layer's Gram matrix.
    ///
    /// Beyond what is published, zeros stay zero if `keep_zeros` is set, and protected weights
    /// are not chosen, not even those of dead inputs.
    pub(crate) fn run<A: TestElement, M: Formula<A::Compute>>(
        &self,
        _: M,
        choice: &Choice,
        layer: &Layer<A>,
        upper: &Array2<f64>,
    ) -> Result<Swept, Refusal> {
        let Layer {
            weights,
            gram,
            protected,
        } = layer;
        let (rows, columns) = weights.dim();
        let pinned = Array2::from_shape_fn((rows, columns), |(row, column)| {
            let zero = self.keep_zeros && weights[[row, column]].exact() == 0.0;
            zero || (gram[[column, column]] == 0.0 && !protected[[row, column]])
        });
        let mut w = weights.map(|w| w.exact());
        let mut marks = Array2::from_elem((rows, columns), false);
        let scores = |w: &Array2<f64>, columns: Range<usize>| {
            Array2::from_shape_fn((rows, columns.len()), |(row, column)| {
                let column = columns.start + column;
                let weight = w[[row, column]];
                if weight == 0.0 || pinned[[row, column]] {
                    return 0.0;
                }
                let j = [column, column];
                M::formula(weight, (row, column), gram[j], upper[j])
            })
        };
        let (whole, group) = choice.columns();
        let block = self.block_size.div_ceil(whole).saturating_mul(whole);
        // What decides at its first column about all of its columns.
        let unit = group.unwrap_or(block);
        for column in 0..columns {
            if column.is_multiple_of(unit) {
                let decided = column..columns.min(column.saturating_add(unit));
                let protected = protected.slice(s![.., decided.clone()]).to_owned();
                let chosen = choice.decide(&scores(&w, decided.clone()), &protected, column)?;
                marks.slice_mut(s![.., decided]).assign(&chosen);
            }
            let line = upper.slice(s![column, column..]);
            for (row, mut weights) in w
                .slice_mut(s![.., column..])
                .rows_mut()
                .into_iter()
                .enumerate()
            {
                let place = [row, column];
                let goes = marks[place] || pinned[place];
                let stored = if goes {
                    0.0
                } else {
                    A::round(weights[0]).exact()
                };
                let error = (weights[0] - stored) / line[0];
                if error != 0.0 {
                    weights.scaled_add(-error, &line);
                }
                weights[0] = stored;
            }
        }
        Ok(Swept {
            weights: w,
            mask: oracle::to_mask(&marks),
        })
    }
}

/// `XᵀX`, token after token.
pub(crate) fn gram<A: TestElement>(inputs: &ArrayRef2<A>) -> Array2<f64> {
    let inputs = inputs.map(|x| x.exact());
    inputs.t().dot(&inputs)
}

/// The Gram matrix as it is factored: a 1 for every dead input, and damped.
///
/// The published code takes the mean of the diagonal after it put the ones there, so that λ
/// depends on the unit the inputs are measured in. This crate leaves dead inputs out of the mean,
/// and it is followed here.
fn damped(gram: &Array2<f64>, damping: f64) -> Array2<f64> {
    let shift = damping * mean_of_live(gram);
    let mut damped = gram.clone();
    for entry in damped.diag_mut() {
        if *entry == 0.0 {
            *entry = 1.0;
        }
        *entry += shift;
    }
    damped
}

fn mean_of_live(gram: &Array2<f64>) -> f64 {
    let live = gram.diag().iter().filter(|&&entry| entry != 0.0).count();
    gram.diag().sum() / live as f64
}

/// The upper triangular U with `(G + λI)⁻¹ = Uᵀ U`.
pub(crate) fn upper_factor(gram: &Array2<f64>, damping: f64) -> Array2<f64> {
    let mut rest = inverse(&damped(gram, damping));
    let n = rest.nrows();
    let mut upper = Array2::zeros((n, n));
    for k in 0..n {
        let pivot = rest[[k, k]];
        assert!(pivot > 0.0, "the inverse is not positive definite");
        let line = rest.slice(s![k, k..]).mapv(|x| x / pivot.sqrt());
        for (i, &factor) in (k..).zip(&line) {
            if factor != 0.0 {
                rest.slice_mut(s![i, k..]).scaled_add(-factor, &line);
            }
        }
        upper.slice_mut(s![k, k..]).assign(&line);
    }
    upper
}

/// The inverse, by Gauss and Jordan. The matrix is positive definite, so no rows are exchanged.
fn inverse(a: &Array2<f64>) -> Array2<f64> {
    let mut a = a.clone();
    for k in 0..a.nrows() {
        let pivot = std::mem::replace(&mut a[[k, k]], 1.0);
        let line = a.row(k).mapv(|x| x / pivot);
        for (i, mut row) in a.rows_mut().into_iter().enumerate() {
            let factor = std::mem::take(&mut row[k]);
            if i == k {
                row.assign(&line);
            } else if factor != 0.0 {
                row.scaled_add(-factor, &line);
            }
        }
    }
    a
}

/// What pruning cost, from the stored weights before and after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`
    pub(crate) relative_error: f64,
    /// `tr(ΔW (G + λI) ΔWᵀ) / tr(W G Wᵀ)`: what a sweep sums up, and so what the rounding of the
    /// error it reports is relative to.
    pub(crate) damped: f64,
    /// `Σ |W| |G| |Wᵀ| / tr(W G Wᵀ)`: how much larger the terms of the dense output's energy are
    /// than their sum, and so by how much its rounding is enlarged.
    pub(crate) cancellation: f64,
}

impl Cost {
    /// `None` if there was no output.
    pub(crate) fn of<A: TestElement>(
        before: &ArrayRef2<A>,
        after: &ArrayRef2<A>,
        gram: &Array2<f64>,
        damping: f64,
    ) -> Option<Self> {
        let before = before.map(|w| w.exact());
        let change = &before - &after.map(|w| w.exact());
        let energy = |w: &Array2<f64>| (w.dot(gram) * w).sum();
        let penalty = damping * mean_of_live(gram) * (&change * &change).sum();
        let (all, lost) = (energy(&before), energy(&change));
        (all > 0.0).then(|| Self {
            relative_error: lost / all,
            damped: (lost + penalty) / all,
            cancellation: (before.mapv(f64::abs).dot(&gram.mapv(f64::abs)) * before.mapv(f64::abs))
                .sum()
                / all,
        })
    }
}
