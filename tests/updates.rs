//! Laws of pruning with an update: what goes, what stays, and that nothing else matters.
#![cfg(feature = "second-order")]

mod common;

use proptest::prelude::*;
use proptest::sample::select;
use wanda::half::{bf16, f16};
use wanda::ndarray::Array2;
use wanda::{
    Error, ImportanceMetric, LayerReport, Magnitude, Mask, Obs, ObsSweep, Pattern, Pruner,
    SparsityPattern, Wanda, WeightUpdate, sparsegpt_layer, validate,
};

use common::element::TestElement;
use common::few_cases;
use common::job::{self, Job, NEVER};
use common::layer::{self, bits_of, gram_of};
use common::oracle::{self, quota};

type Outcome = Result<(), TestCaseError>;

/// What the published method makes of a layer, in blocks of so many columns.
fn sweep<A: TestElement, P: SparsityPattern<A::Compute>>(
    pattern: P,
    block_size: usize,
    job: &Job,
) -> Result<(Array2<A>, Mask, LayerReport), TestCaseError>
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let stats = gram_of(&job.inputs::<A>());
    let pruner = Pruner::new(Obs::new(), pattern).update(ObsSweep::new().block_size(block_size));
    let mut weights = job.weights::<A>();
    let done = pruner
        .mask(&weights, &stats)
        .and_then(|mask| Ok((mask, pruner.prune(&mut weights, &stats)?)));
    let (mask, report) = done.map_err(|error| TestCaseError::fail(error.to_string()))?;
    Ok((weights, mask, report))
}

/// How many marks each row and column of a mask has.
fn marks_of(mask: &Mask) -> (Vec<usize>, Vec<usize>) {
    let (rows, columns) = mask.dim();
    let mut counts = (vec![0; rows], vec![0; columns]);
    for (row, column) in mask.iter() {
        counts.0[row] += 1;
        counts.1[column] += 1;
    }
    counts
}

/// Whatever the blocks, counts are those of the whole layer.
fn counts_are_exact<A: TestElement>(pattern: Pattern, block_size: usize, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let (weights, mask, report) = sweep::<A, _>(pattern, block_size, job)?;
    let (rows, columns) = mask.dim();
    let (in_rows, in_columns) = marks_of(&mask);
    match pattern {
        Pattern::PerOutput(sparsity) => {
            prop_assert_eq!(in_rows, vec![quota(columns, sparsity); rows]);
        }
        Pattern::PerInput(sparsity) => {
            prop_assert_eq!(in_columns, vec![quota(rows, sparsity); columns]);
        }
        Pattern::PerLayer(sparsity) => {
            prop_assert_eq!(mask.count(), quota(rows * columns, sparsity));
        }
        Pattern::Threshold(sparsity) => {
            let blocks = (0..columns).step_by(block_size);
            let widths = blocks.map(|start| (columns - start).min(block_size));
            let least: usize = widths.map(|width| quota(rows * width, sparsity) + 1).sum();
            prop_assert!(mask.count() >= least, "{} of {}", mask.count(), least);
        }
        Pattern::NOfM { keep, of } => {
            let groups = (0..columns).step_by(of);
            let lengths = groups.map(|start| (columns - start).min(of));
            let expected: usize = lengths.map(|len| len.saturating_sub(keep)).sum();
            prop_assert_eq!(in_rows, vec![expected; rows]);
        }
        Pattern::Block {
            rows: height,
            cols: width,
            sparsity,
        } => {
            let (down, across) = (rows.div_ceil(height), columns.div_ceil(width));
            let mut whole = Vec::new();
            for place in (0..down).flat_map(|i| (0..across).map(move |j| (i, j))) {
                let inside =
                    |&(row, column): &(usize, usize)| (row / height, column / width) == place;
                let all =
                    (rows - place.0 * height).min(height) * (columns - place.1 * width).min(width);
                match mask.iter().filter(inside).count() {
                    0 => {}
                    marked => {
                        prop_assert_eq!(marked, all, "block {:?}", place);
                        whole.push(place);
                    }
                }
            }
            prop_assert_eq!(whole.len(), quota(down * across, sparsity));
        }
        _ => {}
    }
    for ((row, column), weight) in weights.indexed_iter() {
        if mask.get(row, column) == Some(true) {
            prop_assert_eq!(weight.bits(), 0, "row {}, column {}", row, column);
        }
    }
    prop_assert_eq!(report.pruned(), mask.count());
    prop_assert_eq!(
        report.zeros(),
        weights.iter().filter(|w| w.exact() == 0.0).count()
    );
    if !matches!(pattern, Pattern::Cumulative(_)) {
        prop_assert_eq!(validate(&weights, &pattern), Ok(()));
    }
    Ok(())
}

