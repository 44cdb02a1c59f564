//! The sweep against one that forms the inverse and goes column by column, with every pattern and
//! metric, and what its report says.
#![cfg(feature = "second-order")]

mod common;

use proptest::prelude::*;
use proptest::sample::select;
use wanda::half::{bf16, f16};
use wanda::ndarray::Array2;
use wanda::{
    Error, ErrorBasis, ImportanceMetric, LayerReport, Magnitude, Mask, Obs, ObsSweep, Pattern,
    Pruner, SparsityPattern, Wanda, WeightUpdate,
};

use common::element::TestElement;
use common::few_cases;
use common::job::{self, Job, NEVER, choices};
use common::layer::{self, Laid, gram_of};
use common::metric::Placed;
use common::oracle::{self, Refusal};
use common::oracle_obs::{self, Choice, Cost, Formula, Layer, Sweep, Swept};

type Outcome = Result<(), TestCaseError>;

/// What the crate makes of a layer.
struct Found<A> {
    weights: Array2<A>,
    mask: Mask,
    report: LayerReport,
}

/// Sweeps a layer by the crate; also that deciding alone gives the same mask, and that errors
/// change nothing.
fn sweep_by_crate<A: TestElement, M: Formula<A::Compute>>(
    metric: M,
    choice: &Choice,
    sweep: &Sweep,
    job: &Job,
) -> Result<Result<Found<A>, Error>, TestCaseError> {
    let stats = gram_of(&Laid::new(&job.inputs::<A>(), job.layout).view());
    let mut pruner = Pruner::new(metric, choice.as_pattern()).update(sweep.update());
    if job.protected != NEVER {
        pruner = pruner.protect(oracle::to_mask(&job.protected()));
    }
    let mut laid = Laid::new(&job.weights::<A>(), job.layout);
    let before = laid.memory_bits();
    let mask = pruner.mask(&laid.view(), &stats);
    prop_assert_eq!(
        laid.memory_bits(),
        before.clone(),
        "deciding changes nothing"
    );
    let report = pruner.prune(&mut laid.view_mut(), &stats);
    prop_assert_eq!(laid.untouched_gaps(), laid.gaps());
    match (mask, report) {
        (Ok(mask), Ok(report)) => Ok(Ok(Found {
            weights: laid.view().to_owned(),
            mask,
            report,
        })),
        (Err(from_mask), Err(from_prune)) => {
            prop_assert_eq!(&from_mask, &from_prune);
            prop_assert_eq!(laid.memory_bits(), before, "an error changes nothing");
            Ok(Err(from_prune))
        }
        (mask, report) => Err(TestCaseError::fail(format!("{mask:?} but {report:?}"))),
    }
}

/// Counts and damping are exact, the relative error is that of the stored weights to within
/// `tolerance`, and what rounding makes of the dense output where its terms cancel.
fn report_is_right<A: TestElement>(
    found: &Found<A>,
    sweep: &Sweep,
    layer: &Layer<A>,
    tolerance: f64,
) -> Outcome {
    let report = &found.report;
    prop_assert_eq!((report.rows(), report.columns()), layer.weights.dim());
    prop_assert_eq!(report.pruned(), found.mask.count());
    let zeros = found.weights.iter().filter(|w| w.exact() == 0.0).count();
    prop_assert_eq!(report.zeros(), zeros);
    let dead = layer
        .gram
        .diag()
        .iter()
        .filter(|&&entry| entry == 0.0)
        .count();
    prop_assert_eq!(report.dead_inputs(), dead);
    prop_assert_eq!(report.damping(), Some(sweep.damping));

    let expected = Cost::of(&layer.weights, &found.weights, &layer.gram, sweep.damping);
    prop_assert_eq!(report.relative_error().is_some(), expected.is_some());
    if let (Some(error), Some(cost)) = (report.relative_error(), expected) {
        prop_assert_eq!(error.basis(), ErrorBasis::Gram);
        let off = (error.value() - cost.relative_error).abs();
        prop_assert!(
            off <= (tolerance + 1e-14 * cost.cancellation) * cost.damped,
            "an error of {}, not {}",
            error.value(),
            cost.relative_error
        );
    }
    Ok(())
}

