//! Benchmarks of the library: `cargo bench`, or `cargo bench -- 'prune 4096x4096'` for one group.
//!
//! Rates are in weights or activations a second. Each group has a `floor`, what memory allows on
//! the machine at that moment, or a `unit`, a matrix product, to compare with.

mod data;
mod kernels;
mod prune;
mod second_order;
mod stats;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = kernels::patterns, kernels::rows, prune::prune, prune::mask, stats::column_norms,
        second_order::gram, second_order::factor, second_order::sweep
}
criterion_main!(benches);