/// Protected weights stay, or too many are protected.
fn protected_weights_stay<A: TestElement>(pattern: Pattern, block_size: usize, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let protected = oracle::to_mask(&job.protected());
    let stats = gram_of(&job.inputs::<A>());
    let pruner = Pruner::new(Obs::new(), pattern)
        .update(ObsSweep::new().block_size(block_size))
        .protect(protected.clone());
    let dense = job.weights::<A>();
    let mut weights = dense.clone();
    let mask = pruner.mask(&weights, &stats);
    let report = pruner.prune(&mut weights, &stats);
    let mask = match (mask, report) {
        (Ok(mask), Ok(_)) => mask,
        (Err(from_mask), Err(from_prune)) => {
            prop_assert_eq!(&from_mask, &from_prune);
            let expected = matches!(from_prune, Error::TooManyProtected { .. });
            prop_assert!(expected, "{}", from_prune);
            prop_assert_eq!(bits_of(&weights), bits_of(&dense));
            return Ok(());
        }
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    };
    for (row, column) in protected.iter() {
        prop_assert_eq!(mask.get(row, column), Some(false));
        let place = [row, column];
        let was_zero = dense[place].exact() == 0.0;
        prop_assert_eq!(weights[place].exact() == 0.0, was_zero, "{:?}", place);
    }
    Ok(())
}

/// Zeros of the dense weights are zeros after the sweep.
fn zeros_stay_zero<A: TestElement>(pattern: Pattern, block_size: usize, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let (weights, _, _) = sweep::<A, _>(pattern, block_size, job)?;
    for (place, weight) in job.weights::<A>().indexed_iter() {
        prop_assert!(
            weight.exact() != 0.0 || weights[place].exact() == 0.0,
            "{:?}",
            place
        );
    }
    Ok(())
}

/// A mask as pattern is the mask of the result, whatever the metric.
fn a_given_mask_prunes_what_it_marks<A: TestElement>(block_size: usize, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    Wanda: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let given = job.given();
    let (weights, mask, report) = sweep::<A, _>(given.clone(), block_size, job)?;
    prop_assert_eq!(&mask, &given);
    prop_assert_eq!(report.pruned(), given.count());
    prop_assert_eq!(validate(&weights, &given), Ok(()));

    let mut by_wanda = job.weights::<A>();
    let report = Pruner::new(Wanda, given)
        .update(ObsSweep::new().block_size(block_size))
        .prune(&mut by_wanda, &gram_of(&job.inputs::<A>()))
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(report.pruned(), mask.count());
    prop_assert_eq!(bits_of(&by_wanda), bits_of(&weights));
    Ok(())
}

/// Where nothing goes, nothing changes.
fn an_empty_mask_changes_nothing<A: TestElement>(block_size: usize, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let job = Job {
        zeros: NEVER,
        dead: NEVER,
        ..job.clone()
    };
    let nothing = Mask::none(job.rows, job.columns).expect("a small mask");
    let (weights, mask, report) = sweep::<A, _>(nothing, block_size, &job)?;
    prop_assert_eq!(bits_of(&weights), bits_of(&job.weights::<A>()));
    prop_assert_eq!(mask.count() + report.pruned() + report.zeros(), 0);
    prop_assert_eq!(
        report.relative_error().map(|error| error.value()),
        Some(0.0)
    );
    Ok(())
}

/// The short way is the long one.
fn sparsegpt_layer_is_the_sweep_by_obs<A: TestElement>(pattern: Pattern, job: &Job) -> Outcome
where
    Obs: ImportanceMetric<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
{
    let stats = gram_of(&job.inputs::<A>());
    let (mut short, mut long) = (job.weights::<A>(), job.weights::<A>());
    let short_report = sparsegpt_layer(&mut short, &stats, pattern);
    let long_report = Pruner::new(Obs::new(), pattern)
        .update(ObsSweep::new())
        .prune(&mut long, &stats);
    prop_assert_eq!(bits_of(&short), bits_of(&long));
    let told = |report: Result<LayerReport, Error>| {
        report.map(|report| {
            (
                report.pruned(),
                report.zeros(),
                report.relative_error(),
                report.damping(),
            )
        })
    };
    prop_assert_eq!(told(short_report), told(long_report));
    Ok(())
}

fn block_sizes() -> impl Strategy<Value = usize> {
    select(vec![1_usize, 3, 4, 16, 64, 128, usize::MAX])
}

