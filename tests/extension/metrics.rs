//! Metrics of users: of the whole layer, of single weights, and with factors.

use std::fmt::Debug;

use wanda::ndarray::{Array2, array};
use wanda::{
    ActivationStats, Element, ImportanceMetric, Magnitude, NoStats, Pattern, Pruner, Real, Result,
    Rows, Scorer, SparsityPattern, Wanda, validate,
};

use crate::common::layer::{Random, gathered, of_each_kind};
use crate::common::refusal::{INVALID, refuses};
use crate::patterns::fused::{self, pruned_and_masked};
use crate::patterns::{KeepOfRow, WholeColumns};
use crate::{HALF, weights};

/// The magnitude relative to the sum of all magnitudes of the row: needs the whole layer before
/// the first score.
#[derive(Debug, Clone, Copy)]
struct ShareOfRow;

struct RowSums<T>(Vec<T>);

impl<T: Real> ImportanceMetric<T> for ShareOfRow {
    fn name(&self) -> &'static str {
        "share of row"
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<T>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer<T> + 'a>> {
        let (rows, columns) = weights.dim();
        let mut buffer = vec![<T as Element>::ZERO; columns];
        let mut sums = Vec::with_capacity(rows);
        for row in 0..rows {
            weights.read(row, 0, &mut buffer)?;
            let mut sum = <T as Element>::ZERO;
            for &weight in &buffer {
                sum = sum + weight.abs();
            }
            sums.push(sum);
        }
        Ok(Box::new(RowSums(sums)))
    }
}

impl<T: Real> Scorer<T> for RowSums<T> {
    fn score(&self, row: usize, _: usize, weights: &[T], scores: &mut [T]) {
        for (score, weight) in scores.iter_mut().zip(weights) {
            *score = weight.abs() / self.0[row];
        }
    }
}

#[test]
fn a_users_metric_sees_the_layer_before_it_scores() {
    let mut w = weights();
    let report = Pruner::new(ShareOfRow, Pattern::PerLayer(0.5))
        .prune(&mut w, &NoStats)
        .expect("a fine layer");
    // Magnitudes alone would empty the second row.
    assert_eq!(w, array![[4.0, 0.0, 0.0, 3.0], [0.0, 0.4, -0.3, 0.0]]);
    assert_eq!(report.pruned(), 4);
    let mut w = weights().mapv(f64::from);
    let pruner = Pruner::new(ShareOfRow, Pattern::PerLayer(0.5));
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!((report.pruned(), report.zeros()), (4, 4));
}

/// A score by any function of the weight.
#[derive(Clone, Copy)]
pub(crate) struct Scored<F>(pub(crate) F);

impl<F> Debug for Scored<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scored")
    }
}

impl<F: Fn(f32) -> f32 + Send + Sync> ImportanceMetric for Scored<F> {
    fn name(&self) -> &'static str {
        "scored"
    }

    fn prepare<'a>(
        &'a self,
        _: &dyn Rows<f32>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer + 'a>> {
        Ok(Box::new(Scored(&self.0)))
    }
}

impl<F: Fn(f32) -> f32 + Send + Sync> Scorer for Scored<&F> {
    fn score(&self, _: usize, _: usize, weights: &[f32], scores: &mut [f32]) {
        for (score, &weight) in scores.iter_mut().zip(weights) {
            *score = (self.0)(weight);
        }
    }
}

#[test]
fn an_invalid_score_is_an_error_that_names_its_place() {
    for (bad, text) in INVALID {
        let metric = Scored(move |w: f32| {
            if w.to_bits() == 0.4_f32.to_bits() {
                bad
            } else {
                w.abs()
            }
        });
        for pattern in of_each_kind(0.5, (1, 2)) {
            let error = refuses(&Pruner::new(metric, pattern), &weights(), &NoStats);
            assert_eq!(
                error.to_string(),
                format!(
                    "`scored` scored the weight in row 1, column 1 as {text}; \
                     a score must be finite and not negative"
                ),
                "{pattern}"
            );
        }
    }
}

