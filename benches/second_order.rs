//! Second-order pruning by each backend that is built in, beside a matrix product.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use wanda::{
    Backend, Gram, ImportanceMetric, Magnitude, NoStats, Obs, ObsSweep, Pattern, Pruner, Wanda,
};

use crate::data::normal_matrix;

/// Inputs and outputs of the layers: the feed-forward part of a small model, the attention of
/// Llama-2-7B.
const SIZES: [usize; 2] = [1024, 4096];

/// The backends that the features of this build bring.
fn backends() -> Vec<Backend> {
    vec![
        Backend::Faer,
        #[cfg(feature = "lapack")]
        Backend::Lapack,
    ]
}

/// `XᵀX` of 2048 tokens, beside the product of two matrices of its size.
pub(crate) fn gram(c: &mut Criterion) {
    let tokens = 2048;
    for n in SIZES {
        let mut group = c.benchmark_group(format!("gram {tokens}x{n}"));
        group.throughput(Throughput::Elements((tokens * n) as u64));
        product(&mut group, n);
        let batch = normal_matrix(tokens, n, 1);
        for backend in backends() {
            let mut gram = Gram::new(n).backend(backend);
            group.bench_function(format!("{backend:?}"), |b| {
                b.iter(|| gram.update(&batch).expect("activations are finite"));
            });
        }
        group.finish();
    }
}

/// The factor of a Gram matrix alone.
pub(crate) fn factor(c: &mut Criterion) {
    for n in SIZES {
        let mut group = c.benchmark_group(format!("factor {n}x{n}"));
        product(&mut group, n);
        let gram = gathered(n);
        for backend in backends() {
            group.bench_function(format!("{backend:?}"), |b| {
                b.iter(|| gram.factor::<f32>(backend, 0.01).expect("enough tokens"));
            });
        }
        group.finish();
    }
}

/// A whole layer, with a mask that is given (factor and sweep) and with all there is.
pub(crate) fn sweep(c: &mut Criterion) {
    for n in SIZES {
        let mut group = c.benchmark_group(format!("sweep {n}x{n}"));
        group.throughput(Throughput::Elements((n * n) as u64));
        product(&mut group, n);
        let gram = gathered(n);
        let weights = normal_matrix(n, n, 3);
        let mask = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
            .mask(&weights, &NoStats)
            .expect("the layer can be decided");
        for backend in backends() {
            let update = ObsSweep::new().backend(backend);
            let given = Pruner::new(Magnitude, &mask).update(update);
            group.bench_function(
                BenchmarkId::new(format!("{backend:?}"), "given mask"),
                |b| {
                    b.iter_batched_ref(
                        || weights.clone(),
                        |w| given.prune(w, &gram).expect("the layer can be pruned"),
                        BatchSize::PerIteration,
                    );
                },
            );
            let metrics: [(&dyn ImportanceMetric, &str); 4] = [
                (&Obs::new(), "per-layer:0.5"),
                (&Obs::new(), "0.5"),
                (&Obs::new(), "2:4"),
                (&Wanda, "0.5"),
            ];
            for (metric, text) in metrics {
                let pattern: Pattern = text.parse().expect("the text of a pattern");
                let pruner = Pruner::new(metric, pattern).update(update);
                let name = format!("{} {pattern}", metric.name());
                group.bench_function(BenchmarkId::new(format!("{backend:?}"), name), |b| {
                    b.iter_batched_ref(
                        || weights.clone(),
                        |w| pruner.prune(w, &gram).expect("the layer can be pruned"),
                        BatchSize::PerIteration,
                    );
                });
            }
        }
        group.finish();
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// The unit: a product of two n x n matrices.
fn product(group: &mut Group<'_>, n: usize) {
    use faer::linalg::matmul::matmul;
    use faer::{Accum, Mat, Par};

    let a = Mat::<f32>::from_fn(n, n, |i, j| ((i * 7 + j * j) as f32).sin());
    let mut product = Mat::<f32>::zeros(n, n);
    group.bench_function("unit: product", |b| {
        b.iter(|| matmul(&mut product, Accum::Replace, &a, &a, 1.0, Par::rayon(0)));
    });
}

fn gathered(n: usize) -> Gram {
    let mut gram = Gram::new(n);
    gram.update(&normal_matrix(2 * n, n, 2))
        .expect("activations are finite");
    gram
}
