//! The lowest scores of a whole layer, found without sorting or holding them.

use crate::element::Real;
use crate::error::Result;
use crate::kernels::{self, Cut, Search, Survey, WORD};
use crate::mask::{Mask, words_for};
use crate::matrix::Rows;
use crate::parallel::{self, rows_a_task};

/// Marks the `count` lowest scores, of equal ones those in the lowest column, then in the lowest
/// row.
///
/// Scores are read here and there, to guess where the highest of the lowest is, and as a rule once
/// more: all are compared with a bracket around the guess, and those in it are held.
/// Takes two bits of memory a score, and room for the scores in the bracket: of each run of rows
/// that a thread works on one in eight at most, or 65536.
pub(super) fn mark_lowest<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Mask> {
    if count == 0 {
        // Read all the same, so that an invalid score is found.
        return Ok(survey(scores, T::zero(), T::zero(), 0)?.lower);
    }
    let Split {
        lower: mut mask,
        tied,
        ties,
    } = split(scores, count)?;
    if tied.count() == ties {
        mask.unite(&tied);
    } else {
        mark_first(&tied, ties, &mut mask);
    }
    Ok(mask)
}

/// Marks all scores up to the one of rank `rank`, counted from 0.
pub(super) fn mark_up_to_rank<T: Real>(scores: &dyn Rows<T>, rank: usize) -> Result<Mask> {
    let (rows, columns) = scores.dim();
    if rank >= rows * columns {
        return Mask::none(rows, columns);
    }
    let Split {
        lower: mut mask,
        tied,
        ..
    } = split(scores, rank + 1)?;
    mask.unite(&tied);
    Ok(mask)
}

/// Standard deviations from the guessed place to the end of a bracket. A bracket that misses costs
/// another pass, one that is wide only room. Scores next to each other in the sample are of one
/// row and may be alike, so that it says less than its size promises.
const DEVIATIONS: f64 = 3.0;

/// So many scores are always held, even if all of them are of one task.
const ROOM: usize = 1 << 16;

/// Of more, one in so many of each task is held at most.
const HELD: usize = 8;

/// Scores of a row that are read together: few enough to stay in the fastest cache until they have
/// been looked at. A multiple of 64.
const CHUNK: usize = 1024;

/// Where chunks of a row start.
fn chunks(columns: usize) -> impl Iterator<Item = usize> {
    (0..columns).step_by(CHUNK)
}

/// A layer, divided by the highest of its lowest scores.
struct Split {
    /// The scores below that.
    lower: Mask,
    /// The scores equal to it.
    tied: Mask,
    /// How many of these are among the lowest.
    ties: usize,
}

/// Finds the highest of the `count` lowest scores. `count` is at least 1 and no more than there
/// are scores.
fn split<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Split> {
    let (rows, columns) = scores.dim();
    let mut search = Search::new(rows * columns, count);
    let mut sample = Vec::new();
    loop {
        let few = search.left() <= ROOM;
        let (low, high) = if few {
            search.range()
        } else {
            if sample.is_empty() {
                sample = pick(scores)?;
            }
            search.bracket(&mut sample, DEVIATIONS)
        };
        let surveyed = survey(scores, low, high, if few { search.left() } else { 0 })?;
        if !search.narrow(low, high, &surveyed.found) {
            continue;
        }
        let ties = count - surveyed.found.below;
        if low == high {
            return Ok(Split {
                lower: surveyed.lower,
                tied: surveyed.within,
                ties,
            });
        }
        if let Some(held) = &surveyed.held {
            let cut = kernels::cut(&held.concat(), ties);
            return Ok(surveyed.split(cut));
        }
    }
}

/// Scores from all over the layer.
fn pick<T: Real>(scores: &dyn Rows<T>) -> Result<Vec<T>> {
    /// Places to look at, and scores that are read of each: those that come with the first.
    const PLACES: usize = 2048;
    const RUN: usize = 16;
    /// The multiples of an odd number jump about.
    const MIXER: usize = 0x9E37_79B9;
    let (rows, columns) = scores.dim();
    let run = RUN.min(columns);
    let mut sample = vec![T::zero(); PLACES * run];
    for (i, run) in sample.chunks_exact_mut(run).enumerate() {
        let start = ((i * MIXER) >> 16) % (columns - run.len() + 1);
        scores.read(i * rows / PLACES, start, run)?;
    }
    Ok(sample)
}

/// What a pass over a layer found.
struct Surveyed<T> {
    found: Survey,
    /// The scores below the bracket.
    lower: Mask,
    /// The scores in the bracket.
    within: Mask,
    /// These scores themselves, of one task after the other, unless they are too many.
    held: Option<Vec<Vec<T>>>,
}

/// Compares all scores with `low` and `high`, and holds those from `low` to `high`. They are never
/// too many if there are no more than `least`. Equal ones are not held.
fn survey<T: Real>(scores: &dyn Rows<T>, low: T, high: T, least: usize) -> Result<Surveyed<T>> {
    let (rows, columns) = scores.dim();
    let height = rows_a_task(rows, columns);
    let mut lower = Mask::none(rows, columns)?;
    let mut within = Mask::none(rows, columns)?;
    let marks = lower
        .runs_of_rows_mut(height)
        .zip(within.runs_of_rows_mut(height));
    let work: Vec<_> = parallel::runs(rows, height)
        .into_iter()
        .zip(marks)
        .collect();
    let scratch = || [Vec::new(), Vec::new()];
    let parts = parallel::map(work, scratch, |[buffer, held], (rows, (lower, within))| {
        let buffer = kernels::aligned(buffer, CHUNK.min(columns));
        if low < high {
            let len = rows.len() * columns;
            // A word more than is held has to fit.
            held.resize((len / HELD).max(least.min(len)) + WORD, T::zero());
        }
        let mut total = Survey::default();
        for (i, row) in rows.enumerate() {
            for start in chunks(columns) {
                let run = &mut buffer[..CHUNK.min(columns - start)];
                scores.read(row, start, run)?;
                let words = i * words_for(columns) + start / WORD..;
                let (lower, within) = (&mut lower[words.clone()], &mut within[words]);
                let room = &mut held[total.held.unwrap_or(0)..];
                let found = kernels::survey_marking(run, low, high, room, lower, within);
                total.add(&found);
            }
        }
        Ok((total, held[..total.held.unwrap_or(0)].to_vec()))
    });
    let mut found = Survey::default();
    let mut held = Vec::with_capacity(parts.len());
    for part in parts {
        let (total, scores) = part?;
        found.add(&total);
        held.push(scores);
    }
    Ok(Surveyed {
        found,
        lower,
        within,
        held: found.held.map(|_| held),
    })
}