#[test]
fn a_score_of_negative_zero_is_a_score_of_zero() {
    // Both signs of zero are one tie, in which the lower column goes first.
    let w = array![
        [1.0_f32, -1.0, 1.0, -1.0, 2.0, 2.0],
        [-1.0, 1.0, -1.0, 1.0, 2.0, 2.0]
    ];
    let signed = Scored(|w: f32| match w.abs() - 1.0 {
        0.0 => 0.0_f32.copysign(w),
        _ => w,
    });
    let unsigned = Scored(|w: f32| w.abs() - 1.0);
    for pattern in [
        Pattern::PerOutput(0.34),
        Pattern::PerLayer(0.25),
        Pattern::PerInput(0.5),
        Pattern::NOfM { keep: 1, of: 3 },
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::Block {
            rows: 1,
            cols: 1,
            sparsity: 0.4,
        },
        Pattern::Cumulative(0.5),
    ] {
        assert_eq!(
            Pruner::new(signed, pattern).mask(&w, &NoStats),
            Pruner::new(unsigned, pattern).mask(&w, &NoStats),
            "{pattern}"
        );
    }
}

#[test]
fn a_zero_weight_scores_zero_whatever_the_metric_says() {
    for bad in [1e9, f32::NAN, f32::INFINITY, -1.0] {
        let metric = Scored(move |w: f32| if w == 0.0 { bad } else { w.abs() });
        for pattern in of_each_kind(0.5, (1, 2)) {
            let w = array![[3.0_f32, -0.0, 1.0, 0.0], [4.0, 0.0, 2.0, -0.0]];
            assert_eq!(
                Pruner::new(metric, pattern).mask(&w, &NoStats),
                Pruner::new(Magnitude, pattern).mask(&w, &NoStats),
                "{pattern} with {bad} for zeros"
            );
        }
    }
}

#[test]
fn metrics_and_patterns_work_behind_references_and_boxes() {
    let stats = gathered(&array![[1.0_f32, 2.0, 30.0, 1.0]]);
    let expected = Pruner::new(Wanda, HALF).mask(&weights(), &stats);
    assert!(expected.is_ok());

    let metric: &dyn ImportanceMetric = &Wanda;
    let pattern: &dyn SparsityPattern = &HALF;
    let pruner = Pruner::new(metric, pattern);
    assert_eq!(pruner.mask(&weights(), &stats), expected);
    let mut w = weights();
    let report = pruner.prune(&mut w, &stats).expect("a fine layer");
    assert_eq!(report.pruned(), 4);
    assert_eq!(validate(&w, pattern), Ok(()));

    let boxed: Box<dyn ImportanceMetric> = Box::new(Wanda);
    let pattern: Box<dyn SparsityPattern> = Box::new(HALF);
    assert_eq!(
        Pruner::new(boxed, pattern).mask(&weights(), &stats),
        expected
    );
    let metrics: Vec<Box<dyn ImportanceMetric<f64>>> =
        vec![Box::new(Wanda), Box::new(Magnitude), Box::new(ShareOfRow)];
    let w = weights().mapv(f64::from);
    for metric in &metrics {
        let patterns: [&dyn SparsityPattern<f64>; 3] =
            [&HALF, &KeepOfRow { keep: 2 }, &WholeColumns { columns: 2 }];
        for pattern in patterns {
            let mask = Pruner::new(metric, pattern)
                .mask(&w, &stats)
                .expect("a fine layer");
            assert_eq!(mask.count(), 4, "{} {}", metric.name(), pattern.name());
        }
    }
}

/// The magnitude times a factor, which it tells of, or of a few of them only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weighted {
    pub(crate) told: usize,
}

struct Factors {
    all: Vec<f32>,
    told: usize,
}

