//! The same bits, whatever the number of threads, the memory layout or the cut into batches; and
//! sums that stay exact over very many tokens.

mod common;

use wanda::half::bf16;
use wanda::ndarray::{Array2, Axis};
use wanda::{ActivationStats, ColumnNorms, Pattern, Pruner, Wanda};

use common::element::TestElement;
use common::layer::{Case, Laid, Layout, Random, Values, bits_of, gathered};
use common::metric::{Factored, Placed};

/// A layer that two tasks share, as each takes 32768 weights or more, and whose last word of marks
/// is not full.
fn layer(values: Values) -> Case {
    Case {
        rows: 230,
        columns: 150,
        values,
        tokens: 40,
        layout: Layout::RowMajor,
        seed: 7,
    }
}

const PATTERNS: [Pattern; 7] = [
    Pattern::PerOutput(0.5),
    Pattern::PerLayer(0.37),
    Pattern::PerInput(0.6),
    Pattern::NOfM { keep: 2, of: 4 },
    Pattern::Block {
        rows: 4,
        cols: 16,
        sparsity: 0.5,
    },
    Pattern::Cumulative(0.5),
    Pattern::Threshold(0.5),
];

/// Everything that pruning a layer gives, in bits, but the time it took.
#[derive(Debug, PartialEq)]
struct Outcome {
    statistics: Vec<u64>,
    mask: wanda::Mask,
    weights: Vec<u64>,
    counts: [usize; 3],
    relative_error: Option<u64>,
}

fn outcome<A: TestElement, M: Factored<A::Compute>>(
    metric: M,
    pattern: Pattern,
    case: &Case,
) -> Outcome {
    let inputs = Laid::new(&case.inputs::<A>(), case.layout);
    let mut stats = ColumnNorms::new(case.columns);
    stats.update(&inputs.view()).expect("finite inputs");
    let mut weights = Laid::new(&case.weights::<A>(), case.layout);
    let pruner = Pruner::new(metric, pattern);
    let mask = pruner
        .mask(&weights.view(), &stats)
        .expect("a mask of finite weights");
    let report = pruner
        .prune(&mut weights.view_mut(), &stats)
        .expect("a report on finite weights");
    Outcome {
        statistics: stats
            .sums_of_squares()
            .iter()
            .map(|sum| sum.to_bits())
            .collect(),
        mask,
        weights: bits_of(&weights.view()),
        counts: [report.pruned(), report.zeros(), report.dead_inputs()],
        relative_error: report.relative_error().map(|error| error.value().to_bits()),
    }
}

/// A metric that is checked beforehand and one that is not, with every pattern, on a layer of many
/// different scores and one of many equal ones.
fn outcomes<A: TestElement>(layout: Layout) -> Vec<Outcome>
where
    Wanda: Factored<A::Compute>,
    Placed: Factored<A::Compute>,
{
    let mut all = Vec::new();
    for pattern in PATTERNS {
        for values in [Values::Spread, Values::Ties] {
            let case = Case {
                layout,
                ..layer(values)
            };
            all.push(outcome::<A, _>(Wanda, pattern, &case));
            all.push(outcome::<A, _>(Placed, pattern, &case));
        }
    }
    all
}

fn every_layout_gives_the_same_bits<A: TestElement>() {
    let expected = outcomes::<A>(Layout::RowMajor);
    for layout in [Layout::ColumnMajor, Layout::EverySecond, Layout::Backwards] {
        assert_eq!(outcomes::<A>(layout), expected, "{layout:?}");
    }
}

#[test]
fn every_layout_gives_the_same_bits_for_single_precision() {
    every_layout_gives_the_same_bits::<f32>();
}

#[test]
fn every_layout_gives_the_same_bits_for_double_precision() {
    every_layout_gives_the_same_bits::<f64>();
}

#[test]
fn every_layout_gives_the_same_bits_for_half_precision() {
    every_layout_gives_the_same_bits::<bf16>();
}

