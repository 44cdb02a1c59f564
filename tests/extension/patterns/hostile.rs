//! `mask` and `prune` agree for every pattern a user can write, however odd, and no such pattern is
//! a reason to panic.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use wanda::ndarray::{Array2, s};
use wanda::{
    ActivationStats, ComparisonGroup, Error, ImportanceMetric, Magnitude, Mask, NoStats, Pruner,
    Real, Result, Rows, SparsityPattern, WeightUpdate, validate,
};

use crate::common::element::TestElement;
use crate::common::layer::{Case, Layout, Random, Values, bits_of};
use crate::common::metric::{Factored, Placed};
use crate::common::oracle::to_mask;
use crate::common::refusal::refuses;
use crate::weights;

/// Prunes so many of every group.
#[derive(Debug, Clone, Copy)]
struct Counted {
    comparison: ComparisonGroup,
    count: Count,
}

/// How many of how many go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    None,
    All,
    TooMany,
    Third,
    AllButTwo,
    /// Neither grows nor shrinks with the size.
    UpAndDown,
    Max,
}

impl Count {
    const EVERY: [Self; 7] = [
        Self::None,
        Self::All,
        Self::TooMany,
        Self::Third,
        Self::AllButTwo,
        Self::UpAndDown,
        Self::Max,
    ];

    /// Those that add up: never less of more, and never more than is added.
    const GROWING: [Self; 4] = [Self::None, Self::All, Self::Third, Self::AllButTwo];

    fn of(self, size: usize) -> usize {
        match self {
            Self::None => 0,
            Self::All => size,
            Self::TooMany => size.saturating_add(3),
            Self::Third => size / 3,
            Self::AllButTwo => size.saturating_sub(2),
            Self::UpAndDown => size.wrapping_mul(7) % 5,
            Self::Max => usize::MAX,
        }
    }
}

impl<T: Real> SparsityPattern<T> for Counted {
    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(self.comparison)
    }

    fn count(&self, size: usize) -> usize {
        self.count.of(size)
    }
}

const BLOCKS_OF_NOTHING: ComparisonGroup = ComparisonGroup::Blocks {
    rows: 0,
    columns: 0,
};

const COMPARISONS: [ComparisonGroup; 11] = [
    ComparisonGroup::Row,
    ComparisonGroup::Run(0),
    ComparisonGroup::Run(3),
    ComparisonGroup::Run(8),
    ComparisonGroup::Run(usize::MAX),
    ComparisonGroup::Column,
    ComparisonGroup::Layer,
    BLOCKS_OF_NOTHING,
    ComparisonGroup::Blocks {
        rows: 3,
        columns: 5,
    },
    ComparisonGroup::Blocks {
        rows: usize::MAX,
        columns: 1,
    },
    ComparisonGroup::Blocks {
        rows: 1,
        columns: usize::MAX,
    },
];

fn every_counted() -> impl Iterator<Item = Counted> {
    COMPARISONS.into_iter().flat_map(|comparison| {
        Count::EVERY
            .into_iter()
            .map(move |count| Counted { comparison, count })
    })
}

/// Rows and columns that are compared as one, together with their group: the sides of what is
/// compared, and those of a group.
type Sides = (usize, usize);

/// What goes, found by sorting.
fn lowest(pattern: Counted, scores: &Array2<f64>) -> Array2<bool> {
    let (rows, columns) = scores.dim();
    let one = (1, 1);
    let (unit, group): (Sides, Sides) = match pattern.comparison {
        ComparisonGroup::Row => (one, (1, columns)),
        ComparisonGroup::Run(of) => (one, (1, of.max(1))),
        ComparisonGroup::Column => (one, (rows, 1)),
        ComparisonGroup::Blocks {
            rows: m,
            columns: n,
        } => ((m.max(1), n.max(1)), (rows, columns)),
        _ => (one, (rows, columns)),
    };
    let parts = |len: usize, part: usize| -> Vec<Range<usize>> {
        let starts = (0..len).step_by(part.clamp(1, len.max(1)));
        starts
            .map(|start| start..len.min(start.saturating_add(part)))
            .collect()
    };
    let mut marks = Array2::from_elem((rows, columns), false);
    for of_rows in parts(rows, group.0) {
        for of_columns in parts(columns, group.1) {
            let mut units = Vec::new();
            // Of equal ones the lower column goes first, then the lower row.
            for j in parts(of_columns.len(), unit.1) {
                for i in parts(of_rows.len(), unit.0) {
                    let i = of_rows.start + i.start..of_rows.start + i.end;
                    let j = of_columns.start + j.start..of_columns.start + j.end;
                    let sum: f64 = scores.slice(s![i.clone(), j.clone()]).iter().sum();
                    units.push((sum, i, j));
                }
            }
            let count = pattern.count.of(units.len());
            units.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (_, i, j) in units.into_iter().take(count) {
                marks.slice_mut(s![i, j]).fill(true);
            }
        }
    }
    marks
}

