//! Whole layers: first-order metrics and all kinds of patterns on the shapes of real Llama layers.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use wanda::{ColumnNorms, ImportanceMetric, Magnitude, NoStats, Pattern, Pruner, Wanda};

use crate::data::{SHAPES, floor, normal_matrix};

fn patterns() -> [Pattern; 6] {
    [
        Pattern::PerOutput(0.5),
        Pattern::PerLayer(0.5),
        Pattern::PerInput(0.5),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::Block {
            rows: 16,
            cols: 1,
            sparsity: 0.5,
        },
        Pattern::Cumulative(0.5),
    ]
}

/// Pruning in place, beside the floor.
pub(crate) fn prune(c: &mut Criterion) {
    for (rows, columns) in SHAPES {
        let mut group = c.benchmark_group(format!("prune {rows}x{columns}"));
        group.throughput(Throughput::Elements((rows * columns) as u64));
        let weights = normal_matrix(rows, columns, 1);
        let mut stats = ColumnNorms::new(columns);
        stats
            .update(&normal_matrix(16, columns, 2))
            .expect("activations are finite");
        floor(&mut group, &weights);
        let metrics: [&dyn ImportanceMetric; 2] = [&Magnitude, &Wanda];
        for metric in metrics {
            for pattern in patterns() {
                let pruner = Pruner::new(metric, pattern);
                let id = BenchmarkId::new(metric.name(), pattern);
                group.bench_function(id, |b| {
                    b.iter_batched_ref(
                        || weights.clone(),
                        |w| pruner.prune(w, &stats).expect("the layer can be pruned"),
                        BatchSize::PerIteration,
                    );
                });
            }
        }
        group.finish();
    }
}

/// Deciding alone.
pub(crate) fn mask(c: &mut Criterion) {
    let (rows, columns) = SHAPES[2];
    let weights = normal_matrix(rows, columns, 3);
    let mut group = c.benchmark_group(format!("mask {rows}x{columns}"));
    group.throughput(Throughput::Elements((rows * columns) as u64));
    floor(&mut group, &weights);
    for pattern in patterns() {
        let pruner = Pruner::new(Magnitude, pattern);
        group.bench_function(pattern.to_string(), |b| {
            b.iter(|| {
                pruner
                    .mask(&weights, &NoStats)
                    .expect("the layer can be decided")
            });
        });
    }
    group.finish();
}
