//! What pruning costs on this machine: `cargo run --release --example throughput`.
//!
//! Times are given in units of what the machine's arithmetic allows, measured in turn with them,
//! so that a busy machine changes them little.

use std::hint::black_box;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use wanda::ndarray::Array2;
use wanda::{Gram, ImportanceMetric, Obs, ObsSweep, Pattern, Pruner, Wanda};

/// Inputs and outputs of the layer, as in the attention of a model of 7 billion weights.
const N: usize = 4096;
/// Tokens of its calibration.
const TOKENS: usize = 8192;
/// Runs of each row, of which the median is printed.
const RUNS: usize = 7;

fn main() -> wanda::Result<()> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let tokens = random.matrix(TOKENS, N);
    let dense = random.matrix(N, N);
    let mut gram = Gram::new(N);
    gram.update(&tokens)?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("second order: a layer of {N} x {N}, f32, {threads} threads");
    println!("one unit: a product of two matrices of this size\n");
    let table = Table::new(&mut random);
    table.row(&format!("Gram matrix of {TOKENS} tokens"), || {
        let mut gram = Gram::new(N);
        timed(|| gram.update(&tokens))
    })?;
    let one_row = Array2::<f32>::ones((1, N));
    table.row("factor", || {
        let obs = Obs::new();
        timed(|| obs.prepare(&one_row, &gram).map(drop))
    })?;
    for (name, metric, text) in [
        (
            "SparseGPT per-layer:0.5",
            &Obs::new() as &dyn ImportanceMetric,
            "per-layer:0.5",
        ),
        ("SparseGPT 0.5", &Obs::new(), "0.5"),
        ("SparseGPT 2:4", &Obs::new(), "2:4"),
        ("SparseGPT 4:8", &Obs::new(), "4:8"),
        ("Wanda with update, 0.5", &Wanda, "0.5"),
    ] {
        let pattern: Pattern = text.parse()?;
        let pruner = Pruner::new(metric, pattern).update(ObsSweep::new());
        table.row(name, || {
            let mut w = dense.clone();
            timed(|| pruner.prune(&mut w, &gram).map(drop))
        })?;
    }
    Ok(())
}

/// Rows of times, each beside the unit.
struct Table {
    a: Mat<f32>,
    b: Mat<f32>,
}

impl Table {
    fn new(random: &mut Random) -> Self {
        println!("{:<32} {:>9} {:>7}", "", "seconds", "units");
        Self {
            a: Mat::from_fn(N, N, |_, _| random.next()),
            b: Mat::from_fn(N, N, |_, _| random.next()),
        }
    }

    /// Prints the medians of some runs of `work`, which returns seconds.
    fn row(&self, name: &str, work: impl Fn() -> wanda::Result<f64>) -> wanda::Result<()> {
        let mut times = Vec::new();
        let mut ratios = Vec::new();
        for _ in 0..RUNS {
            let unit = self.unit();
            let time = work()?;
            times.push(time);
            ratios.push(time / unit);
        }
        println!("{name:<32} {:>9.3} {:>7.2}", median(times), median(ratios));
        Ok(())
    }

    fn unit(&self) -> f64 {
        let mut c = Mat::zeros(N, N);
        let start = Instant::now();
        matmul(&mut c, Accum::Replace, &self.a, &self.b, 1.0, Par::rayon(0));
        black_box(&c);
        start.elapsed().as_secs_f64()
    }
}

/// How many seconds the work took.
fn timed(work: impl FnOnce() -> wanda::Result<()>) -> wanda::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    /// About normally distributed: the sum of four uniform numbers.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let words = [0, 16, 32, 48].map(|shift| (self.0 >> shift & 0xFFFF) as f32);
        words.iter().sum::<f32>() / 65536.0 - 2.0
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.next())
    }
}