/// What `mask` decides, which is what `prune` does, or both refuse for the same reason.
fn agreed<A: TestElement, M, P, U>(
    pruner: &Pruner<M, P, U>,
    w: &Array2<A>,
    stats: &dyn ActivationStats,
) -> Result<Mask>
where
    M: ImportanceMetric<A::Compute>,
    P: SparsityPattern<A::Compute>,
    U: WeightUpdate<A::Compute>,
{
    let decided = pruner.mask(w, stats);
    let mut pruned = w.clone();
    match (&decided, pruner.prune(&mut pruned, stats)) {
        (Ok(mask), Ok(report)) => {
            assert_eq!(report.pruned(), mask.count());
            for (row, column) in mask.iter() {
                assert_eq!(pruned[[row, column]].bits(), 0);
            }
        }
        (Err(from_mask), Err(from_prune)) => {
            assert_eq!(from_mask.to_string(), from_prune.to_string());
            assert_eq!(bits_of(&pruned), bits_of(w), "{from_prune}");
        }
        (decided, pruned) => panic!("{decided:?} is decided, and {pruned:?} done"),
    }
    decided
}

/// Checks mask, pruned weights and oracle against each other. Kept weights keep their bits.
fn all_agree<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Counted,
    w: &Array2<A>,
    protected: Option<&Array2<bool>>,
) {
    let scores = Array2::from_shape_fn(w.dim(), |(row, column)| {
        let weight = w[[row, column]];
        if protected.is_some_and(|protected| protected[[row, column]]) {
            f64::INFINITY
        } else if weight.exact() == 0.0 {
            0.0
        } else {
            weight.magnitude_times(M::factor(row, column, 0.0))
        }
    });
    let mut pruner = Pruner::new(metric, pattern);
    if let Some(protected) = protected {
        pruner = pruner.protect(to_mask(protected));
    }
    let marks = lowest(pattern, &scores);
    let case = format!("{pattern:?}, {:?}", w.dim());
    let too_many = marks
        .indexed_iter()
        .any(|(place, &mark)| mark && protected.is_some_and(|protected| protected[place]));
    match agreed(&pruner, w, &NoStats) {
        Ok(mask) => {
            assert_eq!(mask, to_mask(&marks), "{case}");
            let mut masked = w.clone();
            mask.apply(&mut masked).expect("the same shape");
            let mut pruned = w.clone();
            let report = pruner.prune(&mut pruned, &NoStats).expect("as before");
            assert_eq!(report.pruned(), mask.count());
            assert_eq!(bits_of(&pruned), bits_of(&masked), "{case}");
        }
        Err(Error::TooManyProtected { .. }) => assert!(too_many, "{case}"),
        Err(error) => panic!("{error}, by {case}"),
    }
}

fn layers<A: TestElement>() -> impl Iterator<Item = (Array2<A>, Array2<bool>)> {
    let shapes = [(1, 1), (1, 7), (5, 1), (3, 65), (9, 203), (70, 33)];
    let kinds = [Values::Spread, Values::Ties];
    shapes.into_iter().flat_map(move |(rows, columns)| {
        kinds.into_iter().map(move |values| {
            let case = Case {
                rows,
                columns,
                values,
                tokens: 1,
                layout: Layout::RowMajor,
                seed: (rows * columns) as u64,
            };
            (case.weights(), case.protected(11))
        })
    })
}

