//! Where the lowest scores of a whole layer end, found without sorting or holding them.

use super::rows::mark_rows;
use super::run::{cut_between, mark_up_to_cut};
use super::search::{Cut, Search, scattered};
use super::survey::{self, Survey};
use crate::element::Real;
use crate::error::Result;
use crate::kernels;
use crate::mask::{Mask, set_bits, words_for};
use crate::matrix::Rows;
use crate::parallel::{self, rows_a_task};
use crate::simd::WORD;

/// Where the weights of a layer end that go: those whose scores are below a threshold, and of
/// those equal to it the ones that come first, column by column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerCut<T> {
    /// The highest score that goes.
    pub(crate) threshold: T,
    /// Row and column of a place: weights of that score go if they are in an earlier column, or in
    /// the same column and an earlier row.
    pub(crate) ties_before: (usize, usize),
}

impl<T: Real> LayerCut<T> {
    /// No weight goes.
    fn nothing() -> Self {
        Self {
            threshold: T::zero(),
            ties_before: (0, 0),
        }
    }

    /// The column before which weights of a row go whose score is the threshold.
    pub(crate) fn ties_end(&self, row: usize) -> usize {
        if self.threshold.is_nan() {
            // Nothing is equal to that.
            return 0;
        }
        let (edge, column) = self.ties_before;
        column.saturating_add(usize::from(row < edge))
    }

    /// Marks the weights of a row that go, given the scores of the whole row.
    pub(crate) fn mark(&self, row: usize, scores: &[T], marks: &mut [u64]) {
        let end = self.ties_end(row).min(scores.len());
        let (before, after) = scores.split_at(end);
        mark_up_to_cut(before, self.threshold, usize::MAX, marks, 0);
        mark_up_to_cut(after, self.threshold, 0, marks, end);
    }

    /// Marks all weights of a layer that go, in a mask of the shape of `scores`.
    ///
    /// # Errors
    ///
    /// What reading `scores` gives, and [`Error::TooLarge`](crate::Error::TooLarge) if there is no
    /// memory for the mask.
    pub(crate) fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        mark_rows(scores, |row, scores, marks| {
            self.mark(row, scores, marks.words_mut());
        })
    }
}

/// Where the `count` lowest scores end, of equal ones those in the lowest column, then in the
/// lowest row.
///
/// Scores are read here and there, to guess where the highest of the lowest is, and as a rule once
/// more: all are compared with a bracket around the guess, and those in it are held.
/// Takes room for the scores in the bracket: of each run of rows that a thread works on one in
/// eight at most, or 65536.
pub(crate) fn cut_lowest<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<LayerCut<T>> {
    if count == 0 {
        return Ok(LayerCut::nothing());
    }
    let found = find(scores, count)?;
    let ties_before = if found.cut.ties == found.equal {
        (0, scores.dim().1)
    } else {
        place_after_ties(scores, &found)?
    };
    Ok(LayerCut {
        threshold: found.cut.threshold,
        ties_before,
    })
}

/// Where the scores end that are no higher than the one of rank `rank`, counted from 0.
pub(crate) fn cut_up_to_rank<T: Real>(scores: &dyn Rows<T>, rank: usize) -> Result<LayerCut<T>> {
    let (rows, columns) = scores.dim();
    if rank >= rows * columns {
        return Ok(LayerCut::nothing());
    }
    let found = find(scores, rank + 1)?;
    Ok(LayerCut {
        threshold: found.cut.threshold,
        ties_before: (0, columns),
    })
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
const SCORES_AT_ONCE: usize = 1024;

/// The highest of the lowest scores.
struct Found<T> {
    cut: Cut<T>,
    /// How many scores are equal to it.
    equal: usize,
    /// The rows that these are in, in order.
    rows: Vec<usize>,
}

/// Finds the highest of the `count` lowest scores. `count` is at least 1 and no more than there
/// are scores.
fn find<T: Real>(scores: &dyn Rows<T>, count: usize) -> Result<Found<T>> {
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
        let least = if few { search.left() } else { 0 };
        let surveyed = survey(scores, low, high, least)?;
        let found = surveyed.found;
        // Among invalid scores the wanted one may be nowhere, even where one value is left.
        if !search.narrow(low, high, &found) && search.range() != (low, high) {
            continue;
        }
        let ties = count.saturating_sub(found.below).max(1);
        if low == high {
            return Ok(Found {
                cut: Cut {
                    threshold: low,
                    ties,
                },
                equal: found.within,
                rows: (0..rows).collect(),
            });
        }
        if found.held.is_some() {
            let (cut, equal) = cut_of_parts(&surveyed.held, ties, (low, high));
            return Ok(Found {
                cut,
                equal,
                rows: surveyed.rows_with(cut.threshold),
            });
        }
    }
}