impl ImportanceMetric for Weighted {
    fn name(&self) -> &'static str {
        "weighted"
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<f32>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer + 'a>> {
        let columns = weights.dim().1;
        Ok(Box::new(Factors {
            all: (0..columns).map(|column| (column % 7) as f32).collect(),
            told: self.told,
        }))
    }
}

impl Scorer for Factors {
    fn score(&self, _: usize, start: usize, weights: &[f32], scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = weights[j].abs() * self.all[start + j];
        }
    }

    fn promises_valid_scores(&self, largest: f32) -> bool {
        (largest * 7.0).is_finite()
    }

    fn factors(&self) -> Option<&[f32]> {
        Some(&self.all[..self.told])
    }
}

#[test]
fn factors_may_be_missing() {
    let patterns = [
        Pattern::PerOutput(0.4),
        Pattern::PerLayer(0.4),
        Pattern::NOfM { keep: 2, of: 4 },
    ];
    for pattern in patterns {
        let all = pruned_and_masked(
            &Weighted {
                told: fused::COLUMNS,
            },
            &pattern,
        );
        assert_eq!(all.0, all.1, "{pattern}");
        for told in [0, 1, 100] {
            let some = pruned_and_masked(&Weighted { told }, &pattern);
            assert_eq!(some, all, "{pattern}, {told}");
        }
    }
}

/// Invalid scores, and some that are valid.
const ODD: [f32; 8] = [
    f32::NAN,
    -f32::NAN,
    -1.0,
    -0.0,
    0.0,
    1.0,
    f32::INFINITY,
    -f32::INFINITY,
];

/// Promises valid scores, and gives the numbers it has, or says that those of the first row are
/// factors.
#[derive(Debug, Clone, Copy)]
struct Promising<'a> {
    numbers: &'a Array2<f32>,
    as_factors: bool,
}

impl ImportanceMetric for Promising<'_> {
    fn name(&self) -> &'static str {
        "promising"
    }

    fn prepare<'a>(
        &'a self,
        _: &dyn Rows<f32>,
        _: &'a dyn ActivationStats,
    ) -> Result<Box<dyn Scorer + 'a>> {
        Ok(Box::new(*self))
    }
}

impl Scorer for Promising<'_> {
    fn score(&self, row: usize, start: usize, _: &[f32], scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = self.numbers[[row, start + j]];
        }
    }

    fn promises_valid_scores(&self, _: f32) -> bool {
        true
    }

    fn factors(&self) -> Option<&[f32]> {
        let factors = self.numbers.row(0).to_slice()?;
        self.as_factors.then_some(factors)
    }
}

/// What becomes of invalid scores is not specified, but it is decided.
#[test]
fn patterns_come_to_an_end_with_invalid_scores() {
    let mut random = Random::new(7);
    for shape in [(1, 1), (3, 70), (70, 3), (260, 257), (1, 3000), (3000, 1)] {
        for odd_ones in [0.01, 0.5, 1.0] {
            let scores = Array2::from_shape_fn(shape, |_| {
                let score = (random.bits() >> 40) as f32;
                let odd = random.pick(&ODD);
                if random.unit() < odd_ones { odd } else { score }
            });
            for sparsity in [0.01, 0.5, 0.999] {
                for pattern in of_each_kind(sparsity, (3, 2)) {
                    let mask = SparsityPattern::<f32>::project(&pattern, &scores);
                    assert_eq!(mask.expect("room for a mask").dim(), shape, "{pattern}");
                    for as_factors in [false, true] {
                        let promising = Promising {
                            numbers: &scores,
                            as_factors,
                        };
                        let mut w = Array2::<f32>::ones(shape);
                        let report = Pruner::new(promising, pattern)
                            .prune(&mut w, &NoStats)
                            .expect("nothing that is checked");
                        let zeros = w.iter().filter(|&&w| w == 0.0).count();
                        assert_eq!(report.zeros(), zeros, "{pattern}");
                    }
                }
            }
        }
    }
}