fn mask_prune_and_sorting_agree<A: TestElement>() {
    for (w, protected) in layers::<A>() {
        for pattern in every_counted() {
            for protected in [None, Some(&protected)] {
                // Valid scores are promised by one and not by the other.
                all_agree(Magnitude, pattern, &w, protected);
                all_agree(Placed, pattern, &w, protected);
            }
        }
    }
}

#[test]
fn mask_prune_and_sorting_agree_on_any_groups_and_counts() {
    mask_prune_and_sorting_agree::<f32>();
    mask_prune_and_sorting_agree::<f64>();
}

/// Its code contradicts its comparison, and fails.
#[derive(Debug, Clone, Copy)]
struct Contradicting {
    counted: Counted,
    code: fn((usize, usize)) -> Result<Mask>,
}

/// What a pattern makes of a layer of a shape.
type Deciding = fn((usize, usize)) -> Result<Mask>;

/// Code that marks all weights, gives a mask of another shape, and fails.
const CODES: [Deciding; 3] = [
    |(rows, columns)| Mask::from_fn(rows, columns, |_, _| true),
    |_| Mask::none(1, 0),
    |_| Err(contradiction()),
];

fn contradiction() -> Error {
    Error::Custom {
        origin: "contradicting".to_owned(),
        reason: "the code was asked".to_owned(),
    }
}

impl<T: Real> SparsityPattern<T> for Contradicting {
    fn comparison(&self) -> Option<ComparisonGroup> {
        SparsityPattern::<T>::comparison(&self.counted)
    }

    fn count(&self, size: usize) -> usize {
        SparsityPattern::<T>::count(&self.counted, size)
    }

    fn project(&self, scores: &dyn Rows<T>, _: Range<usize>) -> Result<Mask> {
        (self.code)(scores.dim())
    }
}

#[test]
fn a_comparison_goes_before_code_that_contradicts_it() {
    let (w, _) = layers::<f32>().nth(6).expect("a layer of 3 x 65");
    for counted in every_counted() {
        for code in CODES {
            let pattern = Contradicting { counted, code };
            let expected = agreed(&Pruner::new(Magnitude, counted), &w, &NoStats);
            assert_eq!(
                agreed(&Pruner::new(Magnitude, pattern), &w, &NoStats),
                expected,
                "{counted:?}"
            );
            let expected = agreed(&Pruner::new(Placed, counted), &w, &NoStats);
            let found = agreed(&Pruner::new(Placed, pattern), &w, &NoStats);
            assert_eq!(found, expected, "{counted:?}");
            let zeros = w.mapv(|w| if w.abs() < 0.1 { 0.0 } else { w });
            // The name is another one.
            let place = |error| match error {
                Error::PatternViolated { row, column, .. } => (row, column),
                error => panic!("{error}"),
            };
            assert_eq!(
                validate(&zeros, &pattern).map_err(place),
                validate(&zeros, &counted).map_err(place),
                "{counted:?}"
            );
        }
    }
}

/// Says neither what it compares nor how it projects.
#[derive(Debug, Clone, Copy)]
struct Silent;

impl<T: Real> SparsityPattern<T> for Silent {
    fn count(&self, _: usize) -> usize {
        unreachable!("there is nothing to count")
    }
}

/// Code without a comparison.
#[derive(Debug, Clone, Copy)]
struct Code(fn((usize, usize)) -> Result<Mask>);

impl<T: Real> SparsityPattern<T> for Code {
    fn project(&self, scores: &dyn Rows<T>, _: Range<usize>) -> Result<Mask> {
        (self.0)(scores.dim())
    }

    fn count(&self, _: usize) -> usize {
        unreachable!("there is nothing to count")
    }
}

/// What is wrong with patterns that give no mask, or one of another shape, for a layer of 2 x 4.
fn unusable() -> Vec<(Box<dyn SparsityPattern>, Error)> {
    let silent = Error::Custom {
        origin: "Silent".to_owned(),
        reason: "the pattern says neither what it compares nor how it projects".to_owned(),
    };
    let shape = |found| Error::MaskShape {
        expected: (2, 4),
        found,
    };
    vec![
        (Box::new(Silent), silent),
        (Box::new(Code(CODES[1])), shape((1, 0))),
        (Box::new(Code(CODES[2])), contradiction()),
        (Box::new(Code(|(m, n)| Mask::none(n, m))), shape((4, 2))),
        (Box::new(Code(|(m, n)| Mask::none(m, n + 1))), shape((2, 5))),
        (Box::new(Code(|(m, n)| Mask::none(m + 1, n))), shape((3, 4))),
    ]
}

