//! Metrics of users: of the whole layer, of single weights, and with factors.

use std::fmt::Debug;

use wanda::half::bf16;
use wanda::ndarray::{Array2, array};
use wanda::{
    Context, Element, Error, Factors, ImportanceMetric, Magnitude, Mask, NoStats, Pattern,
    Prepared, Pruner, Real, Result, Rows, Scorer, SparsityPattern, Wanda, validate,
};

use crate::common::element::TestElement;
use crate::common::layer::{Random, bits_of, gathered, normal_weights, of_each_kind};
use crate::common::refusal::{INVALID, refuses};
use crate::patterns::fused::pruned_and_masked;
use crate::patterns::{KeepOfRow, WholeColumns};
use crate::{HALF, weights};

/// The magnitude relative to the sum of all magnitudes of the row: needs the whole layer before
/// the first score.
#[derive(Debug, Clone, Copy)]
struct ShareOfRow;

struct RowSums<T>(Vec<T>);

impl<T: Real> ImportanceMetric<T> for ShareOfRow {
    fn name(&self) -> String {
        "share of row".to_owned()
    }

    fn prepare<'a>(&'a self, weights: &dyn Rows<T>, _: &Context<'a, T>) -> Result<Prepared<'a, T>> {
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
        Ok(Prepared::scorer(RowSums(sums)))
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
    fn name(&self) -> String {
        "scored".to_owned()
    }

    fn prepare<'a>(&'a self, _: &dyn Rows<f32>, _: &Context<'a, f32>) -> Result<Prepared<'a>> {
        Ok(Prepared::scorer(Scored(&self.0)))
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

/// The magnitude times a factor, which it gives, or multiplies by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weighted {
    Factors,
    Code,
}

/// Multiplies by the factor of each column.
struct ByCode(Vec<f32>);

impl ImportanceMetric for Weighted {
    fn name(&self) -> String {
        "weighted".to_owned()
    }

    fn prepare<'a>(
        &'a self,
        weights: &dyn Rows<f32>,
        _: &Context<'a, f32>,
    ) -> Result<Prepared<'a>> {
        let (_, columns) = weights.dim();
        let factors = (0..columns).map(|column| (column % 7) as f32).collect();
        Ok(match self {
            Self::Factors => Prepared::factors(Factors::new(factors)),
            Self::Code => Prepared::scorer(ByCode(factors)),
        })
    }
}

impl Scorer for ByCode {
    fn score(&self, _: usize, start: usize, weights: &[f32], scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = weights[j].abs() * self.0[start + j];
        }
    }

    fn promises_valid_scores(&self, largest: f32) -> bool {
        (largest * 7.0).is_finite()
    }
}

#[test]
fn factors_and_code_that_multiplies_by_them_are_the_same() {
    let patterns = [
        Pattern::PerOutput(0.4),
        Pattern::PerLayer(0.4),
        Pattern::NOfM { keep: 2, of: 4 },
    ];
    for pattern in patterns {
        let by_factors = pruned_and_masked(&Weighted::Factors, &pattern);
        assert_eq!(by_factors.0, by_factors.1, "{pattern}");
        let by_code = pruned_and_masked(&Weighted::Code, &pattern);
        assert_eq!(by_code, by_factors, "{pattern}");
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

/// Promises valid scores, and gives the numbers it has.
#[derive(Debug, Clone, Copy)]
struct Promising<'a>(&'a Array2<f32>);

impl ImportanceMetric for Promising<'_> {
    fn name(&self) -> String {
        "promising".to_owned()
    }

    fn prepare<'a>(&'a self, _: &dyn Rows<f32>, _: &Context<'a, f32>) -> Result<Prepared<'a>> {
        Ok(Prepared::scorer(*self))
    }
}

impl Scorer for Promising<'_> {
    fn score(&self, row: usize, start: usize, _: &[f32], scores: &mut [f32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = self.0[[row, start + j]];
        }
    }

    fn promises_valid_scores(&self, _: f32) -> bool {
        true
    }
}