/// By how much a layer differs from what the oracle makes of it.
#[derive(Debug)]
struct Difference {
    /// Marks of the mask.
    marks: usize,
    /// Weights of rows without a mark that differs, relative to all weights: the root of the sums
    /// of squares.
    weights: f64,
}

impl Difference {
    /// Compares, and fails if a pruned weight is not `+0.0`.
    fn between<A: TestElement>(found: &Found<A>, expected: &Swept) -> Result<Self, TestCaseError> {
        let (mut off, mut all, mut marks) = (0.0, 0.0, 0);
        for (row, weights) in found.weights.rows().into_iter().enumerate() {
            let (mut row_off, mut row_marks) = (0.0, 0);
            for (column, &weight) in weights.iter().enumerate() {
                let pruned = found.mask.get(row, column);
                row_marks += usize::from(pruned != expected.mask.get(row, column));
                if pruned == Some(true) {
                    prop_assert_eq!(weight.bits(), 0, "row {}, column {}", row, column);
                }
                let expected = expected.weights[[row, column]];
                row_off += (weight.exact() - expected).powi(2);
                all += expected.powi(2);
            }
            marks += row_marks;
            off += if row_marks == 0 { row_off } else { 0.0 };
        }
        let weights = if off > 0.0 { (off / all).sqrt() } else { 0.0 };
        Ok(Self { marks, weights })
    }
}

/// In double precision: the very mask and, but for rounding, the very weights.
fn sweep_is_the_published_one<M: Formula<f64>>(
    metric: M,
    choice: &Choice,
    sweep: &Sweep,
    job: &Job,
) -> Outcome {
    let layer = job.layer();
    let upper = oracle_obs::upper_factor(&layer.gram, sweep.damping);
    sweep_with_factor_is_the_published_one(metric, choice, sweep, job, (&layer, &upper))
}

fn sweep_with_factor_is_the_published_one<M: Formula<f64>>(
    metric: M,
    choice: &Choice,
    sweep: &Sweep,
    job: &Job,
    (layer, upper): (&Layer<f64>, &Array2<f64>),
) -> Outcome {
    let expected = sweep.run(metric, choice, layer, upper);
    match (sweep_by_crate(metric, choice, sweep, job)?, expected) {
        (Ok(found), Ok(expected)) => {
            let Difference { marks, weights } = Difference::between(&found, &expected)?;
            prop_assert_eq!(marks, 0);
            prop_assert!(weights <= 1e-9, "weights are off by {}", weights);
            report_is_right(&found, sweep, layer, 1e-12)
        }
        (Err(Error::TooManyProtected { row, column, .. }), Err(Refusal::TooManyProtected)) => {
            prop_assert_eq!(layer.protected.get([row, column]), Some(&true));
            Ok(())
        }
        (found, expected) => Err(TestCaseError::fail(format!(
            "{:?} instead of {expected:?}",
            found.map(|found| found.mask)
        ))),
    }
}

fn sweeps() -> impl Strategy<Value = Sweep> {
    let block_size = select(vec![1_usize, 3, 4, 16, 64, 128, usize::MAX]);
    let damping = select(vec![0.01, 0.1, 1.0]);
    (block_size, damping, any::<bool>()).prop_map(|(block_size, damping, keep_zeros)| Sweep {
        block_size,
        damping,
        keep_zeros,
    })
}

macro_rules! published {
    ($metric:expr, $sweeps:expr, $($pattern:ident),*) => {
        proptest! {
            #![proptest_config(few_cases())]

            $(
                #[test]
                fn $pattern(job in job::jobs(), sweep in $sweeps, pattern in layer::$pattern()) {
                    let choice = Choice::Pattern(pattern);
                    sweep_is_the_published_one($metric, &choice, &sweep, &job)?;
                }
            )*

            #[test]
            fn given(job in job::jobs(), sweep in $sweeps) {
                sweep_is_the_published_one($metric, &Choice::Given(job.given()), &sweep, &job)?;
            }
        }
    };
    ($name:ident: $metric:expr, $sweeps:expr) => {
        mod $name {
            use super::*;

            published!(
                $metric, $sweeps, per_output, per_layer, per_input, n_of_m, block, cumulative,
                threshold
            );
        }
    };
}

