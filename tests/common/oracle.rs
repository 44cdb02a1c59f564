//! What the laws say should come out, computed by sorting everything.

use wanda::ndarray::{Array2, ArrayRef2};
use wanda::{Mask, Pattern};

use super::element::TestElement;
use super::metric::Factored;

/// Why nothing may be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoCalibration,
    InvalidScore,
    TooManyProtected,
}

/// One candidate for pruning: a weight or a block. Sorts by protection, score, column, row.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    protected: bool,
    score: f64,
    column: usize,
    row: usize,
}

/// Σₜ xₜⱼ² for every column, token after token.
pub(crate) fn sums_of_squares<A: TestElement>(inputs: &ArrayRef2<A>) -> Vec<f64> {
    let mut sums = vec![0.0; inputs.ncols()];
    for token in inputs.rows() {
        for (sum, x) in sums.iter_mut().zip(token) {
            *sum += x.exact() * x.exact();
        }
    }
    sums
}

/// The score of every weight.
pub(crate) fn scores<A: TestElement, M: Factored<A::Compute>>(
    _: M,
    weights: &Array2<A>,
    sums: &[f64],
) -> Result<Array2<f64>, Refusal> {
    // Of a layer without weights nothing is to be decided, so no inputs are needed.
    if M::NEEDS_INPUTS && !weights.is_empty() && sums.iter().all(|&sum| sum == 0.0) {
        return Err(Refusal::NoCalibration);
    }
    let scores = Array2::from_shape_fn(weights.dim(), |(row, column)| {
        let weight = weights[[row, column]];
        if weight.exact() == 0.0 {
            0.0
        } else {
            weight.magnitude_times(M::factor(row, column, sums[column]))
        }
    });
    if scores.iter().all(|score| score.is_finite()) {
        Ok(scores)
    } else {
        Err(Refusal::InvalidScore)
    }
}

/// The weights that a pattern prunes, given all scores and the weights that must stay.
pub(crate) fn pruned(
    pattern: Pattern,
    scores: &Array2<f64>,
    protected: &Array2<bool>,
) -> Result<Array2<bool>, Refusal> {
    pruned_of_block(pattern, scores, protected, 0)
}

/// The weights that a pattern prunes of a block of columns, of which `start` columns have been
/// decided before. Counts are such that those of all blocks add up to that of the layer.
pub(crate) fn pruned_of_block(
    pattern: Pattern,
    scores: &Array2<f64>,
    protected: &Array2<bool>,
    start: usize,
) -> Result<Array2<bool>, Refusal> {
    let (rows, columns) = scores.dim();
    let share = |count_at: &dyn Fn(usize) -> usize, sparsity: f64| {
        quota(count_at(start + columns), sparsity) - quota(count_at(start), sparsity)
    };
    let mut marks = Array2::from_elem((rows, columns), false);
    let weight = |row: usize, column: usize| Candidate {
        protected: protected[[row, column]],
        score: scores[[row, column]],
        column,
        row,
    };
    let all = || -> Vec<Candidate> {
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| weight(row, column))
            .collect()
    };
    let mut mark = |group: Vec<Candidate>, count: usize| -> Result<(), Refusal> {
        for Candidate { row, column, .. } in lowest(group, count)? {
            marks[[row, column]] = true;
        }
        Ok(())
    };
    match pattern {
        Pattern::PerOutput(sparsity) => {
            for row in 0..rows {
                let group = (0..columns).map(|column| weight(row, column)).collect();
                mark(group, share(&|column| column, sparsity))?;
            }
        }
        Pattern::PerInput(sparsity) => {
            for column in 0..columns {
                let group = (0..rows).map(|row| weight(row, column)).collect();
                mark(group, quota(rows, sparsity))?;
            }
        }
        Pattern::PerLayer(sparsity) => mark(all(), share(&|column| rows * column, sparsity))?,
        Pattern::NOfM { keep, of } => {
            for row in 0..rows {
                let all: Vec<_> = (0..columns).map(|column| weight(row, column)).collect();
                for run in all.chunks(of) {
                    mark(run.to_vec(), run.len().saturating_sub(keep))?;
                }
            }
        }
        Pattern::Block {
            rows: height,
            cols: width,
            sparsity,
        } => {
            let blocks = |column: usize| rows.div_ceil(height) * column.div_ceil(width);
            let count = share(&blocks, sparsity);
            marks = pruned_blocks(scores, protected, (height, width), count)?;
        }
        Pattern::Cumulative(sparsity) => marks = pruned_shares(scores, protected, sparsity),
        Pattern::Threshold(sparsity) => {
            let count = count_up_to_rank(all(), quota(rows * columns, sparsity))?;
            mark(all(), count)?;
        }
        _ => panic!("no oracle for {pattern:?}"),
    }
    Ok(marks)
}

/// The weights that a metric and a pattern prune.
pub(crate) fn mask<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    weights: &Array2<A>,
    sums: &[f64],
) -> Result<Mask, Refusal> {
    let scores = scores(metric, weights, sums)?;
    let none = Array2::from_elem(weights.dim(), false);
    pruned(pattern, &scores, &none).map(|marks| to_mask(&marks))
}

pub(crate) fn to_mask(marks: &Array2<bool>) -> Mask {
    let (rows, columns) = marks.dim();
    Mask::from_fn(rows, columns, |row, column| marks[[row, column]]).expect("a small mask")
}

