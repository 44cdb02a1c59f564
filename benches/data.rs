//! Shapes of real layers, random numbers to fill them with, and what memory allows for them.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup};
use rayon::prelude::*;
use wanda::ndarray::Array2;

/// Outputs x inputs: attention and feed-forward layers of a small Llama (SmolLM2-135M) and of
/// Llama-2-7B.
pub(crate) const SHAPES: [(usize, usize); 4] =
    [(576, 576), (1536, 576), (4096, 4096), (4096, 11008)];

/// A matrix of about normally distributed numbers: each is the sum of four uniform ones.
pub(crate) fn normal_matrix(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Array2::from_shape_simple_fn((rows, columns), || {
        // xorshift64; its four 16-bit words are the uniform numbers.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let words = [0, 16, 32, 48].map(|shift| (state >> shift & 0xFFFF) as f32);
        words.iter().sum::<f32>() / 65536.0 - 2.0
    })
}

/// Measures a pass that reads and writes every weight once, on all threads.
pub(crate) fn floor(group: &mut BenchmarkGroup<'_, WallTime>, weights: &Array2<f32>) {
    group.bench_function("floor", |b| {
        b.iter_batched_ref(
            || weights.clone(),
            |w| {
                // As slices: element by element, ndarray takes three times as long as memory.
                let factor = black_box(1.5);
                let numbers = w.as_slice_mut().expect("row-major");
                let runs = numbers.par_chunks_mut(1 << 16);
                runs.for_each(|run| run.iter_mut().for_each(|x| *x *= factor));
            },
            BatchSize::PerIteration,
        );
    });
}
