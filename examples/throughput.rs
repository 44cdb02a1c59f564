//! What pruning costs on this machine, in units of what its memory and arithmetic allow:
//! `cargo run --release --example throughput`.

use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use wanda::ndarray::Array2;
use wanda::{Gram, Obs, ObsSweep, Pattern, Pruner};

/// Inputs and outputs of the layer that second-order methods are timed on.
const N: usize = 4096;
/// Tokens of its calibration.
const TOKENS: usize = 8192;
/// Timed runs of each entry, of which the median is printed.
const RUNS: usize = 5;

fn main() -> wanda::Result<()> {
    second_order()
}

fn second_order() -> wanda::Result<()> {
    println!("second order, {N} x {N}, f32; one unit is a faer {N} x {N} x {N} product");
    let a = Mat::<f32>::from_fn(N, N, |i, j| noise(i * N + j));
    let b = Mat::<f32>::from_fn(N, N, |i, j| noise(j * N + i + 1));
    let mut c = Mat::<f32>::zeros(N, N);
    let unit = median(|| matmul(&mut c, Accum::Replace, &a, &b, 1.0, Par::rayon(0)));
    println!("  {:<28} {:>8.3} s", "product", unit);

    let tokens = Array2::from_shape_fn((TOKENS, N), |(t, j)| noise(t * N + j));
    let mut gram = Gram::new(N);
    let seconds = median(|| {
        gram = Gram::new(N);
        gram.update(&tokens).expect("activations are finite");
    });
    println!(
        "  {:<28} {:>8.3} s {:>6.2} units",
        format!("Gram, {TOKENS} tokens"),
        seconds,
        seconds / unit
    );

    let dense = Array2::from_shape_fn((N, N), |(i, j)| noise(i * N + j + 7));
    for text in ["per-layer:0.5", "0.5", "2:4"] {
        let pattern: Pattern = text.parse()?;
        let pruner = Pruner::new(Obs::new(), pattern).update(ObsSweep::new());
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let mut w = dense.clone();
            let start = Instant::now();
            let _ = pruner.prune(&mut w, &gram)?;
            times.push(start.elapsed().as_secs_f64());
        }
        let seconds = middle(times);
        println!(
            "  {:<28} {:>8.3} s {:>6.2} units",
            format!("SparseGPT {text}"),
            seconds,
            seconds / unit
        );
    }
    Ok(())
}

fn median(mut run: impl FnMut()) -> f64 {
    run();
    let times = (0..RUNS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    middle(times.collect())
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers between -1 and 1 without a visible order.
fn noise(i: usize) -> f32 {
    let mixed = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed >> 40) as f32) / (1 << 23) as f32 - 1.0
}