impl<T: Real> Surveyed<T> {
    /// Divides the scores that are held, and with them the layer.
    fn split(self, cut: Cut<T>) -> Split {
        let (mut lower, mut tied) = (self.lower, self.within);
        let (rows, columns) = lower.dim();
        let height = rows_a_task(rows, columns);
        let held = self.held.unwrap_or_default();
        let marks = lower
            .runs_of_rows_mut(height)
            .zip(tied.runs_of_rows_mut(height));
        parallel::map(
            held.into_iter().zip(marks).collect(),
            || [Vec::new(), Vec::new(), Vec::new()],
            |[below, equal, places], (held, (lower, tied))| {
                for chosen in [&mut *below, &mut *equal] {
                    chosen.clear();
                    // A word more than is needed, see `keep`.
                    chosen.resize(held.len() / WORD + 2, 0);
                }
                kernels::mark_split(&held, cut.threshold, below, equal);
                places.clear();
                places.extend_from_slice(tied);
                kernels::keep(below, places);
                for (lower, places) in lower.iter_mut().zip(&*places) {
                    *lower |= places;
                }
                kernels::keep(equal, tied);
            },
        );
        Split {
            lower,
            tied,
            ties: cut.ties,
        }
    }
}

/// Marks the first `count` of the weights that `tied` marks, column by column.
fn mark_first(tied: &Mask, count: usize, mask: &mut Mask) {
    // Columns before `edge` lose all of them, `edge` itself the first `left`.
    let mut left = count;
    let mut edge = 0;
    for in_column in count_columns(tied) {
        if left <= in_column {
            break;
        }
        left -= in_column;
        edge += 1;
    }
    let on_edge = (0..tied.dim().0).filter(|&row| tied.get(row, edge) == Some(true));
    let on_edge: Vec<usize> = on_edge.take(left).collect();
    let mut rows: Vec<_> = mask.rows_mut();
    parallel::map(
        rows.iter_mut().enumerate().collect(),
        || (),
        |(), (row, marks)| marks.unite_up_to(edge, tied.row_words(row)),
    );
    for row in on_edge {
        rows[row].mark(edge);
    }
}

/// How many weights of each column are marked.
fn count_columns(mask: &Mask) -> Vec<usize> {
    /// Counts that are added up in the end.
    const PARTS: usize = 16;
    let (rows, columns) = mask.dim();
    let parts = parallel::map(
        parallel::runs(rows, rows.div_ceil(PARTS)),
        || (),
        |(), rows| {
            let mut counts = vec![0; columns];
            for column in rows.flat_map(|row| mask.iter_row(row)) {
                counts[column] += 1;
            }
            counts
        },
    );
    let mut total = vec![0; columns];
    for part in parts {
        for (total, count) in total.iter_mut().zip(part) {
            *total += count;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Scores of different kinds in layers that are too large to be held.
    fn layers() -> Vec<(&'static str, Array2<f32>)> {
        let mut state = 1_u64;
        let mut random = move || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 24) as f32
        };
        let mut layer = |shape, score: &dyn Fn(usize, usize, f32) -> f32| {
            Array2::from_shape_fn(shape, |(row, column)| score(row, column, random()))
        };
        vec![
            ("spread", layer((576, 128), &|_, _, x| x)),
            ("spread, few columns", layer((30_000, 3), &|_, _, x| x)),
            (
                "few values",
                layer((300, 257), &|_, _, x| (x * 4.0).floor()),
            ),
            ("one value", layer((300, 257), &|_, _, _| 2.0)),
            (
                "alike in a row",
                layer((700, 100), &|row, _, x| row as f32 + x),
            ),
            (
                "alike in a column",
                layer((700, 100), &|_, column, x| column as f32 + x),
            ),
            (
                "one row far below",
                layer((70, 1100), &|row, _, x| if row == 9 { x } else { 1e6 + x }),
            ),
            (
                "of all sizes",
                layer((90, 1000), &|_, _, x| (x * 80.0 - 40.0).exp()),
            ),
        ]
    }

    #[test]
    fn layers_too_large_to_be_held_lose_what_sorting_puts_first() {
        for (kind, scores) in layers() {
            let (rows, columns) = scores.dim();
            assert!(scores.len() > ROOM);
            let mut order: Vec<(usize, usize)> = (0..columns)
                .flat_map(|column| (0..rows).map(move |row| (row, column)))
                .collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            for part in [0.0, 1e-5, 0.001, 0.3, 0.5, 0.77, 0.999, 1.0] {
                let count = super::super::quota(scores.len(), part);
                let mask = mark_lowest(&scores, count).expect("finite scores");
                assert_eq!(mask.count(), count, "{kind}, {part}");
                for &(row, column) in &order[..count] {
                    assert_eq!(mask.get(row, column), Some(true), "{kind}, {part}");
                }
            }
        }
    }
}
