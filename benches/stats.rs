//! Statistics: streaming activations, against a sum over the same bytes.

use criterion::{Criterion, Throughput};
use rayon::prelude::*;
use wanda::ColumnNorms;
use wanda::half::bf16;

use crate::data::normal_matrix;

/// The sum of squares of every column.
pub(crate) fn column_norms(c: &mut Criterion) {
    let (tokens, features) = (16384, 4096);
    let batch = normal_matrix(tokens, features, 1);
    let half = batch.mapv(bf16::from_f32);
    let mut group = c.benchmark_group(format!("column norms {tokens}x{features}"));
    group.throughput(Throughput::Elements((tokens * features) as u64));
    let numbers = batch.as_slice().expect("row-major");
    group.bench_function("floor: sum of the bytes in f32", |b| {
        b.iter(|| {
            let runs = numbers.par_chunks(1 << 16);
            let sums = runs.map(|run| {
                run.iter()
                    .fold(0, |sum: u32, x| sum.wrapping_add(x.to_bits()))
            });
            sums.reduce(|| 0, u32::wrapping_add)
        });
    });
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
