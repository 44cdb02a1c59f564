//! Statistics: streaming activations, against a sum over the same bytes.

use criterion::{Criterion, Throughput};
use wanda::ColumnNorms;
use wanda::half::bf16;

use crate::data::normal_matrix;

/// The sum of squares of every column.
pub(crate) fn column_norms(c: &mut Criterion) {
    let (tokens, features) = (2048, 4096);
    let batch = normal_matrix(tokens, features, 1);
    let half = batch.mapv(bf16::from_f32);
    let mut group = c.benchmark_group(format!("column norms {tokens}x{features}"));
    group.throughput(Throughput::Elements((tokens * features) as u64));
    group.bench_function("floor: sum", |b| b.iter(|| batch.sum()));
    group.bench_function("f32", |b| {
        let mut stats = ColumnNorms::new(features);
        b.iter(|| stats.update(&batch).expect("activations are finite"));
    });
    group.bench_function("bf16", |b| {
        let mut stats = ColumnNorms::new(features);
        b.iter(|| stats.update(&half).expect("activations are finite"));
    });
    group.finish();
}