/// Scores from all over the layer.
fn pick<T: Real>(scores: &dyn Rows<T>) -> Result<Vec<T>> {
    /// Places to look at, how many of them one after the other, and scores that are read of each:
    /// those that come with the first.
    const PLACES: usize = 2048;
    const TASK: usize = 256;
    const RUN: usize = 16;
    let (rows, columns) = scores.dim();
    let run = RUN.min(columns);
    let mut sample = vec![T::zero(); PLACES * run];
    let tasks = sample.chunks_mut(TASK * run).enumerate().collect();
    parallel::try_each(
        tasks,
        || (),
        |(), (task, runs)| {
            for (place, run) in (task * TASK..).zip(runs.chunks_exact_mut(run)) {
                let start = scattered(place, columns - run.len() + 1);
                scores.read(place * rows / PLACES, start, run)?;
            }
            Ok(())
        },
    )?;
    Ok(sample)
}

/// What a pass over a layer found.
struct Surveyed<T> {
    found: Survey,
    /// The scores in the bracket, of one task after the other, if there was room for all.
    held: Vec<Vec<T>>,
    /// For every row, how many of its task are held up to its end.
    ends: Vec<usize>,
    /// How many rows a task has.
    height: usize,
}

/// Compares all scores with `low` and `high`, and holds those from `low` to `high`. They are never
/// too many if there are no more than `least`. Equal ones are not held.
fn survey<T: Real>(scores: &dyn Rows<T>, low: T, high: T, least: usize) -> Result<Surveyed<T>> {
    let (rows, columns) = scores.dim();
    let height = rows_a_task(rows, columns);
    let mut ends = vec![0; rows];
    let tasks = parallel::runs(rows, height)
        .into_iter()
        .zip(ends.chunks_mut(height))
        .collect();
    let scratch = || [Vec::new(), Vec::new()];
    let parts = parallel::map(tasks, scratch, |[buffer, held], (rows, ends)| {
        let buffer = kernels::aligned(buffer, SCORES_AT_ONCE.min(columns));
        if low < high {
            let len = rows.len() * columns;
            // A word more than is held has to fit.
            held.resize((len / HELD).max(least.min(len)) + WORD, T::zero());
        }
        let mut total = Survey::default();
        for (row, end) in rows.zip(ends) {
            for start in (0..columns).step_by(SCORES_AT_ONCE) {
                let run = &mut buffer[..SCORES_AT_ONCE.min(columns - start)];
                scores.read(row, start, run)?;
                let room = &mut held[total.held.unwrap_or(0)..];
                total.add(&survey::survey(run, low, high, room));
            }
            *end = total.held.unwrap_or(0);
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
        held,
        ends,
        height,
    })
}

impl<T: Real> Surveyed<T> {
    /// The rows in which a value is held.
    fn rows_with(&self, value: T) -> Vec<usize> {
        let tasks = self.held.iter().zip(self.ends.chunks(self.height));
        let found = parallel::map(
            tasks.enumerate().collect(),
            || (),
            |(), (i, (held, ends))| {
                let mut rows = Vec::new();
                let mut start = 0;
                for (row, &end) in ends.iter().enumerate() {
                    if held[start..end].contains(&value) {
                        rows.push(i * self.height + row);
                    }
                    start = end;
                }
                rows
            },
        );
        found.concat()
    }
}

/// Finds the highest of the `count` lowest scores of all parts, which lie in a range, and how many
/// are equal to it.
fn cut_of_parts<T: Real>(parts: &[Vec<T>], count: usize, range: (T, T)) -> (Cut<T>, usize) {
    /// One in so many scores is held where they are narrowed down.
    const LEFT: usize = 4;
    let len = parts.iter().map(Vec::len).sum();
    let (mut held, mut count, mut range) = (None, count, range);
    let mut search = Search::between(len, count, range);
    if let Some((low, high)) = search.bracket_by_place() {
        let narrowed = parallel::map(
            parts.iter().collect(),
            || (),
            |(), part| {
                let mut held = vec![T::zero(); part.len() / LEFT + WORD];
                let found = survey::survey(part, low, high, &mut held);
                held.truncate(found.held.unwrap_or(0));
                (found, held)
            },
        );
        let mut total = Survey::default();
        for (found, _) in &narrowed {
            total.add(found);
        }
        if search.narrow(low, high, &total) && total.held.is_some() {
            (count, range) = (count - total.below, (low, high));
            let parts: Vec<_> = narrowed.into_iter().map(|(_, held)| held).collect();
            held = Some(parts.concat());
        }
    }
    let held = held.unwrap_or_else(|| parts.concat());
    let cut = cut_between(&held, count, range);
    let equal = held.iter().filter(|&&score| score == cut.threshold).count();
    (cut, equal)
}

/// The place before which as many scores are equal to the threshold as the cut says, column by
/// column.
fn place_after_ties<T: Real>(scores: &dyn Rows<T>, found: &Found<T>) -> Result<(usize, usize)> {
    // Columns before `edge` lose all of them, `edge` itself the first `left`.
    let mut left = found.cut.ties;
    let mut edge = 0;
    for in_column in count_equal(scores, found)? {
        if left <= in_column {
            break;
        }
        left -= in_column;
        edge += 1;
    }
    let (rows, columns) = scores.dim();
    if edge == columns {
        // Not among scores, but among what is none.
        return Ok((0, columns));
    }
    for &row in &found.rows {
        let mut score = [T::zero()];
        scores.read(row, edge, &mut score)?;
        left -= usize::from(score[0] == found.cut.threshold);
        if left == 0 {
            return Ok((row + 1, edge));
        }
    }
    Ok((rows, edge))
}

/// How many scores of each column are equal to the threshold.
fn count_equal<T: Real>(scores: &dyn Rows<T>, found: &Found<T>) -> Result<Vec<usize>> {
    /// Counts that are added up in the end.
    const PARTS: usize = 16;
    let columns = scores.dim().1;
    let value = found.cut.threshold;
    let rows = found.rows.chunks(found.rows.len().div_ceil(PARTS).max(1));
    let parts = parallel::map(rows.collect(), Vec::new, |buffer, rows| {
        let [mut lower, mut equal] = [[0; SCORES_AT_ONCE / WORD]; 2];
        let mut counts = vec![0; columns];
        for &row in rows {
            for (i, counts) in counts.chunks_mut(SCORES_AT_ONCE).enumerate() {
                let run = kernels::aligned(buffer, counts.len());
                scores.read(row, i * SCORES_AT_ONCE, run)?;
                survey::survey_marking(run, value, value, &mut [], &mut lower, &mut equal);
                for column in set_bits(&equal[..words_for(run.len())]) {
                    counts[column] += 1;
                }
            }
        }
        Ok(counts)
    });
    let mut total = vec![0; columns];
    for part in parts {
        for (total, count) in total.iter_mut().zip(part?) {
            *total += count;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layers, part_of};
    use super::*;

    #[test]
    fn layers_too_large_to_be_held_lose_what_sorting_puts_first() {
        let shapes = [(30_000, 3), (70, 1100)];
        for (kind, scores) in shapes.into_iter().flat_map(layers) {
            let (rows, columns) = scores.dim();
            assert!(scores.len() > ROOM);
            let mut order: Vec<(usize, usize)> = (0..columns)
                .flat_map(|column| (0..rows).map(move |row| (row, column)))
                .collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            for part in [0.0, 1e-5, 0.001, 0.3, 0.5, 0.77, 0.999, 1.0] {
                let count = part_of(scores.len(), part);
                let cut = cut_lowest(&scores, count).expect("finite scores");
                let mask = cut.project(&scores).expect("finite scores");
                assert_eq!(mask.count(), count, "{kind}, {part}");
                for &(row, column) in &order[..count] {
                    assert_eq!(mask.get(row, column), Some(true), "{kind}, {part}");
                }
            }
        }
    }
}
