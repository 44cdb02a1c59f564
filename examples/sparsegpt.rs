//! Pruning with a weight update, by each backend that is built in:
//! `cargo run --release --example sparsegpt`, or with LAPACK as well
//! `cargo run --release --features openblas-system --example sparsegpt`.

use std::time::Instant;

use wanda::ndarray::Array2;
use wanda::{
    Backend, Gram, ImportanceMetric, Magnitude, Mask, Obs, ObsSweep, Pattern, Pruner, Wanda,
};

const OUTPUTS: usize = 512;
const INPUTS: usize = 1024;
const TOKENS: usize = 4096;

fn main() -> wanda::Result<()> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let dense = random.matrix(OUTPUTS, INPUTS);
    let inputs = correlated(&mut random);

    println!("Statistics: the Gram matrix of {TOKENS} tokens with {INPUTS} features");
    let mut gram = Gram::new(INPUTS);
    gram.update(&inputs)?;

    println!("\nOne call");
    let mut w = dense.clone();
    let report = wanda::sparsegpt_layer(&mut w, &gram, Pattern::PerLayer(0.5))?;
    println!("  {report}");

    println!("\nAny metric, with and without an update: share of the output that is lost");
    println!(
        "  {:<10} {:<14} {:>8} {:>8}",
        "metric", "pattern", "without", "with"
    );
    let metrics: [&dyn ImportanceMetric; 3] = [&Magnitude, &Wanda, &Obs::new()];
    for text in ["0.5", "2:4", "block:4x4:0.5"] {
        let pattern: Pattern = text.parse()?;
        for metric in metrics {
            let pruner = Pruner::new(metric, pattern);
            let without = error(&pruner.prune(&mut dense.clone(), &gram)?);
            let pruner = pruner.update(ObsSweep::new());
            let with = error(&pruner.prune(&mut dense.clone(), &gram)?);
            println!(
                "  {:<10} {text:<14} {without:>8.4} {with:>8.4}",
                metric.name()
            );
        }
    }

    println!("\nA mask that is given: only the weights that stay are changed");
    let mask = Pruner::new(Wanda, Pattern::PerOutput(0.5)).mask(&dense, &gram)?;
    let mut w = dense.clone();
    let report = Pruner::new(Wanda, &mask)
        .update(ObsSweep::new())
        .prune(&mut w, &gram)?;
    println!("  {report}");
    assert_eq!(Mask::of_zeros(&w)?, mask);

    println!("\nEach backend, from the tokens to the pruned layer");
    for backend in backends() {
        let start = Instant::now();
        let mut gram = Gram::new(INPUTS).backend(backend);
        gram.update(&inputs)?;
        let gathered = start.elapsed();
        let mut w = dense.clone();
        let report = Pruner::new(Obs::new(), Pattern::PerLayer(0.5))
            .update(ObsSweep::new().backend(backend))
            .prune(&mut w, &gram)?;
        println!(
            "  {:<8} Gram matrix {:>6.1} ms, pruning {:>6.1} ms, error {:.4}",
            format!("{backend:?}"),
            gathered.as_secs_f64() * 1e3,
            report.time().as_secs_f64() * 1e3,
            error(&report),
        );
    }
    Ok(())
}

/// The backends that the features of this build bring.
fn backends() -> Vec<Backend> {
    vec![
        #[cfg(feature = "second-order")]
        Backend::Faer,
        #[cfg(feature = "lapack")]
        Backend::Lapack,
    ]
}

fn error(report: &wanda::LayerReport) -> f64 {
    report
        .relative_error()
        .map_or(f64::NAN, |error| error.value())
}

/// Inputs of which each is partly what its neighbour on the left is, as in real layers, where that
/// is what an update makes use of.
fn correlated(random: &mut Random) -> Array2<f32> {
    let mut inputs = random.matrix(TOKENS, INPUTS);
    for mut token in inputs.rows_mut() {
        for j in 1..INPUTS {
            token[j] += 0.8 * token[j - 1];
        }
    }
    inputs
}

/// Marsaglia's xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    /// A matrix of numbers between -1 and 1.
    fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
    }
}