#[test]
fn patterns_without_a_usable_mask_leave_the_weights_alone() {
    for (pattern, expected) in unusable() {
        let by_promise = refuses(&Pruner::new(Magnitude, &pattern), &weights(), &NoStats);
        let by_check = refuses(&Pruner::new(Placed, &pattern), &weights(), &NoStats);
        assert_eq!([by_promise, by_check], [expected.clone(), expected.clone()]);
        assert_eq!(validate(&weights(), &pattern), Err(expected));
    }
}

/// Another pattern whenever it is asked.
#[derive(Debug)]
struct Fickle {
    asked: AtomicUsize,
    step: usize,
}

impl Fickle {
    fn new(start: usize, step: usize) -> Self {
        let asked = AtomicUsize::new(start);
        Self { asked, step }
    }

    fn ask(&self) -> usize {
        self.asked.fetch_add(self.step, Ordering::Relaxed)
    }
}

impl<T: Real> SparsityPattern<T> for Fickle {
    fn comparison(&self) -> Option<ComparisonGroup> {
        // One past the last is none.
        COMPARISONS
            .get(self.ask() % (COMPARISONS.len() + 1))
            .copied()
    }

    fn count(&self, size: usize) -> usize {
        Count::EVERY[self.ask() % Count::EVERY.len()].of(size)
    }

    fn project(&self, scores: &dyn Rows<T>, _: Range<usize>) -> Result<Mask> {
        CODES[self.ask() % CODES.len()](scores.dim())
    }
}

/// Prunes with patterns that change their minds. Fails if an error leaves a trace.
fn change_their_minds<U: WeightUpdate>(update: &U, stats: &dyn ActivationStats, w: &Array2<f32>) {
    for (start, step) in (0..84).flat_map(|start| [1, 2, 3, 5].map(|step| (start, step))) {
        let metrics: [&dyn ImportanceMetric; 2] = [&Magnitude, &Placed];
        for metric in metrics {
            let pruner = |pattern| Pruner::new(metric, pattern).update(update);
            let mut pruned = w.clone();
            match pruner(Fickle::new(start, step)).prune(&mut pruned, stats) {
                Ok(report) => assert!(report.pruned() <= w.len()),
                Err(_) => assert_eq!(pruned, *w),
            }
            if let Ok(mask) = pruner(Fickle::new(start, step)).mask(w, stats) {
                assert_eq!(mask.dim(), w.dim());
            }
        }
    }
}

#[test]
fn patterns_that_change_their_minds_are_no_reason_to_panic() {
    for (w, _) in layers::<f32>().take(8) {
        change_their_minds(&wanda::KeepWeights, &NoStats, &w);
    }
}

#[test]
fn the_shares_of_blocks_add_up_to_the_layer() {
    const COLUMNS: usize = 75;
    let mut random = Random::new(5);
    for rows in [1, 4, 33] {
        let scores = Array2::from_shape_simple_fn((rows, COLUMNS), || random.unit());
        for comparison in COMPARISONS {
            let width = comparison.width();
            for count in Count::GROWING {
                let pattern = Counted { comparison, count };
                let share = |columns: Range<usize>| {
                    let scores = scores.slice(s![.., columns.clone()]);
                    let mask = pattern.project(&scores, columns).expect("a mask");
                    (0..rows).map(|row| mask.count_row(row)).collect::<Vec<_>>()
                };
                let total = |counts: &[Option<usize>]| -> usize { counts.iter().flatten().sum() };
                let whole = share(0..COLUMNS);
                // A block of runs or of blocks ends with one.
                for block in [1, 2, 7, 64, COLUMNS]
                    .map(|block: usize| block.div_ceil(width).saturating_mul(width).min(COLUMNS))
                {
                    let parts = (0..COLUMNS).step_by(block);
                    let parts: Vec<_> = parts
                        .map(|start| share(start..COLUMNS.min(start + block)))
                        .collect();
                    let case = format!("{pattern:?} in blocks of {block}");
                    let sum: usize = parts.iter().map(|part| total(part)).sum();
                    if matches!(comparison, ComparisonGroup::Blocks { .. }) {
                        // Those at the far edges are smaller, so that blocks are counted and
                        // weights need not be the same.
                        continue;
                    }
                    assert_eq!(sum, total(&whole), "{case}");
                    if matches!(comparison, ComparisonGroup::Row | ComparisonGroup::Run(_)) {
                        for row in 0..rows {
                            let in_row: usize = parts.iter().filter_map(|part| part[row]).sum();
                            assert_eq!(Some(in_row), whole[row], "{case}");
                        }
                    }
                }
            }
        }
    }
}