published!(published_sweep_by_obs: Obs::new(), sweeps());
published!(published_sweep_by_wanda: Wanda, sweeps());
published!(published_sweep_by_magnitude: Magnitude, sweeps());
// Zeros that may come back to life are a test of their own.
published!(published_sweep_by_a_users_metric: Placed, sweeps().prop_map(|sweep| Sweep {
    keep_zeros: true,
    ..sweep
}));

/// Shapes that the random ones above miss: whole mask words, several blocks, and blocks of one
/// column, many rows; with zeros, dead inputs and protected weights, and without.
#[test]
fn every_block_size_gives_the_published_sweep_of_larger_layers() {
    let plain = Job::new(6, 195, 200);
    let odd = Job {
        zeros: 11,
        dead: 13,
        protected: 17,
        ..Job::new(5, 71, 100)
    };
    // More rows than are swept together.
    let tall = Job {
        rows: 150,
        ..odd.clone()
    };
    for (job, block_sizes) in [
        (plain, &[100, 128][..]),
        (odd, &[1, 4, 64, usize::MAX]),
        (tall, &[64]),
    ] {
        let layer = job.layer::<f64>();
        let upper = oracle_obs::upper_factor(&layer.gram, Sweep::default().damping);
        for &block_size in block_sizes {
            let sweep = Sweep {
                block_size,
                ..Sweep::default()
            };
            for choice in choices(&job) {
                let oracle = (&layer, &upper);
                sweep_with_factor_is_the_published_one(Obs::new(), &choice, &sweep, &job, oracle)
                    .unwrap_or_else(|error| panic!("{choice:?}, blocks of {block_size}: {error}"));
            }
        }
    }
}

/// What rounding may do to a sweep in the type computed in.
struct Rounding {
    /// Weights of rows with the same marks, relative to all.
    weights: f64,
    /// The share of marks that differ.
    marks: f64,
}

/// In the type computed in, nearly the mask and nearly the weights; and a relative error that is
/// that of the weights as they are stored.
fn sweeps_are_nearly_the_published_ones<A: TestElement>(rounding: &Rounding)
where
    Obs: Formula<A::Compute>,
    Wanda: Formula<A::Compute>,
    Magnitude: Formula<A::Compute>,
{
    let job = Job {
        zeros: 11,
        dead: 13,
        ..Job::new(24, 130, 300)
    };
    let sweep = Sweep {
        block_size: 64,
        ..Sweep::default()
    };
    let layer = job.layer::<A>();
    let upper = oracle_obs::upper_factor(&layer.gram, sweep.damping);
    let oracle = (&layer, &upper);
    for choice in choices(&job) {
        sweep_is_nearly_the_published_one(Obs::new(), &choice, &sweep, &job, oracle, rounding);
        sweep_is_nearly_the_published_one(Wanda, &choice, &sweep, &job, oracle, rounding);
        sweep_is_nearly_the_published_one(Magnitude, &choice, &sweep, &job, oracle, rounding);
    }
}

fn sweep_is_nearly_the_published_one<A: TestElement, M: Formula<A::Compute>>(
    metric: M,
    choice: &Choice,
    sweep: &Sweep,
    job: &Job,
    (layer, upper): (&Layer<A>, &Array2<f64>),
    rounding: &Rounding,
) {
    let expected = sweep
        .run(metric, choice, layer, upper)
        .expect("nothing is protected");
    let compare = || {
        let found = sweep_by_crate::<A, M>(metric, choice, sweep, job)?;
        let found = found.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let Difference { marks, weights } = Difference::between(&found, &expected)?;
        let most = rounding.marks * layer.weights.len() as f64;
        prop_assert!(marks as f64 <= most, "{} marks differ", marks);
        prop_assert!(
            weights <= rounding.weights,
            "weights are off by {}",
            weights
        );
        report_is_right(&found, sweep, layer, 1e-6)
    };
    compare().unwrap_or_else(|error| panic!("{} by {choice:?}: {error}", metric.name()));
}

