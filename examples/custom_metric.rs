//! A metric and a pattern of your own: `cargo run --example custom_metric`.

use wanda::ndarray::Array2;
use wanda::stats::required_sums;
use wanda::{
    ColumnNorms, ComparisonGroup, Context, Factors, ImportanceMetric, Magnitude, Pattern, Prepared,
    Pruner, Real, Result, Rows, SparsityPattern, Wanda, validate,
};

/// The size of the weight times a power of the norm of its input: between magnitude (power 0)
/// and Wanda (power 1).
#[derive(Debug)]
struct Tempered {
    power: f64,
}

impl ImportanceMetric for Tempered {
    /// Once a layer: one factor an input.
    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<f32>,
        context: &Context<'a, f32>,
    ) -> Result<Prepared<'a>> {
        let sums = required_sums(context.stats, "tempered", weights.dim())?;
        let factor = |sum: &f64| f32::from_f64(sum.sqrt().powf(self.power));
        let factors = Factors::new(sums.iter().map(factor).collect());
        Ok(Prepared::factors(factors))
    }
}

/// Keeps the same number of inputs for every output.
#[derive(Debug)]
struct KeepPerOutput(usize);

impl<T: Real> SparsityPattern<T> for KeepPerOutput {
    /// The weights of a row are compared with each other.
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Row)
    }

    /// So many of them go.
    fn count(&self, size: usize) -> usize {
        size.saturating_sub(self.0)
    }
}

fn main() -> Result<()> {
    // Inputs get louder from left to right.
    let dense = Array2::from_shape_fn((8, 32), noise);
    let tokens = Array2::from_shape_fn((20, 32), |(t, j)| (j + 1) as f32 * noise((j, t)));
    let mut stats = ColumnNorms::new(32);
    stats.update(&tokens)?;

    println!("Own pattern, which weights of the first output stay:");
    let metrics: [(&str, &dyn ImportanceMetric); 3] = [
        ("magnitude", &Magnitude),
        ("tempered 0.5", &Tempered { power: 0.5 }),
        ("wanda", &Wanda),
    ];
    for (name, metric) in metrics {
        let mut w = dense.clone();
        let report = Pruner::new(metric, KeepPerOutput(8)).prune(&mut w, &stats)?;
        validate(&w, &KeepPerOutput(8))?;
        let row: String = w
            .row(0)
            .iter()
            .map(|&w| if w == 0.0 { '.' } else { '#' })
            .collect();
        let error = report
            .relative_error()
            .map_or(f64::NAN, |error| error.value());
        println!("  {name:<12} {row}  error {error:.3}");
    }

    println!("\nOwn metric with the patterns of the crate:");
    let metric = Tempered { power: 0.5 };
    for text in ["0.75", "1:4", "per-input:0.75"] {
        let pattern: Pattern = text.parse()?;
        let report = Pruner::new(&metric, pattern).prune(&mut dense.clone(), &stats)?;
        println!("  {text:<15} {report}");
    }
    Ok(())
}

/// Numbers between -1 and 1 without a visible order.
fn noise((i, j): (usize, usize)) -> f32 {
    ((31 * i * i + 57 * j * j + 13 * i * j + 7) % 101) as f32 / 50.0 - 1.0
}
