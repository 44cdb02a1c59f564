//! Adding up the squares of many tokens.

use std::array::from_fn;

use ndarray::{ArrayRef2, ArrayView2, Axis, s};

use crate::element::{Element, widen_row};
use crate::kernels::{self, RUNS};
use crate::matrix::stride;
use crate::parallel;

/// Features that one worker sums up at least: enough for memory to be read in long runs.
const STRIP: usize = 512;

/// Bytes of a token whose features are added to their sums before the next ones: few enough for all
/// that belongs to them to stay in the fastest cache.
const TILE_BYTES: usize = 1024;

/// As many features as that.
const fn tile_features<A>() -> usize {
    TILE_BYTES / size_of::<A>()
}

/// Adds the squares of some tokens of a batch to the sum of each feature, token after token.
/// `tokens` are where they stand in the batch, and how often each counts.
///
/// Each sum belongs to one worker, so it has the same bits on any number of threads.
pub(super) fn add_squares<A: Element>(
    sums: &mut [f64],
    batch: &ArrayRef2<A>,
    tokens: &[(usize, f64)],
) {
    let width = sums.len().div_ceil(parallel::threads()).max(STRIP);
    let strips = sums.chunks_mut(width).enumerate().collect();
    parallel::map(strips, Scratch::new, |scratch, (i, sums)| {
        let strip = batch.slice(s![.., i * width..i * width + sums.len()]);
        for tokens in tokens.chunks(RUNS) {
            let columns = strip.axis_chunks_iter(Axis(1), tile_features::<A>());
            for (sums, columns) in sums.chunks_mut(tile_features::<A>()).zip(columns) {
                scratch.add(sums, &columns, tokens);
            }
        }
    });
}

/// The memory a worker has.
struct Scratch<A: Element> {
    /// A token that adds nothing.
    zeros: Vec<A>,
    widened: Vec<A::Compute>,
}

impl<A: Element> Scratch<A> {
    fn new() -> Self {
        Self {
            zeros: vec![A::ZERO; tile_features::<A>()],
            widened: Vec::new(),
        }
    }

    /// Adds the squares of some tokens, as many as are added together or fewer, to the sums of
    /// `columns`.
    fn add(&mut self, sums: &mut [f64], columns: &ArrayView2<'_, A>, tokens: &[(usize, f64)]) {
        let weights = from_fn(|i| tokens.get(i).map_or(1.0, |&(_, weight)| weight));
        if let Some(runs) = runs(columns, tokens, &self.zeros) {
            for run in runs {
                kernels::prefetch_after(run, RUNS * stride(columns));
            }
            kernels::add_squares(sums, &runs, &weights);
        } else {
            let widened = &mut self.widened;
            widened.clear();
            widened.resize(RUNS * sums.len(), A::Compute::default());
            for (run, &(token, _)) in widened.chunks_mut(sums.len()).zip(tokens) {
                widen_row(&columns.row(token), run);
            }
            let runs = from_fn(|i| &widened[i * sums.len()..(i + 1) * sums.len()]);
            kernels::add_squares(sums, &runs, &weights);
        }
    }
}

/// The tokens as runs, if they are some and can be widened one number at a time.
fn runs<'a, A: Element>(
    columns: &'a ArrayView2<'_, A>,
    tokens: &[(usize, f64)],
    zeros: &'a [A],
) -> Option<[&'a [A]; RUNS]> {
    let mut runs = [&zeros[..columns.ncols()]; RUNS];
    for (run, &(token, _)) in runs.iter_mut().zip(tokens) {
        *run = columns.index_axis(Axis(0), token).to_slice()?;
    }
    A::WIDENS_QUICKLY.then_some(runs)
}