/// Gram matrices and sweeps, on layers so large that threads share the work on one of them: 64 rows
/// are swept together.
#[cfg(feature = "second-order")]
mod second_order {
    use wanda::{ImportanceMetric, Obs, ObsSweep, WeightUpdate};

    use super::*;
    use common::job::Job;
    use common::layer::gram_of;

    /// Everything that a sweep gives, in bits, but the time it took.
    #[derive(Debug, PartialEq)]
    pub(crate) struct Outcome {
        weights: Vec<u64>,
        counts: [usize; 3],
        relative_error: Option<u64>,
    }

    /// A Gram matrix in bits, and what sweeps make of a layer with more tokens than one block of
    /// the matrix and more features than one panel.
    pub(crate) fn outcomes<A: TestElement>(layout: Layout) -> (Vec<u64>, Vec<Outcome>)
    where
        Obs: ImportanceMetric<A::Compute>,
        ObsSweep: WeightUpdate<A::Compute>,
    {
        let job = Job {
            zeros: 50,
            dead: 50,
            ..Job::new(90, 405, 2100)
        };
        let gram = gram_of(&Laid::new(&job.inputs::<A>(), layout).view());
        let outcome = |pattern| {
            let mut weights = Laid::new(&job.weights::<A>(), layout);
            let report = Pruner::new(Obs::new(), pattern)
                .update(ObsSweep::new())
                .prune(&mut weights.view_mut(), &gram)
                .expect("a fine layer");
            Outcome {
                weights: bits_of(&weights.view()),
                counts: [report.pruned(), report.zeros(), report.dead_inputs()],
                relative_error: report.relative_error().map(|error| error.value().to_bits()),
            }
        };
        let patterns = [
            Pattern::PerOutput(0.5),
            Pattern::PerLayer(0.5),
            Pattern::NOfM { keep: 2, of: 4 },
        ];
        let matrix = gram.to_array().expect("memory for a small matrix");
        (bits_of(&matrix), patterns.map(outcome).into())
    }

    #[test]
    fn every_layout_gives_the_same_sweep() {
        let expected = outcomes::<f32>(Layout::RowMajor);
        for layout in [Layout::ColumnMajor, Layout::EverySecond, Layout::Backwards] {
            assert_eq!(outcomes::<f32>(layout), expected, "{layout:?}");
        }
    }
}

#[cfg(feature = "rayon")]
mod threads {
    use super::*;

    fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool of threads")
            .install(work)
    }

    fn any_number_of_threads_gives_the_same_bits<A: TestElement>() {
        let expected = on_threads(1, || outcomes::<A>(Layout::RowMajor));
        for threads in [2, 16] {
            let found = on_threads(threads, || outcomes::<A>(Layout::RowMajor));
            assert_eq!(found, expected, "{threads} threads");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits_for_single_precision() {
        any_number_of_threads_gives_the_same_bits::<f32>();
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits_for_double_precision() {
        any_number_of_threads_gives_the_same_bits::<f64>();
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits_for_half_precision() {
        any_number_of_threads_gives_the_same_bits::<bf16>();
    }

    #[cfg(feature = "second-order")]
    fn any_number_of_threads_gives_the_same_sweep<A: TestElement>()
    where
        wanda::Obs: wanda::ImportanceMetric<A::Compute>,
        wanda::ObsSweep: wanda::WeightUpdate<A::Compute>,
    {
        let outcomes = || second_order::outcomes::<A>(Layout::RowMajor);
        let expected = on_threads(1, outcomes);
        for threads in [2, 16] {
            assert_eq!(on_threads(threads, outcomes), expected, "{threads} threads");
        }
    }

    #[test]
    #[cfg(feature = "second-order")]
    fn any_number_of_threads_gives_the_same_sweep_in_single_precision() {
        any_number_of_threads_gives_the_same_sweep::<f32>();
    }

    #[test]
    #[cfg(feature = "second-order")]
    fn any_number_of_threads_gives_the_same_sweep_in_double_precision() {
        any_number_of_threads_gives_the_same_sweep::<f64>();
    }

    #[test]
    fn any_number_of_threads_gives_the_same_statistics_of_wide_inputs() {
        // Wider than any strip of features that one thread may take.
        let inputs = Case {
            rows: 0,
            columns: 5000,
            tokens: 33,
            ..layer(Values::Spread)
        }
        .inputs::<bf16>();
        let expected = on_threads(1, || gathered(&inputs));
        for threads in [2, 3, 16] {
            assert_eq!(on_threads(threads, || gathered(&inputs)), expected);
        }
    }
}

#[test]
fn any_cut_into_batches_gives_the_same_bits() {
    let inputs = Case {
        tokens: 500,
        columns: 131,
        ..layer(Values::Spread)
    }
    .inputs::<f32>();
    let whole = gathered(&inputs);
    for tokens in [1, 2, 3, 7, 64, 255, 499] {
        let mut stats = ColumnNorms::new(inputs.ncols());
        for batch in inputs.axis_chunks_iter(Axis(0), tokens) {
            stats.update(&batch).expect("finite inputs");
        }
        assert_eq!(stats, whole, "{tokens} tokens at a time");
        let bits = |stats: &ColumnNorms| -> Vec<u64> {
            stats
                .sums_of_squares()
                .iter()
                .map(|sum| sum.to_bits())
                .collect()
        };
        assert_eq!(bits(&stats), bits(&whole), "{tokens} tokens at a time");
    }
}

/// A sum that carries what each addition rounds off (Neumaier).
#[derive(Debug, Clone, Copy, Default)]
struct CompensatedSum {
    sum: f64,
    lost: f64,
}

impl CompensatedSum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        self.lost += if self.sum.abs() >= x.abs() {
            (self.sum - sum) + x
        } else {
            (x - sum) + self.sum
        };
        self.sum = sum;
    }

    fn value(self) -> f64 {
        self.sum + self.lost
    }
}

#[test]
fn hundreds_of_thousands_of_half_precision_tokens_lose_nothing_beside_outliers() {
    const TOKENS: usize = 200_000;
    const BATCH: usize = 4096;
    // An outlier feature, a small one, one that is small but for a single token, and one that is
    // large at first and small ever after.
    let feature = |feature: usize, token: usize| match (feature, token) {
        (0, _) | (2, 100_000) | (3, 0) => 1e3,
        _ => 1e-3,
    };

    let mut random = Random::new(1);
    let mut stats = ColumnNorms::new(4);
    let mut expected = [CompensatedSum::default(); 4];
    let (mut outlier, mut small_expected) = (0.0, CompensatedSum::default());
    for start in (0..TOKENS).step_by(BATCH) {
        let tokens = BATCH.min(TOKENS - start);
        let batch = Array2::from_shape_fn((tokens, 4), |(token, column)| {
            bf16::from_f64(feature(column, start + token) * (0.5 + random.unit()))
        });
        for token in batch.rows() {
            for (sum, x) in expected.iter_mut().zip(token) {
                sum.add(x.exact() * x.exact());
            }
            let square = token[3].exact() * token[3].exact();
            if square > 1.0 {
                outlier += square;
            } else {
                small_expected.add(square);
            }
        }
        stats.update(&batch).expect("finite inputs");
    }

    assert_eq!(stats.tokens(), TOKENS as u64);
    for (found, expected) in stats.sums_of_squares().iter().zip(expected) {
        let expected = expected.value();
        let bound = TOKENS as f64 * f64::EPSILON / 2.0 * expected;
        assert!((found - expected).abs() <= bound, "{found} and {expected}");
    }
    // The small tokens of the last feature together are about 0.2, each of them 10⁻¹² of the
    // outlier before them: a sum in single precision would notice none.
    let small = stats.sums_of_squares()[3] - outlier;
    assert!((small - small_expected.value()).abs() <= 1e-4 * small_expected.value());
}