#[test]
fn sweeps_in_single_precision_are_nearly_the_published_ones() {
    sweeps_are_nearly_the_published_ones::<f32>(&Rounding {
        weights: 5e-6,
        marks: 1e-3,
    });
}

/// A weight now and then is rounded to its neighbour.
#[test]
fn sweeps_of_half_precision_weights_are_nearly_the_published_ones() {
    sweeps_are_nearly_the_published_ones::<f16>(&Rounding {
        weights: 2e-4,
        marks: 1e-3,
    });
    sweeps_are_nearly_the_published_ones::<bf16>(&Rounding {
        weights: 1e-3,
        marks: 1e-3,
    });
}

fn wide_sweeps_are_the_published_ones(job: &Job) {
    let sweep = Sweep::default();
    let layer = job.layer();
    let upper = oracle_obs::upper_factor(&layer.gram, sweep.damping);
    for pattern in [Pattern::PerLayer(0.5), Pattern::NOfM { keep: 2, of: 4 }] {
        let choice = Choice::Pattern(pattern);
        let oracle = (&layer, &upper);
        sweep_with_factor_is_the_published_one(Obs::new(), &choice, &sweep, job, oracle)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"));
    }
}

#[test]
fn sweeps_of_wide_layers_are_the_published_ones() {
    wide_sweeps_are_the_published_ones(&Job::new(4, 530, 700));
}

/// Inputs that are active one family at a time have an inverse with as many zeros as their Gram
/// matrix, so that the oracle can take more columns.
#[test]
fn sweeps_of_very_wide_layers_are_the_published_ones() {
    wide_sweeps_are_the_published_ones(&Job {
        families: 11,
        ..Job::new(4, 1103, 330)
    });
}

/// A weight that is still zero when it is scored scores 0, whatever the metric says.
#[test]
fn zeros_that_may_come_back_to_life_still_score_0() {
    let job = Job {
        zeros: 3,
        ..Job::new(6, 40, 80)
    };
    let sweep = Sweep {
        keep_zeros: false,
        ..Sweep::default()
    };
    let choice = Choice::Pattern(Pattern::PerOutput(0.5));
    let outcome = sweep_is_the_published_one(Placed, &choice, &sweep, &job);
    assert_eq!(outcome.map_err(|error| error.to_string()), Ok(()));
}

fn without_an_update_the_gram_matrix_gives_the_relative_error<A: TestElement>()
where
    Magnitude: ImportanceMetric<A::Compute>,
{
    let job = Job {
        dead: 4,
        ..Job::new(9, 70, 50)
    };
    let layer = job.layer::<A>();
    for choice in choices(&job) {
        let mut weights = layer.weights.clone();
        let report = Pruner::new(Magnitude, choice.as_pattern())
            .prune(&mut weights, &gram_of(&job.inputs::<A>()))
            .expect("a fine layer");
        let error = report.relative_error().expect("an output other than zero");
        let cost = Cost::of(&layer.weights, &weights, &layer.gram, 0.0).expect("an output");
        assert_eq!(error.basis(), ErrorBasis::Gram);
        let off = (error.value() - cost.relative_error).abs();
        assert!(
            off <= 1e-6 * cost.relative_error,
            "an error of {}, not {}, by {choice:?}",
            error.value(),
            cost.relative_error
        );
        assert_eq!(report.damping(), None);
    }
}

#[test]
fn without_an_update_the_gram_matrix_gives_the_relative_error_of_any_type() {
    without_an_update_the_gram_matrix_gives_the_relative_error::<f64>();
    without_an_update_the_gram_matrix_gives_the_relative_error::<f32>();
    without_an_update_the_gram_matrix_gives_the_relative_error::<f16>();
    without_an_update_the_gram_matrix_gives_the_relative_error::<bf16>();
}

