//! Work on many items at once; in turn, with the same results, without feature `rayon`.

use crate::error::Result;

/// Maps `work` over `items` and returns the results in the order of the items.
///
/// `scratch` makes the memory that one worker keeps from item to item, so `work` must not let
/// what an earlier item left there change a result.
#[cfg(feature = "rayon")]
pub(crate) fn map<I: Send, S, R: Send>(
    items: Vec<I>,
    scratch: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, I) -> R + Send + Sync,
) -> Vec<R> {
    use rayon::prelude::*;
    // What one thread does is not worth handing over.
    if items.len() <= 1 {
        return in_turn(items, scratch, work);
    }
    items.into_par_iter().map_init(scratch, work).collect()
}

#[cfg(not(feature = "rayon"))]
pub(crate) use in_turn as map;

/// What [`map`] does, on this thread.
pub(crate) fn in_turn<I, S, R>(
    items: Vec<I>,
    scratch: impl Fn() -> S,
    work: impl Fn(&mut S, I) -> R,
) -> Vec<R> {
    // Without work, there need be no memory to work in.
    if items.is_empty() {
        return Vec::new();
    }
    let mut scratch = scratch();
    items
        .into_iter()
        .map(|item| work(&mut scratch, item))
        .collect()
}

/// Does `work` on all items, as [`map`] does, and returns the error of the first that has one.
pub(crate) fn try_each<I: Send, S>(
    items: Vec<I>,
    scratch: impl Fn() -> S + Send + Sync,
    work: impl Fn(&mut S, I) -> Result<()> + Send + Sync,
) -> Result<()> {
    map(items, scratch, work).into_iter().collect()
}

/// How many threads work at a time.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}

/// Cuts `0..len` into runs of `size` (the last may be shorter), one an item of work.
pub(crate) fn runs(len: usize, size: usize) -> Vec<std::ops::Range<usize>> {
    let size = size.max(1);
    (0..len)
        .step_by(size)
        .map(|start| start..len.min(start.saturating_add(size)))
        .collect()
}

/// Tasks that the rows of a layer make: enough to keep the threads of a large machine busy to the
/// end, few enough to hold a result of each.
const TASKS: usize = 256;

/// Numbers that a task has at least: it takes many times as long as to hand it to a thread.
const LEAST: usize = 1 << 15;

/// How many rows of a matrix make a task.
pub(crate) fn rows_a_task(rows: usize, columns: usize) -> usize {
    rows.div_ceil(TASKS).max(LEAST.div_ceil(columns.max(1)))
}