/// Layers in which nothing is zero.
fn lively() -> impl Strategy<Value = Job> {
    job::jobs().prop_map(|job| Job {
        zeros: NEVER,
        dead: NEVER,
        ..job
    })
}

macro_rules! laws {
    ($element:ident, $name:ident) => {
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(few_cases())]

                #[test]
                fn counts_are_exact(
                    job in job::jobs(), pattern in layer::patterns(), block in block_sizes(),
                ) {
                    super::counts_are_exact::<$element>(pattern, block, &job)?;
                }

                #[test]
                fn protected_weights_stay(
                    job in lively(), pattern in layer::patterns(), block in block_sizes(),
                ) {
                    super::protected_weights_stay::<$element>(pattern, block, &job)?;
                }

                #[test]
                fn zeros_stay_zero(
                    job in job::jobs(), pattern in layer::patterns(), block in block_sizes(),
                ) {
                    super::zeros_stay_zero::<$element>(pattern, block, &job)?;
                }

                #[test]
                fn a_given_mask_prunes_what_it_marks(job in job::jobs(), block in block_sizes()) {
                    super::a_given_mask_prunes_what_it_marks::<$element>(block, &job)?;
                }

                #[test]
                fn an_empty_mask_changes_nothing(job in job::jobs(), block in block_sizes()) {
                    super::an_empty_mask_changes_nothing::<$element>(block, &job)?;
                }

                #[test]
                fn sparsegpt_layer_is_the_sweep_by_obs(
                    job in job::jobs(), pattern in layer::patterns(),
                ) {
                    super::sparsegpt_layer_is_the_sweep_by_obs::<$element>(pattern, &job)?;
                }
            }
        }
    };
}

laws!(f32, on_f32);
laws!(f64, on_f64);
laws!(f16, on_f16);
laws!(bf16, on_bf16);

#[test]
fn zeros_come_back_to_life_if_they_may() {
    let job = Job {
        zeros: 5,
        ..Job::new(6, 40, 100)
    };
    let dense = job.weights::<f32>();
    let zeros = Mask::of_zeros(&dense).expect("a small mask");
    let first_column = Mask::from_fn(6, 40, |_, column| column == 0).expect("a small mask");
    let sweep = |keep: bool| {
        let mut weights = dense.clone();
        let report = Pruner::new(Obs::new(), first_column.clone())
            .update(ObsSweep::new().keep_zeros(keep))
            .prune(&mut weights, &gram_of(&job.inputs::<f32>()))
            .expect("a fine layer");
        assert_eq!(report.pruned(), 6);
        Mask::of_zeros(&weights).expect("a small mask")
    };
    let either = |row, column| {
        zeros.get(row, column) == Some(true) || first_column.get(row, column) == Some(true)
    };
    assert_eq!(Ok(sweep(true)), Mask::from_fn(6, 40, either));
    // Rows whose first weight is zero have nothing to make up for.
    let expected = Mask::from_fn(6, 40, |row, column| {
        column == 0
            || (zeros.get(row, column) == zeros.get(row, 0) && zeros.get(row, 0) == Some(true))
    });
    assert_eq!(Ok(sweep(false)), expected);
}

#[test]
fn an_update_makes_up_for_pruned_weights() {
    let job = Job::new(32, 64, 200);
    let stats = gram_of(&job.inputs::<f32>());
    for pattern in [
        Pattern::PerOutput(0.5),
        Pattern::PerLayer(0.5),
        Pattern::NOfM { keep: 2, of: 4 },
    ] {
        let error = |pruned: wanda::Result<LayerReport>| {
            let report = pruned.expect("a fine layer");
            report
                .relative_error()
                .expect("an output other than zero")
                .value()
        };
        let by_mask = Pruner::new(Wanda, pattern);
        let mask = by_mask
            .mask(&job.weights::<f32>(), &stats)
            .expect("a fine layer");
        let wanda = error(by_mask.prune(&mut job.weights::<f32>(), &stats));
        let updated = Pruner::new(Magnitude, mask).update(ObsSweep::new());
        let updated = error(updated.prune(&mut job.weights::<f32>(), &stats));
        let sparsegpt = error(sparsegpt_layer(&mut job.weights::<f32>(), &stats, pattern));
        assert!(updated < 0.75 * wanda, "{updated} and {wanda}, {pattern}");
        assert!(
            sparsegpt < 0.75 * wanda,
            "{sparsegpt} and {wanda}, {pattern}"
        );
    }
}