/// The relative error a sweep reports with this damping, and the one its weights have.
fn relative_errors<A: TestElement>(damping: f64) -> (f64, f64)
where
    Obs: ImportanceMetric<A::Compute>,
    ObsSweep: WeightUpdate<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
{
    let job = Job::new(16, 64, 200);
    let layer = job.layer::<A>();
    let mut weights = layer.weights.clone();
    let report = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
        .update(ObsSweep::new().damping(damping))
        .prune(&mut weights, &gram_of(&job.inputs::<A>()))
        .expect("a fine layer");
    assert_eq!(report.damping(), Some(damping));
    let found = report.relative_error().expect("an output other than zero");
    let cost = Cost::of(&layer.weights, &weights, &layer.gram, damping).expect("an output");
    (found.value(), cost.relative_error)
}

#[test]
fn heavy_damping_does_not_blur_the_relative_error() {
    for damping in [1.0, 1e2, 1e4, 1e6, 1e8] {
        for (found, expected) in [
            relative_errors::<f32>(damping),
            relative_errors::<f64>(damping),
            relative_errors::<f16>(damping),
            relative_errors::<bf16>(damping),
        ] {
            let off = (found - expected).abs();
            assert!(
                off <= 1e-4 * expected,
                "an error of {found}, not {expected}, damped by {damping}"
            );
        }
    }
}

#[cfg(all(feature = "second-order", feature = "lapack"))]
mod backends {
    use wanda::{ActivationStats, Backend, Gram};

    use super::*;

    fn gram_by<A: TestElement>(backend: Backend, job: &Job) -> Gram {
        let mut gram = Gram::new(job.columns).backend(backend);
        gram.update(&job.inputs::<A>()).expect("finite inputs");
        gram
    }

    /// Both backends, on a Gram matrix of their own, make nearly the same of a layer: all marks
    /// agree, and weights but for `tolerance`, relative to all.
    fn backends_agree<A: TestElement>(tolerance: f64)
    where
        Obs: ImportanceMetric<A::Compute>,
        ObsSweep: WeightUpdate<A::Compute>,
    {
        let job = Job {
            dead: 30,
            zeros: 30,
            ..Job::new(16, 203, 300)
        };
        for choice in choices(&job) {
            let run = |backend| {
                let stats = gram_by::<A>(backend, &job);
                let mut weights = job.weights::<A>();
                let pruner = Pruner::new(Obs::new().backend(backend), choice.as_pattern())
                    .update(ObsSweep::new().backend(backend));
                let mask = pruner.mask(&weights, &stats).expect("a fine layer");
                let report = pruner.prune(&mut weights, &stats).expect("a fine layer");
                let error = report.relative_error().expect("an output").value();
                (weights.mapv(TestElement::exact), mask, error)
            };
            let (by_faer, faer_mask, faer_error) = run(Backend::Faer);
            let (by_lapack, lapack_mask, lapack_error) = run(Backend::Lapack);
            assert_eq!(faer_mask.differences(&lapack_mask), Ok(0), "{choice:?}");
            let norm = |w: &Array2<f64>| w.iter().map(|x| x * x).sum::<f64>().sqrt();
            let off = norm(&(&by_faer - &by_lapack));
            assert!(
                off <= tolerance * norm(&by_faer),
                "off by {off}, {choice:?}"
            );
            assert!((faer_error - lapack_error).abs() <= 1e-6 * faer_error);
        }
    }

    #[test]
    fn backends_agree_on_the_sweep() {
        backends_agree::<f32>(1e-5);
        backends_agree::<f64>(1e-11);
    }

    #[test]
    fn backends_agree_on_the_gram_matrix() {
        let job = Job::new(0, 403, 2500);
        let by_faer = gram_by::<f32>(Backend::Faer, &job);
        let by_lapack = gram_by::<f32>(Backend::Lapack, &job);
        assert_eq!(by_faer.sums_of_squares(), by_lapack.sums_of_squares());
        let norms = by_faer.norms().norms();
        let (by_faer, by_lapack) = (by_faer.to_array(), by_lapack.to_array());
        let (by_faer, by_lapack) = (by_faer.expect("memory"), by_lapack.expect("memory"));
        for ((place, x), y) in by_faer.indexed_iter().zip(&by_lapack) {
            let bound = 1e-6 * norms[place.0] * norms[place.1];
            assert!((x - y).abs() <= bound, "{x} and {y} at {place:?}");
        }
    }