/// As before, of layers that are whole blocks, whose weights can be counted.
#[test]
fn the_shares_of_columns_add_up_to_the_blocks_of_a_layer() {
    let mut random = Random::new(5);
    for (rows, columns) in [(1, 1), (3, 5), (2, 7)] {
        let comparison = ComparisonGroup::Blocks { rows, columns };
        let dim = (6 * rows, 9 * columns);
        let scores = Array2::from_shape_simple_fn(dim, || random.unit());
        for count in Count::GROWING {
            let pattern = Counted { comparison, count };
            for together in [1, 2, 4, 9] {
                let parts = (0..dim.1).step_by(together * columns).map(|start| {
                    let part = start..dim.1.min(start + together * columns);
                    let scores = scores.slice(s![.., part.clone()]);
                    pattern.project(&scores, part).expect("a mask").count()
                });
                let expected = count.of(54) * rows * columns;
                assert_eq!(parts.sum::<usize>(), expected, "{pattern:?}, {together}");
            }
        }
    }
}

#[cfg(feature = "second-order")]
mod swept {
    use wanda::{Gram, Obs, ObsSweep};

    use super::*;
    use crate::common::layer::{correlated_inputs, gram_of, normal_weights};

    fn stats(columns: usize) -> Gram {
        gram_of(&correlated_inputs::<f32>((60, columns), 1))
    }

    fn sweeping<P>(pattern: P, block: usize) -> Pruner<Obs, P, ObsSweep> {
        Pruner::new(Obs::new(), pattern).update(ObsSweep::new().block_size(block))
    }

    /// How many go of groups that blocks of columns do not cut, or of which the shares add up.
    fn sweeps_agree<A: TestElement>()
    where
        Obs: ImportanceMetric<A::Compute>,
        ObsSweep: WeightUpdate<A::Compute>,
    {
        for dim in [(1, 1), (7, 13), (5, 70)] {
            let w = normal_weights::<A>(dim, 1);
            let stats = stats(dim.1);
            for counted in every_counted() {
                for block in [1, 4, 128] {
                    let expected = agreed(&sweeping(counted, block), &w, &stats);
                    let mask = expected.clone().expect("a fine layer");
                    assert_eq!(mask.dim(), dim);
                    for code in CODES {
                        let pattern = Contradicting { counted, code };
                        let found = agreed(&sweeping(pattern, block), &w, &stats);
                        assert_eq!(found, expected, "{counted:?}");
                    }
                    let whole = Pruner::new(Magnitude, counted).mask(&w, &stats);
                    let is_exact = Count::GROWING.contains(&counted.count)
                        && !matches!(counted.comparison, ComparisonGroup::Blocks { .. });
                    if is_exact {
                        let expected = whole.map(|mask| mask.count());
                        assert_eq!(Ok(mask.count()), expected, "{counted:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_sweep_asks_for_comparison_and_count_alone() {
        sweeps_agree::<f32>();
        sweeps_agree::<f64>();
    }

    #[test]
    fn a_sweep_by_patterns_without_a_usable_mask_leaves_the_weights_alone() {
        for (pattern, expected) in unusable() {
            let pruner = Pruner::new(Magnitude, &pattern).update(ObsSweep::new());
            assert_eq!(refuses(&pruner, &weights(), &stats(4)), expected);
        }
    }

    #[test]
    fn a_sweep_by_patterns_that_change_their_minds_is_no_reason_to_panic() {
        for block in [1, 4, 128] {
            let update = ObsSweep::new().block_size(block);
            change_their_minds(&update, &stats(13), &normal_weights((7, 13), 1));
        }
    }
}
