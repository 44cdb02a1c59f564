//! Scoring, selecting and zeroing, beside a pass that only reads and writes every weight.

use std::hint::black_box;

use rayon::prelude::*;
use wanda::half::bf16;
use wanda::ndarray::Array2;
use wanda::{
    ColumnNorms, Element, ImportanceMetric, LayerReport, Magnitude, Pattern, Pruner, Result, Wanda,
};

use crate::measure::{Table, timed};
use crate::weights::{Random, Source};

/// Runs of each row, of which the median is printed.
const RUNS: usize = 15;

/// The feed-forward layers of Llama-2-7B, outputs x inputs.
const UP: (usize, usize) = (11008, 4096);
const DOWN: (usize, usize) = (4096, 11008);
/// Its attention layers.
const SQUARE: (usize, usize) = (4096, 4096);
/// Tokens of a batch of calibration.
const TOKENS: usize = 16384;

/// Name of the row that the estimates for whole models are made from.
pub(crate) const WANDA: &str = "wanda 0.5, 4096 x 11008 f32";

pub(crate) fn measure(table: &mut Table, source: &Source) -> Result<()> {
    table.heading(
        "first order",
        "units: an in-place pass over the same weights",
    );
    floor(table);
    for shape in [DOWN, UP] {
        let patterns = ["0.5", "0.7", "0.95", "2:4", "4:8"];
        layer::<f32>(table, &Wanda, &patterns, &source.matrix(shape.0, shape.1))?;
        layer::<bf16>(table, &Wanda, &patterns, &source.matrix(shape.0, shape.1))?;
    }
    let down = source.matrix(DOWN.0, DOWN.1);
    layer::<f32>(table, &Magnitude, &["per-layer:0.5"], &down)?;
    layer::<bf16>(table, &Magnitude, &["per-layer:0.5"], &down)?;
    drop(down);
    let square = source.matrix(SQUARE.0, SQUARE.1);
    let patterns = ["0.5", "per-layer:0.5", "per-input:0.5", "block:16x1:0.5"];
    layer::<f32>(table, &Wanda, &patterns, &square)?;
    layer::<f64>(table, &Wanda, &["0.5", "2:4"], &square)?;
    worst_cases(table)?;
    small_layers(table, source)?;
    table.heading(
        "statistics",
        "units: a sum of the same bytes, which only reads",
    );
    column_norms::<f32>(table)?;
    column_norms::<bf16>(table)
}

/// The time of pruning, which is undone outside of it, beside the floor.
fn prune<A: Element>(
    table: &mut Table,
    name: &str,
    dense: &Array2<A>,
    mut pruner: impl FnMut(&mut Array2<A>) -> Result<LayerReport>,
) -> Result<()> {
    if !table.wants(name) {
        return Ok(());
    }
    let mut w = dense.clone();
    let mut bytes = Floor::new(w.len() * size_of::<A>());
    table.row(name, RUNS, || {
        w.assign(dense);
        let (unit, ()) = timed(|| bytes.pass());
        let (work, report) = timed(|| pruner(&mut w));
        report.map(|_| (unit, work))
    })
}

/// Memory to read and write: what any change of all weights takes at least.
struct Floor(Vec<f32>);

impl Floor {
    fn new(bytes: usize) -> Self {
        Self(vec![1.0; bytes / 4])
    }

    /// Multiplies every number by another, on all threads.
    fn pass(&mut self) {
        let factor = black_box(1.0);
        let runs = self.0.par_chunks_mut(1 << 16);
        runs.for_each(|run| run.iter_mut().for_each(|x| *x *= factor));
    }
}

/// The floor by itself, which reads and writes every byte.
fn floor(table: &mut Table) {
    let bytes = DOWN.0 * DOWN.1 * size_of::<f32>();
    let mut memory = Floor::new(bytes);
    let name = format!("the pass itself, {} x {} f32", DOWN.0, DOWN.1);
    table.unit(&name, RUNS, (2.0 * bytes as f64, "GB/s"), || {
        timed(|| memory.pass()).0
    });
}

/// A layer pruned by a metric with some patterns.
fn layer<A: Element>(
    table: &mut Table,
    metric: &dyn ImportanceMetric<A::Compute>,
    patterns: &[&str],
    weights: &Array2<f32>,
) -> Result<()> {
    let (rows, columns) = weights.dim();
    let mut stats = ColumnNorms::new(columns);
    stats.update(&Random::new().matrix(16, columns))?;
    let kind = std::any::type_name::<A>().rsplit("::").next().unwrap_or("");
    let dense: Array2<A> = weights.mapv(|w| narrowed(w));
    for text in patterns {
        let name = format!("{} {text}, {rows} x {columns} {kind}", metric.name());
        let pruner = Pruner::new(metric, text.parse::<Pattern>()?);
        prune(table, &name, &dense, |w| pruner.prune(w, &stats))?;
    }
    Ok(())
}