/// The squared output that was lost, relative to all of it; `None` if there was no output.
///
/// Weights and norms are taken relative to the largest of them, so that no square overflows and
/// none that matters underflows.
pub(crate) fn relative_error<A: TestElement>(
    dense: &Array2<A>,
    pruned: &ArrayRef2<A>,
    sums: &[f64],
) -> Option<f64> {
    let largest_weight = dense.iter().map(|w| w.exact().abs()).fold(0.0, f64::max);
    let largest_sum = sums.iter().copied().fold(0.0, f64::max);
    let energy = |weight: f64, column: usize| {
        (weight / largest_weight).powi(2) * (sums[column] / largest_sum)
    };
    let (mut lost, mut all) = (0.0, 0.0);
    for ((row, column), &before) in dense.indexed_iter() {
        let after = pruned[[row, column]];
        all += energy(before.exact(), column);
        if before.bits() != after.bits() {
            lost += energy(before.exact() - after.exact(), column);
        }
    }
    // Where nothing was, 0 / 0 has made it not a number.
    (all > 0.0).then(|| lost / all)
}

/// `floor(count * sparsity)`, in `f64`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the count"
)]
pub(crate) fn quota(count: usize, sparsity: f64) -> usize {
    (count as f64 * sparsity).floor() as usize
}

/// Sorts a group in the order of the law.
fn sort(group: &mut [Candidate]) {
    group.sort_by(|a, b| {
        a.protected
            .cmp(&b.protected)
            .then(a.score.total_cmp(&b.score))
            .then(a.column.cmp(&b.column))
            .then(a.row.cmp(&b.row))
    });
}

/// The first `count` of a group in the order of the law.
fn lowest(mut group: Vec<Candidate>, count: usize) -> Result<Vec<Candidate>, Refusal> {
    sort(&mut group);
    group.truncate(count);
    if group.iter().any(|candidate| candidate.protected) {
        return Err(Refusal::TooManyProtected);
    }
    Ok(group)
}

/// How many of a group score no higher than the one of this rank, counted from 0.
fn count_up_to_rank(mut group: Vec<Candidate>, rank: usize) -> Result<usize, Refusal> {
    sort(&mut group);
    match group.get(rank) {
        None => Ok(0),
        Some(last) if last.protected => Err(Refusal::TooManyProtected),
        Some(last) => Ok(group
            .iter()
            .filter(|other| !other.protected && other.score <= last.score)
            .count()),
    }
}

fn pruned_blocks(
    scores: &Array2<f64>,
    protected: &Array2<bool>,
    (height, width): (usize, usize),
    count: usize,
) -> Result<Array2<bool>, Refusal> {
    let (rows, columns) = scores.dim();
    let (down, across) = (rows.div_ceil(height), columns.div_ceil(width));
    let mut blocks = Vec::new();
    for row in 0..down {
        for column in 0..across {
            blocks.push(Candidate {
                protected: false,
                score: 0.0,
                column,
                row,
            });
        }
    }
    for ((row, column), score) in scores.indexed_iter() {
        let block = &mut blocks[row / height * across + column / width];
        block.score += score;
        block.protected |= protected[[row, column]];
    }
    let mut gone = Array2::from_elem((down, across), false);
    for Candidate { row, column, .. } in lowest(blocks, count)? {
        gone[[row, column]] = true;
    }
    Ok(Array2::from_shape_fn((rows, columns), |(row, column)| {
        gone[[row / height, column / width]]
    }))
}

/// The appendix variant: α halves its range from 0.4 within 0 to 0.8 until the sparsity of the
/// layer is within 0.001 of the wanted one, or the range is under 0.001.
fn pruned_shares(scores: &Array2<f64>, protected: &Array2<bool>, sparsity: f64) -> Array2<bool> {
    let (mut low, mut alpha, mut high) = (0.0, 0.4, 0.8);
    loop {
        let marks = cut_at(scores, protected, alpha);
        let reached = if marks.is_empty() {
            0.0
        } else {
            marks.iter().filter(|&&mark| mark).count() as f64 / marks.len() as f64
        };
        if (reached - sparsity).abs() <= 0.001 || high - low < 0.001 {
            return marks;
        }
        if reached > sparsity {
            high = alpha;
            alpha = f64::midpoint(alpha, low);
        } else {
            low = alpha;
            alpha = f64::midpoint(alpha, high);
        }
    }
}

/// In each row, everything at or below the last score at which the cumulative sum is still within
/// α of the row's sum.
fn cut_at(scores: &Array2<f64>, protected: &Array2<bool>, alpha: f64) -> Array2<bool> {
    let mut marks = Array2::from_elem(scores.dim(), false);
    for (row, scores) in scores.rows().into_iter().enumerate() {
        let mut sorted: Vec<f64> = scores
            .iter()
            .zip(protected.row(row))
            .filter(|&(_, &protected)| !protected)
            .map(|(&score, _)| score)
            .collect();
        sorted.sort_by(f64::total_cmp);
        let mut total: f64 = sorted.iter().sum();
        // Where only the sum overflows, shares of a smaller unit are the same.
        let unit = if total.is_finite() {
            1.0
        } else {
            2_f64.powi(-64)
        };
        if unit < 1.0 {
            total = sorted.iter().map(|score| score * unit).sum();
        }
        let mut sum = 0.0;
        let mut threshold = None;
        for score in sorted {
            sum += score * unit;
            if sum <= alpha * total {
                threshold = Some(score);
            }
        }
        for (column, &score) in scores.iter().enumerate() {
            let falls = threshold.is_some_and(|threshold| score <= threshold);
            marks[[row, column]] = falls && !protected[[row, column]];
        }
    }
    marks
}
