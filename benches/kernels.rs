//! The inner loops, as far as each can be reached by itself, beside the floor.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use wanda::half::bf16;
use wanda::{
    ColumnNorms, Context, Element, ImportanceMetric, Magnitude, Mask, Pattern, Scoring,
    SparsityPattern, Wanda,
};

use crate::data::{SHAPES, floor, normal_matrix};

/// On all threads: deciding from scores that are there, and zeroing.
pub(crate) fn patterns(c: &mut Criterion) {
    let (rows, columns) = SHAPES[2];
    let mut group = c.benchmark_group(format!("kernels {rows}x{columns}"));
    group.throughput(Throughput::Elements((rows * columns) as u64));
    let scores = normal_matrix(rows, columns, 1).mapv_into(f32::abs);
    floor(&mut group, &scores);
    for text in [
        "0.5",
        "2:4",
        "4:8",
        "per-layer:0.5",
        "per-input:0.5",
        "block:16x1:0.5",
    ] {
        let pattern: Pattern = text.parse().expect("a pattern");
        group.bench_function(format!("decide {text}"), |b| {
            b.iter(|| pattern.project(&scores, 0..columns).expect("decided"));
        });
    }
    let mask = Mask::from_fn(rows, columns, |row, column| (row ^ column) % 3 == 0);
    let mask = mask.expect("there is memory for a mask");
    group.bench_function("zero", |b| {
        b.iter_batched_ref(
            || scores.clone(),
            |w| mask.apply(w).expect("the shapes are the same"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// On one thread, a row at a time: scoring and widening.
pub(crate) fn rows(c: &mut Criterion) {
    let (_, columns) = SHAPES[3];
    let mut group = c.benchmark_group(format!("kernels, a row of {columns}"));
    group.throughput(Throughput::Elements(columns as u64));
    let weights = normal_matrix(1, columns, 2);
    let run = weights.as_slice().expect("one row");
    let mut stats = ColumnNorms::new(columns);
    stats
        .update(&normal_matrix(16, columns, 3))
        .expect("activations are finite");
    let mut out = vec![0.0; columns];
    group.bench_function("floor", |b| {
        b.iter(|| out.iter_mut().for_each(|x| *x *= black_box(1.0)));
    });
    let metrics: [(&str, &dyn ImportanceMetric); 2] = [
        ("score by magnitude", &Magnitude),
        ("score by wanda", &Wanda),
    ];
    for (name, metric) in metrics {
        let prepared = metric.prepare(&weights, &Context::new(&stats, 10.0));
        let prepared = prepared.expect("inputs were seen");
        let scoring = Scoring::new(metric, &prepared);
        group.bench_function(name, |b| {
            b.iter(|| scoring.score(0, 0, run, black_box(&mut out)));
        });
    }
    let half: Vec<bf16> = run.iter().map(|&w| bf16::from_f32(w)).collect();
    group.bench_function("widen bf16", |b| {
        b.iter(|| bf16::widen_run(&half, black_box(&mut out)));
    });
    group.finish();
}
