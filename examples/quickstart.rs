//! The basic API on one made-up layer: `cargo run --example quickstart`.

use wanda::ndarray::{Array2, s};
use wanda::{
    ActivationStats, ColumnNorms, ImportanceMetric, Magnitude, Mask, NoStats, Pattern, Pruner,
    Wanda, validate,
};

const OUTPUTS: usize = 64;
const INPUTS: usize = 256;

fn main() -> wanda::Result<()> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let dense = random.matrix(OUTPUTS, INPUTS);

    // What flows into the layer: every 32nd input is ten times as loud as the others.
    let mut inputs = random.matrix(96, INPUTS);
    inputs.slice_mut(s![.., ..;32]).mapv_inplace(|x| 10.0 * x);

    println!("Statistics");
    // Tokens come in batches of any size, here of 40, 40 and 16.
    let mut stats = ColumnNorms::new(INPUTS);
    for first in (0..96).step_by(40) {
        stats.update(&inputs.slice(s![first..96.min(first + 40), ..]))?;
    }
    // Another part of the calibration set, seen elsewhere. Its last two tokens are padding.
    let mut other = ColumnNorms::new(INPUTS);
    let padded = random.matrix(4, INPUTS);
    other.update_weighted(&padded, &[1.0, 1.0, 0.0, 0.0])?;
    stats.merge(&other)?;
    let norms = stats.norms();
    println!(
        "  {} tokens; norm of input 0 is {:.1}, of input 1 {:.1}",
        stats.tokens(),
        norms[0],
        norms[1]
    );

    println!("\nOne call: half of the weights of every output, chosen by Wanda");
    let mut w = dense.clone();
    let report = wanda::prune_layer(&mut w, &stats, Pattern::PerOutput(0.5))?;
    println!("  {report}");

    println!("\nAny metric with any pattern, and the share of the output that is lost");
    println!(
        "  {:<10} {:<16} {:>8} {:>6}",
        "metric", "pattern", "sparsity", "error"
    );
    let metrics: [&dyn ImportanceMetric; 2] = [&Magnitude, &Wanda];
    for text in ["0.5", "2:4", "per-layer:0.5", "block:4x4:0.5"] {
        let pattern: Pattern = text.parse()?;
        for metric in metrics {
            let report = Pruner::new(metric, pattern).prune(&mut dense.clone(), &stats)?;
            let error = report
                .relative_error()
                .map_or(f64::NAN, |error| error.value());
            println!(
                "  {:<10} {text:<16} {:>8.3} {error:>6.3}",
                metric.name(),
                report.sparsity(),
            );
        }
    }

    println!("\nThe decision first, the weights later");
    let pattern = Pattern::NOfM { keep: 2, of: 4 };
    let by_size = Pruner::new(Magnitude, pattern).mask(&dense, &NoStats)?;
    let by_wanda = Pruner::new(Wanda, pattern).mask(&dense, &stats)?;
    println!(
        "  magnitude and wanda disagree on {} of {} weights",
        by_size.differences(&by_wanda)?,
        OUTPUTS * INPUTS
    );
    let mut w = dense.clone();
    by_wanda.apply(&mut w)?;
    validate(&w, &pattern)?;
    println!("  pruned by the mask of wanda, the matrix is {pattern}");

    println!("\nThe weights that stay, as compressed sparse rows");
    let csr = by_wanda.to_csr()?;
    let first = &csr.columns[csr.row_starts[0]..csr.row_starts[1]];
    println!(
        "  {} column indices; row 0 starts with {:?}",
        csr.columns.len(),
        &first[..6]
    );

    println!("\nWeights that must stay: the whole first column");
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.9));
    let first_column = Mask::from_fn(OUTPUTS, INPUTS, |_, column| column == 0)?;
    for (name, pruner) in [
        ("free", pruner.clone()),
        ("protected", pruner.protect(first_column)),
    ] {
        let mut w = dense.clone();
        let report = pruner.prune(&mut w, &NoStats)?;
        let left = w.column(0).iter().filter(|&&w| w != 0.0).count();
        println!(
            "  {name:<10} {left:>2} of {OUTPUTS} left in the column, {} pruned in the layer",
            report.pruned()
        );
    }

    println!("\nMistakes are errors, and leave the weights as they are");
    let mut w = dense.clone();
    let unseen = ColumnNorms::new(INPUTS);
    for result in [
        wanda::prune_layer(&mut w, &unseen, Pattern::PerOutput(0.5)),
        wanda::prune_layer(&mut w, &stats, Pattern::PerOutput(1.5)),
    ] {
        if let Err(error) = result {
            println!("  {error}");
        }
    }
    assert_eq!(w, dense);
    Ok(())
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
