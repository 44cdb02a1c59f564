//! Benchmarks of the library: `cargo bench`, or `cargo bench -- 'prune 4096x4096'` for one group.
//!
//! Rates are in weights or activations a second. Each group has a `floor`, what memory allows on
//! the machine at that moment, to compare with.

mod data;
mod prune;
mod stats;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = prune::prune, prune::mask, stats::column_norms
}
criterion_main!(benches);