/// What becomes of invalid scores that were promised to be valid is not specified, but it is
/// decided. Factors are looked at, and promise nothing that is not so.
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
            let factors = Weights::of_columns(scores.row(0).to_vec());
            let is_valid = |factor: f32| factor >= 0.0 && factor.is_finite();
            for sparsity in [0.01, 0.5, 0.999] {
                for pattern in of_each_kind(sparsity, (3, 2)) {
                    let columns = 0..shape.1;
                    let mask = SparsityPattern::<f32>::project(&pattern, &scores, columns);
                    assert_eq!(mask.expect("room for a mask").dim(), shape, "{pattern}");
                    let mut w = Array2::<f32>::ones(shape);
                    let report = Pruner::new(Promising(&scores), pattern)
                        .prune(&mut w, &NoStats)
                        .expect("nothing that is checked");
                    let zeros = w.iter().filter(|&&w| w == 0.0).count();
                    assert_eq!(report.zeros(), zeros, "{pattern}");

                    let mut w = Array2::<f32>::ones(shape);
                    match Pruner::new(&factors, pattern).prune(&mut w, &NoStats) {
                        Ok(report) => {
                            assert!(scores.row(0).iter().all(|&factor| is_valid(factor)));
                            let zeros = w.iter().filter(|&&w| w == 0.0).count();
                            assert_eq!(report.zeros(), zeros, "{pattern}");
                        }
                        Err(Error::InvalidScore { column, .. }) => {
                            assert!(!is_valid(scores[[0, column]]), "{pattern}");
                            assert_eq!(w, Array2::<f32>::ones(shape), "{pattern}");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }
}

/// The magnitude times a factor, a sum of products of a number a row and a number a column.
#[derive(Debug, Clone)]
struct Weights<T> {
    /// Numbers of rows, if there are any, and of columns.
    terms: Vec<(Option<Vec<T>>, Vec<T>)>,
    /// How they are said.
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Factors,
    /// Code that promises valid scores, or does not.
    Code {
        promises: bool,
    },
}

impl<T: Real> Weights<T> {
    fn new(terms: Vec<(Option<Vec<T>>, Vec<T>)>) -> Self {
        let by = By::Factors;
        Self { terms, by }
    }

    fn of_columns(columns: Vec<T>) -> Self {
        Self::new(vec![(None, columns)])
    }

    fn by(&self, by: By) -> Self {
        Self { by, ..self.clone() }
    }

    fn factors(&self) -> Factors<T> {
        let one = |(rows, columns): &(Option<Vec<T>>, Vec<T>)| match rows {
            Some(rows) => Factors::of_rows(rows.clone(), columns.clone()),
            None => Factors::new(columns.clone()),
        };
        self.terms[1..]
            .iter()
            .fold(one(&self.terms[0]), |factors, (rows, columns)| {
                let rows = rows.clone().expect("all but the first have rows");
                factors.plus(rows, columns.clone())
            })
    }
}

impl<T: Real> ImportanceMetric<T> for Weights<T> {
    fn name(&self) -> String {
        "weights".to_owned()
    }

    fn prepare<'a>(&'a self, _: &dyn Rows<T>, _: &Context<'a, T>) -> Result<Prepared<'a, T>> {
        Ok(match self.by {
            By::Factors => Prepared::factors(self.factors()),
            By::Code { .. } => Prepared::scorer(self),
        })
    }
}

impl<T: Real> Scorer<T> for &Weights<T> {
    fn score(&self, row: usize, start: usize, weights: &[T], scores: &mut [T]) {
        let zero = <T as Element>::ZERO;
        for (j, (score, weight)) in scores.iter_mut().zip(weights).enumerate() {
            let factor = self.terms.iter().fold(zero, |sum, (rows, columns)| {
                let of_column = columns[start + j];
                sum + rows
                    .as_ref()
                    .map_or(of_column, |rows| rows[row] * of_column)
            });
            *score = weight.abs() * factor;
        }
    }

    fn promises_valid_scores(&self, _: T) -> bool {
        self.by == By::Code { promises: true }
    }
}

/// A pattern of each kind, and groups of sizes that are scored and decided together, or not.
fn every_pattern() -> Vec<Pattern> {
    let groups = [(3, 8), (4, 8), (1, 4), (2, 7), (1, 300)];
    let groups = groups.map(|(keep, of)| Pattern::NOfM { keep, of });
    of_each_kind(0.5, (3, 2))
        .into_iter()
        .chain(groups)
        .collect()
}

/// Factors of one to three terms, with and without numbers for the rows.
fn weights_for<T: Real>((rows, columns): (usize, usize)) -> Vec<Weights<T>> {
    let mut random = Random::new((rows * columns) as u64);
    // Few values, so that many scores are equal, or all unlike.
    let mut numbers = |len: usize, few: bool| -> Vec<T> {
        let mut number = || {
            if few {
                random.pick(&[0.0, -0.0, 0.25, 1.0, 3.0])
            } else {
                random.unit()
            }
        };
        (0..len).map(|_| T::from_f64(number())).collect()
    };
    let mut all = Vec::new();
    for few in [false, true] {
        all.push(Weights::of_columns(numbers(columns, few)));
        let mut term = || (Some(numbers(rows, few)), numbers(columns, few));
        all.push(Weights::new(vec![term()]));
        all.push(Weights::new(vec![term(), term()]));
        all.push(Weights::new(vec![term(), term(), term()]));
        let of_columns = (None, numbers(columns, few));
        let of_rows = (Some(numbers(rows, few)), numbers(columns, few));
        all.push(Weights::new(vec![of_columns, of_rows]));
    }
    all
}

/// Scores that are magnitudes times factors are the same whoever multiplies.
fn factors_are_what_code_computes<A: TestElement>() {
    for shape in [(1, 1), (5, 64), (9, 203), (70, 3), (3, 1100)] {
        let w = normal_weights::<A>(shape, 3);
        let some = Mask::from_fn(shape.0, shape.1, |i, j| i != j && (i + 3 * j) % 29 == 0);
        let some = some.expect("a small mask");
        for weights in weights_for::<A::Compute>(shape) {
            for pattern in every_pattern() {
                for protected in [None, Some(&some)] {
                    let pruner = |by| {
                        let pruner = Pruner::new(weights.by(by), pattern);
                        match protected {
                            Some(mask) => pruner.protect(mask.clone()),
                            None => pruner,
                        }
                    };
                    let prune = |by| {
                        let mut left = w.clone();
                        let report = pruner(by).prune(&mut left, &NoStats);
                        let report = report.map(|report| report.pruned());
                        (pruner(by).mask(&w, &NoStats), bits_of(&left), report)
                    };
                    let expected = prune(By::Code { promises: false });
                    assert_eq!(prune(By::Factors), expected, "{pattern}, {shape:?}");
                    let promised = prune(By::Code { promises: true });
                    assert_eq!(promised, expected, "{pattern}, {shape:?}");
                    if protected.is_none() {
                        assert!(expected.0.is_ok(), "{pattern}, {shape:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn factors_are_what_code_computes_whatever_the_type() {
    factors_are_what_code_computes::<f32>();
    factors_are_what_code_computes::<f64>();
    factors_are_what_code_computes::<bf16>();
}

#[test]
fn factors_of_another_number_of_rows_or_columns_are_an_error() {
    let refused = |side, found: usize, expected| {
        let metric = "weights".to_owned();
        Error::FactorCount {
            metric,
            side,
            found,
            expected,
        }
    };
    let ones = |len| vec![1.0_f32; len];
    let fits = (Some(ones(2)), ones(4));
    for pattern in every_pattern() {
        let is_refused = |terms: &[(Option<Vec<f32>>, Vec<f32>)]| {
            let pruner = Pruner::new(Weights::new(terms.to_vec()), pattern);
            refuses(&pruner, &weights(), &NoStats)
        };
        for count in [0, 1, 3, 5, 100] {
            let columns = refused("columns", count, 4);
            assert_eq!(is_refused(&[(None, ones(count))]), columns);
            let wrong = (Some(ones(2)), ones(count));
            assert_eq!(is_refused(std::slice::from_ref(&wrong)), columns);
            assert_eq!(is_refused(&[fits.clone(), wrong]), columns);

            let rows = refused("rows", count, 2);
            let wrong = (Some(ones(count)), ones(4));
            assert_eq!(is_refused(std::slice::from_ref(&wrong)), rows);
            assert_eq!(is_refused(&[fits.clone(), wrong.clone()]), rows);
            assert_eq!(is_refused(&[wrong, fits.clone()]), rows);
            assert_eq!(
                rows.to_string(),
                format!("`weights` gave factors for {count} rows, but the layer has 2")
            );
        }
    }
}

#[test]
fn an_invalid_factor_is_an_error_that_names_a_weight_it_is_for() {
    const SHAPE: (usize, usize) = (5, 70);
    const PLACE: (usize, usize) = (3, 66);
    let with = |len: usize, place: usize, bad: f32| {
        let mut numbers = vec![1.0_f32; len];
        numbers[place] = bad;
        numbers
    };
    for (bad, text) in INVALID {
        let of_column = with(SHAPE.1, PLACE.1, bad);
        let of_row = (Some(with(SHAPE.0, PLACE.0, bad)), vec![1.0; SHAPE.1]);
        let nothing = (Some(vec![0.0; SHAPE.0]), vec![1.0; SHAPE.1]);
        for terms in [
            vec![(None, of_column.clone())],
            vec![(Some(vec![1.0; SHAPE.0]), of_column)],
            vec![of_row.clone()],
            vec![of_row.clone(), nothing.clone()],
            vec![nothing, of_row],
        ] {
            let metric = Weights::new(terms);
            // Of the weights that the factor is for, all but one are zero, and score 0.
            let w = Array2::from_shape_fn(SHAPE, |(row, column)| {
                let other = (row == PLACE.0) != (column == PLACE.1);
                if other { 0.0_f32 } else { 1.0 }
            });
            for pattern in every_pattern() {
                let error = refuses(&Pruner::new(&metric, pattern), &w, &NoStats);
                assert_eq!(
                    error.to_string(),
                    format!(
                        "`weights` scored the weight in row 3, column 66 as {text}; \
                         a score must be finite and not negative"
                    ),
                    "{pattern}"
                );
            }
        }
    }
}

#[test]
fn factors_whose_products_overflow_are_an_error_and_others_are_not() {
    let largest = vec![f32::MAX; 4];
    for pattern in every_pattern() {
        let pruner = |rows| {
            let terms = vec![(Some(vec![rows, rows]), largest.clone())];
            Pruner::new(Weights::new(terms), pattern)
        };
        let error = refuses(&pruner(2.0), &weights(), &NoStats);
        assert!(
            matches!(error, Error::InvalidScore { row: 0, score, .. } if score.is_infinite()),
            "{error:?}"
        );
        // The weights are no larger than 4.
        assert!(pruner(0.25).prune(&mut weights(), &NoStats).is_ok());
    }
}

#[test]
fn a_factor_of_negative_zero_counts_as_zero() {
    let w = Array2::from_shape_fn((6, 70), |(i, j)| 1.0 + ((i * 7 + j) % 5) as f32);
    let zeros = |len: usize, zero: f32| -> Vec<f32> {
        let number = |i| match i % 3 {
            0 => 0.0,
            1 => zero,
            _ => 1.0,
        };
        (0..len).map(number).collect()
    };
    for pattern in every_pattern() {
        let pruned = |zero, with_rows: bool, by| {
            let mut terms = vec![(None, zeros(70, zero))];
            if with_rows {
                terms[0].0 = Some(zeros(6, zero));
                terms.push((Some(zeros(6, zero)), zeros(70, zero)));
            }
            let pruner = Pruner::new(Weights::new(terms).by(by), pattern);
            let mut pruned = w.clone();
            let report = pruner.prune(&mut pruned, &NoStats);
            let report = report.expect("valid scores");
            (report.pruned(), pruned, pruner.mask(&w, &NoStats))
        };
        for with_rows in [false, true] {
            let expected = pruned(0.0, with_rows, By::Code { promises: false });
            for zero in [0.0, -0.0] {
                let found = pruned(zero, with_rows, By::Factors);
                assert_eq!(found, expected, "{pattern}, {zero:?}, rows: {with_rows}");
            }
        }
    }
}