    #[test]
    fn backends_agree_on_the_scores_of_obs() {
        let job = Job::new(8, 100, 200);
        let stats = gram_by::<f64>(Backend::Faer, &job);
        let mask = |backend| {
            Pruner::new(Obs::new().backend(backend), Pattern::PerLayer(0.5))
                .mask(&job.weights::<f64>(), &stats)
                .expect("a fine layer")
        };
        assert_eq!(mask(Backend::Faer), mask(Backend::Lapack));
    }

    #[test]
    fn backends_report_the_same_pivot() {
        // The first three features are one and the same.
        let inputs = Array2::from_shape_fn((4, 5), |(token, feature)| {
            f64::from(u8::from(token == feature.saturating_sub(2)))
        });
        for backend in [Backend::Faer, Backend::Lapack] {
            let error = Pruner::new(Obs::new(), Pattern::PerLayer(0.5))
                .update(ObsSweep::new().backend(backend).damping(0.0))
                .mask(&Array2::<f64>::ones((2, 5)), &gram_of(&inputs))
                .expect_err("a singular matrix");
            let expected = Error::NotPositiveDefinite {
                pivot: 1,
                damping: 0.0,
            };
            assert_eq!(error, expected, "{backend:?}");
        }
    }
}

/// Multiplied by a power of two, weights give the same mask and error, and new weights that are
/// multiplied by it.
#[test]
fn the_size_of_weights_changes_nothing_but_the_size_of_what_stays() {
    let job = Job::new(20, 70, 300);
    let gram = gram_of(&job.inputs::<f32>());
    let prune = |exponent: i32, by_sweep: bool| {
        let scale = 2_f32.powi(exponent);
        let mut w = job.weights::<f32>().mapv(|w| w * scale);
        let report = if by_sweep {
            wanda::sparsegpt_layer(&mut w, &gram, Pattern::PerOutput(0.5))
        } else {
            Pruner::new(Obs::new(), Pattern::PerOutput(0.5)).prune(&mut w, &gram)
        };
        let report = report.expect("finite weights");
        let error = report
            .relative_error()
            .expect("an output other than zero")
            .value();
        (w.mapv(|w| f64::from(w) / f64::from(scale)), error)
    };
    for by_sweep in [false, true] {
        let (expected, expected_error) = prune(0, by_sweep);
        for exponent in [-120, -70, 70, 124] {
            let (found, error) = prune(exponent, by_sweep);
            let off = (error - expected_error).abs();
            assert!(
                off < 1e-5 * expected_error,
                "2^{exponent}: {error}, not {expected_error}"
            );
            for (found, expected) in found.iter().zip(&expected) {
                let off = (found - expected).abs();
                assert!(off < 1e-5, "2^{exponent}: {found}, not {expected}");
                assert_eq!(*found == 0.0, *expected == 0.0, "2^{exponent}");
            }
        }
    }
}

#[test]
fn the_smallest_weights_there_are_can_be_scored() {
    let job = Job::new(5, 40, 100);
    let gram = gram_of(&job.inputs::<f32>());
    // Whole numbers, and as many times the smallest number.
    let whole = job
        .weights::<f32>()
        .mapv(|w| 1.0 + (50.0 * w.abs()).round());
    let smallest = f32::from_bits(1);
    let pruner = Pruner::new(Obs::new(), Pattern::PerOutput(0.5));
    let expected = pruner.mask(&whole, &gram).expect("finite weights");
    let tiny = whole.mapv(|w| w * smallest);
    assert_eq!(pruner.mask(&tiny, &gram), Ok(expected));
    let mut swept = tiny;
    let report = wanda::sparsegpt_layer(&mut swept, &gram, Pattern::PerOutput(0.5));
    assert_eq!(report.expect("finite weights").pruned(), 100);
}