fn narrowed<A: Element>(w: f32) -> A {
    A::narrow(num_traits::cast(w).unwrap_or(num_traits::zero()))
}

/// Rows on which a selection might waste its time.
fn worst_cases(table: &mut Table) -> Result<()> {
    let n = SQUARE.0;
    let mut random = Random::new();
    let mut sorted = random.matrix(n, n);
    for mut row in sorted.rows_mut() {
        let mut numbers: Vec<f32> = row.iter().map(|w| w.abs()).collect();
        numbers.sort_by(f32::total_cmp);
        row.assign(
            &Array2::from_shape_vec((1, n), numbers)
                .expect("n numbers")
                .row(0),
        );
    }
    let pick = |random: &mut Random| if random.next() > 0.0 { 2.0 } else { -1.0 };
    let cases = [
        ("all weights equal", Array2::from_elem((n, n), 1.5)),
        (
            "all but one a row zero",
            Array2::from_shape_fn((n, n), |(i, j)| if i == j { 1.0 } else { 0.0 }),
        ),
        ("sorted rows", sorted),
        (
            "two distinct values",
            Array2::from_shape_simple_fn((n, n), || pick(&mut random)),
        ),
    ];
    // Norms that are all alike leave scores as equal as weights are.
    let mut stats = ColumnNorms::new(n);
    stats.update(&Array2::<f32>::ones((1, n)))?;
    for (case, dense) in cases {
        let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
        let name = format!("wanda 0.5, {n} x {n} f32, {case}");
        prune(table, &name, &dense, |w| pruner.prune(w, &stats))?;
    }
    Ok(())
}

/// All 210 layers of a small model, one after the other.
fn small_layers(table: &mut Table, source: &Source) -> Result<()> {
    let shapes = [
        (576, 576),
        (192, 576),
        (192, 576),
        (576, 576),
        (1536, 576),
        (1536, 576),
        (576, 1536),
    ];
    let dense: Vec<_> = (0..30)
        .flat_map(|_| shapes)
        .map(|(rows, columns)| source.matrix(rows, columns))
        .collect();
    let stats = [576, 1536].map(|columns| {
        let mut stats = ColumnNorms::new(columns);
        let updated = stats.update(&Random::new().matrix(16, columns));
        updated.map(|()| stats)
    });
    let [narrow, wide] = stats;
    let (narrow, wide) = (narrow?, wide?);
    let mut layers = dense.clone();
    let mut bytes = Floor::new(dense.iter().map(|layer| layer.len() * 4).sum());
    let restore = |layers: &mut [Array2<f32>]| {
        for (layer, dense) in layers.iter_mut().zip(&dense) {
            layer.assign(dense);
        }
    };
    table.row(
        "wanda 0.5, all 210 layers of SmolLM2-135M, f32",
        RUNS,
        || {
            restore(&mut layers);
            let (unit, ()) = timed(|| bytes.pass());
            restore(&mut layers);
            let (work, result) = timed(|| {
                layers.iter_mut().try_for_each(|w| {
                    let stats = if w.ncols() == 576 { &narrow } else { &wide };
                    wanda::prune_layer(w, stats, Pattern::PerOutput(0.5)).map(drop)
                })
            });
            result.map(|()| (unit, work))
        },
    )
}

/// Norms of the columns of a batch, beside a sum of the same bytes.
fn column_norms<A: Element>(table: &mut Table) -> Result<()> {
    let kind = std::any::type_name::<A>().rsplit("::").next().unwrap_or("");
    let name = format!("column norms, {TOKENS} x {} {kind}", SQUARE.1);
    if !table.wants(&name) {
        return Ok(());
    }
    let batch = Random::new().matrix(TOKENS, SQUARE.1);
    let batch: Array2<A> = batch.mapv(|x| narrowed(x));
    let mut words = vec![0_u64; batch.len() * size_of::<A>() / 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = i as u64;
    }
    let mut stats = ColumnNorms::new(SQUARE.1);
    table.row(&name, RUNS, || {
        let (unit, sum) = timed(|| {
            let runs = words.par_chunks(1 << 16);
            let sums = runs.map(|run| run.iter().fold(0, |sum: u64, &w| sum.wrapping_add(w)));
            sums.reduce(|| 0, u64::wrapping_add)
        });
        black_box(sum);
        let (work, result) = timed(|| stats.update(&batch));
        result.map(|()| (unit, work))
    })
}
