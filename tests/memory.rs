//! What pruning allocates: for patterns that decide within a row, a few rows a thread, whatever the
//! size of the layer.

use peak_alloc::PeakAlloc;
use wanda::half::bf16;
use wanda::ndarray::{Array2, Axis};
use wanda::{ColumnNorms, Element, Pattern};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const COLUMNS: usize = 1024;

/// Bytes in use at the highest point of pruning, beyond what was in use before.
fn peak<A: Element>(w: &mut Array2<A>, stats: &ColumnNorms, pattern: Pattern) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let report = wanda::prune_layer(w, stats, pattern);
    assert!(report.is_ok());
    MEMORY.peak_usage() - before
}

fn weights<A: Element>(rows: usize) -> Array2<A> {
    let number = |i: usize| num_traits::cast(i * 7919 % 10_007 + 1).expect("a small number");
    Array2::from_shape_fn((rows, COLUMNS), |(i, j)| A::narrow(number(i * COLUMNS + j)))
}

fn takes_a_few_rows<A: Element>(pattern: Pattern, stats: &ColumnNorms) {
    let row = COLUMNS * size_of::<f64>();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Norms and sums of squares, and scores, widened weights and marks of each thread. Threads may
    // hold the memory of two pieces of work at a time. Little more for the tasks themselves.
    let bound = 4 * row + threads * 6 * row + (1 << 16);
    for rows in [64, 2048] {
        let mut w = weights::<A>(rows);
        // The first time the threads themselves are made.
        peak(&mut w, stats, pattern);
        let mut w = weights::<A>(rows);
        let bytes = peak(&mut w, stats, pattern);
        assert!(
            bytes <= bound,
            "{pattern}, {rows} rows: {bytes} bytes, more than {bound}"
        );
    }
    // The same where rows are not runs in memory.
    let mut turned = weights::<A>(2048)
        .reversed_axes()
        .as_standard_layout()
        .into_owned();
    turned.swap_axes(0, 1);
    assert!(turned.strides()[0] == 1 && turned.len_of(Axis(1)) == COLUMNS);
    peak(&mut turned, stats, pattern);
    let bytes = peak(&mut turned, stats, pattern);
    assert!(
        bytes <= bound,
        "{pattern}, strided: {bytes} bytes, more than {bound}"
    );
}

/// One test, as all of a process share their memory.
#[test]
fn patterns_that_decide_within_a_row_take_a_few_rows_of_memory() {
    let mut stats = ColumnNorms::new(COLUMNS);
    let inputs = weights::<f32>(4);
    stats.update(&inputs).expect("finite inputs");
    for pattern in [Pattern::PerOutput(0.5), Pattern::NOfM { keep: 2, of: 4 }] {
        takes_a_few_rows::<f32>(pattern, &stats);
        takes_a_few_rows::<f64>(pattern, &stats);
        takes_a_few_rows::<bf16>(pattern, &stats);
    }
}
