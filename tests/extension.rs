//! Users bring metrics, patterns and updates of their own, through the public interface alone.

mod common;

use std::fmt::Debug;

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, ArrayRef2, ArrayView2, array, s};
use wanda::pattern::project_rows;
use wanda::{
    ActivationStats, ColumnNorms, CsrIndices, Element, Error, ErrorBasis, FileError,
    ImportanceMetric, KeepWeights, LayerCut, LayerReport, Magnitude, Mask, MaskRow, NoStats,
    Pattern, Pruner, Real, RelativeError, Result, RowRule, Rows, Scorer, SparsityPattern,
    UpdateTask, Updated, Wanda, WeightUpdate, prune_layer, validate,
};

use common::layer::gathered;

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

/// Keeps the `keep` highest scores of every row.
#[derive(Debug, Clone, Copy)]
struct KeepOfRow {
    keep: usize,
}

impl<T: Real> SparsityPattern<T> for KeepOfRow {
    fn check(&self, _: usize, columns: usize) -> Result<()> {
        if self.keep > columns {
            return Err(Error::InvalidGroup {
                keep: self.keep,
                of: columns,
            });
        }
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        project_rows(self, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule<T> + '_>> {
        Some(Box::new(*self))
    }
}

impl<T: Real> RowRule<T> for KeepOfRow {
    fn select(&self, scores: &[T], marks: &mut MaskRow<'_>) {
        assert_eq!(marks.columns(), scores.len());
        marks.mark_lowest(0, scores, scores.len() - self.keep);
    }
}

/// A pattern that is a rule for single rows and nothing else.
#[derive(Debug, Clone, Copy)]
struct RowByRow<R>(R);

impl<R: RowRule + Copy + Debug> SparsityPattern for RowByRow<R> {
    fn name(&self) -> String {
        format!("row by row {:?}", self.0)
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        project_rows(&self.0, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
        Some(Box::new(self.0))
    }
}

/// Prunes every weight that scores below a threshold.
#[derive(Debug, Clone, Copy)]
struct Below(f32);

impl RowRule for Below {
    fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
        marks.fill(|column| scores[column] < self.0);
    }
}

/// Prunes the whole columns that have the least sums of scores; decides about the layer at once.
#[derive(Debug, Clone, Copy)]
struct WholeColumns {
    columns: usize,
}

impl<T: Real> SparsityPattern<T> for WholeColumns {
    fn name(&self) -> String {
        format!("{} whole columns", self.columns)
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        let mut sums = vec![0.0; columns];
        let mut buffer = vec![<T as Element>::ZERO; columns];
        for row in 0..rows {
            scores.read(row, 0, &mut buffer)?;
            for (sum, score) in sums.iter_mut().zip(&buffer) {
                *sum += score.as_f64();
            }
        }
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|&a, &b| sums[a].total_cmp(&sums[b]));
        let mut mask = Mask::none(rows, columns)?;
        for &column in order.iter().take(self.columns) {
            for row in 0..rows {
                mask.set(row, column, true)?;
            }
        }
        Ok(mask)
    }
}

/// Prunes nothing, but finds out whether blocks of scores are the scores that are read one by one.
#[derive(Debug)]
struct ReadsBlocks;

impl<T: Real> SparsityPattern<T> for ReadsBlocks {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<T>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        let unread = T::from_f64(-1.0);
        for (row, start, height, width) in [
            (0, 0, rows, columns),
            (1, 3, 4, 64),
            (rows - 1, columns - 1, 1, 1),
            (0, 5, 0, 7),
            (2, columns, 3, 0),
        ] {
            // There is room for a part of another row.
            let mut block = vec![unread; height * width + width / 2];
            scores.read_block(row, start, width, &mut block)?;
            let (read, left) = block.split_at(height * width);
            assert!(left.iter().all(|&score| score == unread));
            for (i, read) in read.chunks(width.max(1)).enumerate() {
                let mut expected = vec![unread; width];
                scores.read(row + i, start, &mut expected)?;
                assert_eq!(read, expected);
            }
        }
        let mut block = vec![unread; 2 * columns];
        for (row, start, width) in [
            (rows - 1, 0, columns),
            (usize::MAX, 0, columns),
            (0, 1, columns),
            (0, usize::MAX, 2),
        ] {
            let error = scores.read_block(row, start, width, &mut block);
            assert!(
                matches!(error, Err(Error::OutOfBounds { .. })),
                "{row}, {start}"
            );
        }
        Mask::none(rows, columns)
    }
}

fn read_blocks<A: Element>(w: &ArrayRef2<A>) {
    let columns = w.ncols();
    let stats =
        ColumnNorms::from_mean_squares(&(0..columns).map(|j| j as f32).collect::<Vec<_>>(), 7)
            .expect("finite");
    let pruner = Pruner::new(Wanda, ReadsBlocks);
    pruner.mask(w, &stats).expect("equal scores");
    let some = Mask::from_fn(w.nrows(), columns, |row, column| (row + column) % 3 == 0);
    let protecting = pruner.protect(some.expect("a small mask"));
    protecting.mask(w, &stats).expect("equal scores");
}

#[test]
fn blocks_of_scores_are_the_scores_of_their_rows() {
    let w = Array2::from_shape_fn((11, 150), |(i, j)| 50.0 - (i * 150 + j) as f32 % 101.0);
    read_blocks(&w);
    read_blocks(&w.mapv(f64::from));
    read_blocks(&w.mapv(f16::from_f32));
    read_blocks(&w.slice(s![1..;2, 10..140]));
    read_blocks(&w.t().to_owned().t());
    read_blocks(&w.slice(s![.., ..;-1]));
}

fn weights() -> Array2<f32> {
    array![[4.0, -1.0, 0.5, 3.0], [0.1, 0.4, -0.3, 0.2]]
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

#[test]
fn a_users_row_rule_prunes_rows() {
    let mut w = weights();
    let pruner = Pruner::new(Magnitude, KeepOfRow { keep: 1 });
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[4.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0]]);
    assert_eq!(report.pruned(), 6);
    assert_eq!(validate(&w, &KeepOfRow { keep: 1 }), Ok(()));

    let mut w = weights();
    let pruner = Pruner::new(Magnitude, RowByRow(Below(0.45)));
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[4.0, -1.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0]]);
    assert_eq!(report.pruned(), 4);
}

/// Prunes the lowest half of every row, and says so.
#[derive(Debug, Clone, Copy)]
struct LowestHalf;

impl RowRule for LowestHalf {
    fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
        marks.mark_lowest(0, scores, scores.len() / 2);
    }

    fn lowest(&self, columns: usize) -> Option<usize> {
        Some(columns / 2)
    }
}

#[test]
fn a_users_rule_of_the_lowest_prunes_what_it_selects() {
    for columns in [0, 1, 2, 63, 300, 1024, 2500] {
        let dense = Array2::from_shape_fn((3, columns), |(i, j)| ((i + j * 7919) % 1009) as f32);
        let pruner = Pruner::new(Magnitude, RowByRow(LowestHalf));
        let mask = pruner.mask(&dense, &NoStats).expect("a mask");
        let mut expected = dense.clone();
        mask.apply(&mut expected).expect("the same shape");
        let mut w = dense;
        let report = pruner.prune(&mut w, &NoStats).expect("finite weights");
        assert_eq!(report.pruned(), 3 * (columns / 2));
        assert_eq!(w, expected);
    }
}

#[test]
fn a_users_row_rule_does_the_same_with_and_without_a_promise_of_valid_scores() {
    let stats = gathered(&array![[1.0_f32, 1.0, 1.0, 1.0]]);
    let mut checked = weights();
    let mut promised = weights();
    let rule = KeepOfRow { keep: 2 };
    let pruner = Pruner::new(Scored(f32::abs), rule);
    let checked_report = pruner.prune(&mut checked, &stats).expect("a fine layer");
    let promised_report = prune_layer(&mut promised, &stats, rule).expect("a fine layer");
    assert_eq!(checked, promised);
    assert_eq!(checked_report.pruned(), promised_report.pruned());
    assert_eq!(
        checked_report.relative_error(),
        promised_report.relative_error()
    );
}

#[test]
fn a_users_pattern_decides_a_whole_layer() {
    let mut w = weights().mapv(bf16::from_f32);
    let pattern = WholeColumns { columns: 2 };
    let stats = gathered(&array![[1.0_f32, 1.0, 100.0, 1.0]]);
    let report = prune_layer(&mut w, &stats, pattern).expect("a fine layer");
    assert_eq!(report.pruned(), 4);
    let zero = w.mapv(|w| w.to_f32() == 0.0);
    assert_eq!(
        zero,
        array![[false, true, false, true], [false, true, false, true]]
    );
    assert_eq!(validate(&w, &pattern), Ok(()));
    w[[1, 3]] = bf16::ONE;
    let error = validate(&w, &pattern).expect_err("a weight too many");
    assert!(
        error
            .to_string()
            .starts_with("the matrix is not 2 whole columns: "),
        "{error}"
    );
}

#[test]
fn a_users_pattern_spares_protected_weights_or_is_refused() {
    let protected = Mask::from_fn(2, 4, |row, column| (row, column) == (1, 0)).expect("a mask");
    let mask = Pruner::new(Magnitude, KeepOfRow { keep: 1 })
        .protect(protected.clone())
        .mask(&weights(), &NoStats)
        .expect("enough others");
    let kept: Vec<_> = mask.complement().iter().collect();
    assert_eq!(kept, [(0, 0), (1, 0)]);

    let error = Pruner::new(Magnitude, KeepOfRow { keep: 0 })
        .protect(protected.clone())
        .mask(&weights(), &NoStats)
        .expect_err("nothing may stay");
    assert!(matches!(
        error,
        Error::TooManyProtected {
            row: 1,
            column: 0,
            ..
        }
    ));

    // Its sum of scores is infinite, so the column of a protected weight goes last.
    let mask = Pruner::new(Magnitude, WholeColumns { columns: 3 })
        .protect(protected)
        .mask(&weights(), &NoStats)
        .expect("enough others");
    assert_eq!(
        mask.complement().iter().collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );
}

#[test]
fn what_a_users_pattern_finds_wrong_leaves_the_weights_alone() {
    let mut w = weights();
    let error = Pruner::new(Magnitude, KeepOfRow { keep: 5 }).prune(&mut w, &NoStats);
    assert_eq!(error, Err(Error::InvalidGroup { keep: 5, of: 4 }));
    assert_eq!(w, weights());
}

/// A pattern whose mask does not have the shape of the layer.
#[derive(Debug)]
struct WrongShape;

impl SparsityPattern for WrongShape {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        let (rows, columns) = scores.dim();
        Mask::none(columns, rows)
    }
}

#[test]
fn a_users_pattern_that_returns_another_shape_is_an_error() {
    let mut w = weights();
    let expected = Error::MaskShape {
        expected: (2, 4),
        found: (4, 2),
    };
    let pruner = Pruner::new(Magnitude, WrongShape);
    assert_eq!(pruner.mask(&w, &NoStats), Err(expected.clone()));
    assert_eq!(pruner.prune(&mut w, &NoStats), Err(expected.clone()));
    assert_eq!(w, weights());
    assert_eq!(validate(&w, &WrongShape), Err(expected));
}

/// A score by any function of the weight.
#[derive(Clone, Copy)]
struct Scored<F>(F);

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

const PATTERNS: [Pattern; 7] = [
    Pattern::PerOutput(0.5),
    Pattern::PerLayer(0.5),
    Pattern::PerInput(0.5),
    Pattern::NOfM { keep: 2, of: 4 },
    Pattern::Block {
        rows: 1,
        cols: 2,
        sparsity: 0.5,
    },
    Pattern::Cumulative(0.5),
    Pattern::Threshold(0.5),
];

#[test]
fn a_score_that_is_negative_or_no_number_is_an_error_that_names_its_place() {
    for (bad, text) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
        (-1.0, "-1"),
    ] {
        for pattern in PATTERNS {
            let pruner = Pruner::new(
                Scored(move |w: f32| {
                    if w.to_bits() == 0.4_f32.to_bits() {
                        bad
                    } else {
                        w.abs()
                    }
                }),
                pattern,
            );
            let mut w = weights();
            let error = pruner
                .prune(&mut w, &NoStats)
                .expect_err("an invalid score");
            assert_eq!(w, weights(), "{error}");
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
        for pattern in PATTERNS {
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
    let expected = Pruner::new(Wanda, Pattern::PerOutput(0.5)).mask(&weights(), &stats);
    assert!(expected.is_ok());

    let metric: &dyn ImportanceMetric = &Wanda;
    let pattern: &dyn SparsityPattern = &Pattern::PerOutput(0.5);
    let pruner = Pruner::new(metric, pattern);
    assert_eq!(pruner.mask(&weights(), &stats), expected);
    let mut w = weights();
    let report = pruner.prune(&mut w, &stats).expect("a fine layer");
    assert_eq!(report.pruned(), 4);
    assert_eq!(validate(&w, pattern), Ok(()));

    let boxed: Box<dyn ImportanceMetric> = Box::new(Wanda);
    let pattern: Box<dyn SparsityPattern> = Box::new(Pattern::PerOutput(0.5));
    assert!(pattern.row_rule().is_some());
    assert_eq!(
        Pruner::new(boxed, pattern).mask(&weights(), &stats),
        expected
    );
    let metrics: Vec<Box<dyn ImportanceMetric<f64>>> =
        vec![Box::new(Wanda), Box::new(Magnitude), Box::new(ShareOfRow)];
    let w = weights().mapv(f64::from);
    for metric in &metrics {
        let patterns: [&dyn SparsityPattern<f64>; 3] = [
            &Pattern::PerOutput(0.5),
            &KeepOfRow { keep: 2 },
            &WholeColumns { columns: 2 },
        ];
        for pattern in patterns {
            let mask = Pruner::new(metric, pattern)
                .mask(&w, &stats)
                .expect("a fine layer");
            assert_eq!(mask.count(), 4, "{} {}", metric.name(), pattern.name());
        }
    }
}

#[test]
fn a_reference_to_a_pattern_has_its_row_rule_and_its_validation() {
    let pattern = &&KeepOfRow { keep: 1 };
    assert!(SparsityPattern::<f32>::row_rule(pattern).is_some());
    assert!(SparsityPattern::<f32>::row_rule(&&WholeColumns { columns: 1 }).is_none());
    let w = Array2::<f32>::zeros((3, 3));
    // Validated as the appendix variant is, not as a pattern of its projection.
    assert_eq!(validate(&w, &&Pattern::Cumulative(0.5)), Ok(()));
}

/// Statistics that a user gathered in some other way.
#[derive(Debug)]
struct Foreign {
    sums: Vec<f64>,
    tokens: u64,
}

impl ActivationStats for Foreign {
    fn features(&self) -> usize {
        self.sums.len()
    }

    fn tokens(&self) -> u64 {
        self.tokens
    }

    fn sums_of_squares(&self) -> &[f64] {
        &self.sums
    }
}

#[test]
fn a_users_statistics_do_as_well() {
    let own = gathered(&array![[1.0_f32, 2.0, 30.0, 1.0]]);
    let foreign = Foreign {
        sums: own.sums_of_squares().to_vec(),
        tokens: 1,
    };
    #[cfg(feature = "second-order")]
    assert!(foreign.gram().is_none());
    let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5));
    assert_eq!(
        pruner.mask(&weights(), &foreign),
        pruner.mask(&weights(), &own)
    );
}

#[test]
fn statistics_that_make_no_sense_are_an_error_naming_the_feature() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let stats = Foreign {
            sums: vec![1.0, 1.0, bad, 1.0],
            tokens: 5,
        };
        let mut w = weights();
        let error = prune_layer(&mut w, &stats, Pattern::PerOutput(0.5)).expect_err("no norm");
        assert!(
            matches!(&error, Error::InvalidStatistic { feature: 2, .. }),
            "{error:?}"
        );
        assert_eq!(w, weights());
    }
}

#[test]
fn statistics_that_contradict_themselves_are_no_reason_to_panic() {
    /// Claims more features than it has sums.
    #[derive(Debug)]
    struct Torn(Vec<f64>);

    impl ActivationStats for Torn {
        fn features(&self) -> usize {
            4
        }

        fn tokens(&self) -> u64 {
            1
        }

        fn sums_of_squares(&self) -> &[f64] {
            &self.0
        }
    }

    for sums in [vec![], vec![1.0], vec![1.0; 3], vec![1.0; 5]] {
        let torn = Torn(sums);
        let mut w = weights();
        assert!(prune_layer(&mut w, &torn, Pattern::PerOutput(0.5)).is_err());
        assert_eq!(w, weights());
        let pruner = Pruner::new(Magnitude, Pattern::PerLayer(0.5));
        // Decided or refused, but not a panic.
        let before = pruner.mask(&w, &torn).is_ok();
        assert_eq!(pruner.prune(&mut w, &torn).is_ok(), before);
    }
}

/// A score matrix that is computed as it is read.
struct Computed;

impl Rows<f32> for Computed {
    fn dim(&self) -> (usize, usize) {
        (3, 70)
    }

    fn read(&self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        if row == 2 && start + out.len() > 69 {
            return Err(Error::InvalidScore {
                metric: "computed".to_owned(),
                row,
                column: 69,
                score: f64::NAN,
            });
        }
        for (i, out) in out.iter_mut().enumerate() {
            *out = (row * 70 + start + i) as f32;
        }
        Ok(())
    }
}

#[test]
fn every_pattern_projects_any_score_matrix_and_passes_on_its_errors() {
    let scores = Array2::from_shape_fn((2, 70), |(row, column)| (row * 70 + column) as f32);
    for pattern in PATTERNS {
        let whole = SparsityPattern::<f32>::project(&pattern, &scores).expect("fine scores");
        let view: ArrayView2<'_, f32> = scores.view();
        assert_eq!(
            SparsityPattern::<f32>::project(&pattern, &view),
            Ok(whole.clone())
        );
        let pruner = Pruner::new(Scored(f32::abs), pattern);
        assert_eq!(pruner.mask(&scores, &NoStats), Ok(whole));
        assert!(
            matches!(
                SparsityPattern::<f32>::project(&pattern, &Computed),
                Err(Error::InvalidScore { column: 69, .. })
            ),
            "{pattern}"
        );
    }
}

#[test]
fn public_types_can_be_sent_shared_and_shown() {
    fn sent_shared_and_shown<T: Send + Sync + Debug + ?Sized>() {}
    fn sent_and_shared<T: Send + Sync + ?Sized>() {}

    sent_shared_and_shown::<Mask>();
    sent_shared_and_shown::<MaskRow<'_>>();
    sent_shared_and_shown::<CsrIndices>();
    sent_shared_and_shown::<Pattern>();
    sent_shared_and_shown::<Magnitude>();
    sent_shared_and_shown::<Wanda>();
    sent_shared_and_shown::<NoStats>();
    sent_shared_and_shown::<ColumnNorms>();
    sent_shared_and_shown::<Error>();
    sent_shared_and_shown::<FileError>();
    sent_shared_and_shown::<LayerReport>();
    sent_shared_and_shown::<RelativeError>();
    sent_shared_and_shown::<ErrorBasis>();
    sent_shared_and_shown::<Pruner<Wanda, Pattern>>();
    sent_shared_and_shown::<dyn ImportanceMetric>();
    sent_shared_and_shown::<dyn ImportanceMetric<f64>>();
    sent_shared_and_shown::<dyn SparsityPattern>();
    sent_shared_and_shown::<dyn SparsityPattern<f64>>();
    sent_shared_and_shown::<dyn ActivationStats>();
    sent_shared_and_shown::<dyn WeightUpdate>();
    sent_shared_and_shown::<dyn WeightUpdate<f64>>();
    sent_shared_and_shown::<KeepWeights>();
    sent_shared_and_shown::<UpdateTask<'_, f32>>();
    sent_shared_and_shown::<Updated<f32>>();
    sent_shared_and_shown::<LayerCut<f32>>();
    #[cfg(feature = "safetensors")]
    {
        use wanda::stats::file::{Checkpoint, StatsFile, StatsWriter};
        sent_shared_and_shown::<StatsFile>();
        sent_shared_and_shown::<StatsWriter>();
        sent_shared_and_shown::<Checkpoint>();
    }
    #[cfg(feature = "second-order")]
    {
        sent_shared_and_shown::<wanda::Gram>();
        sent_shared_and_shown::<wanda::stats::LayerStats>();
        sent_shared_and_shown::<wanda::Obs>();
        sent_shared_and_shown::<wanda::ObsSweep>();
        sent_shared_and_shown::<wanda::Backend>();
    }
    sent_and_shared::<dyn Scorer>();
    sent_and_shared::<dyn RowRule>();
    sent_and_shared::<dyn Rows<f32>>();
}

#[test]
fn errors_are_errors_for_others_too() {
    let error: Box<dyn std::error::Error + Send + Sync> =
        Box::new("x".parse::<Pattern>().expect_err("no pattern"));
    assert!(error.downcast_ref::<Error>().is_some());
}

/// Halves what stays and prunes the first weight of every row, with the metric and the pattern
/// looked at as little as an update may.
#[derive(Debug, Clone, Copy)]
struct Halve {
    /// What is claimed about a layer of other dimensions.
    dim: Option<(usize, usize)>,
    /// What the first weight of the last row becomes.
    last: Option<f32>,
}

impl WeightUpdate for Halve {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = self.dim.unwrap_or(task.weights.dim());
        let mut removed = Array2::zeros((rows, columns));
        if self.dim.is_none() {
            for (row, mut removed) in removed.rows_mut().into_iter().enumerate() {
                let mut weights = vec![0.0; columns];
                task.weights.read(row, 0, &mut weights)?;
                for (column, (removed, weight)) in removed.iter_mut().zip(weights).enumerate() {
                    *removed = if column == 0 { weight } else { weight / 2.0 };
                }
            }
            if let Some(last) = self.last {
                removed[[rows - 1, 0]] -= last;
            }
        }
        let mask = Mask::from_fn(rows, columns, |_, column| column == 0)?;
        let mut updated = Updated::new(removed, mask);
        updated.relative_error = RelativeError::new(1.0, 8.0, ErrorBasis::InputNorms);
        Ok(Some(updated))
    }
}

impl Halve {
    const PLAIN: Self = Self {
        dim: None,
        last: None,
    };
}

#[test]
fn a_users_update_decides_and_changes_what_stays() {
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.25)).update(Halve::PLAIN);
    let mut w = weights();
    let expected = Mask::from_fn(2, 4, |_, column| column == 0);
    assert_eq!(pruner.mask(&w, &NoStats), expected);
    let report = pruner.prune(&mut w, &NoStats).expect("a fine layer");
    assert_eq!(w, array![[0.0, -0.5, 0.25, 1.5], [0.0, 0.2, -0.15, 0.1]]);
    assert_eq!((report.pruned(), report.zeros()), (2, 2));
    assert_eq!(report.damping(), None);
    let error = report.relative_error().expect("what the update says");
    assert_eq!(error.value().to_bits(), 0.125_f64.to_bits());
    assert_eq!(error.basis(), ErrorBasis::InputNorms);

    // Weights of another type are changed as the type they are computed in.
    let mut half = weights().mapv(bf16::from_f32);
    let report = pruner.prune(&mut half, &NoStats).expect("a fine layer");
    assert_eq!(report.pruned(), 2);
    assert_eq!(
        half,
        w.mapv(|w| if w == 0.0 {
            bf16::ZERO
        } else {
            bf16::from_f32(w)
        })
    );
}

#[test]
fn updates_work_behind_references_and_boxes() {
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.25));
    let mut expected = weights();
    let report = pruner.clone().update(Halve::PLAIN);
    let report = report.prune(&mut expected, &NoStats).expect("a fine layer");
    let update: &dyn WeightUpdate = &Halve::PLAIN;
    let boxed: Box<dyn WeightUpdate> = Box::new(Halve::PLAIN);
    let (mut by_reference, mut by_box) = (weights(), weights());
    for again in [
        pruner
            .clone()
            .update(update)
            .prune(&mut by_reference, &NoStats),
        pruner.update(boxed).prune(&mut by_box, &NoStats),
    ] {
        let again = again.expect("a fine layer");
        assert_eq!(again.pruned(), report.pruned());
        assert_eq!(again.relative_error(), report.relative_error());
    }
    assert_eq!((&by_reference, &by_box), (&expected, &expected));
}

#[test]
fn a_users_update_may_leave_it_to_the_pattern() {
    /// Looks at the layer and then does nothing.
    #[derive(Debug)]
    struct Idle;

    impl<T: Real> WeightUpdate<T> for Idle {
        fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
            assert_eq!(task.weights.dim(), (2, 4));
            assert_eq!(task.metric.name(), "magnitude");
            assert_eq!(task.pattern.name(), "0.5");
            Ok(None)
        }
    }

    let plain = Pruner::new(Magnitude, Pattern::PerOutput(0.5));
    let (mut expected, mut w) = (weights(), weights());
    let expected_report = plain.prune(&mut expected, &NoStats).expect("a fine layer");
    for report in [
        plain.clone().update(Idle).prune(&mut w, &NoStats),
        plain
            .clone()
            .update(KeepWeights)
            .prune(&mut weights(), &NoStats),
    ] {
        assert_eq!(
            report.expect("a fine layer").pruned(),
            expected_report.pruned()
        );
    }
    assert_eq!(w, expected);
    assert!(
        plain
            .update(Idle)
            .mask(&weights().mapv(f64::from), &NoStats)
            .is_ok()
    );
}

#[test]
fn a_users_update_of_another_shape_is_an_error() {
    for dim in [(4, 2), (2, 3), (0, 0)] {
        let update = Halve {
            dim: Some(dim),
            ..Halve::PLAIN
        };
        let mut w = weights();
        let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(update);
        let error = pruner.prune(&mut w, &NoStats).expect_err("another shape");
        // The mask has the wrong shape as well.
        assert!(
            matches!(error, Error::MaskShape { expected: (2, 4), found } if found == dim),
            "{error}"
        );
        assert_eq!(w, weights());
    }
}

/// An update whose mask fits and whose weights do not.
#[derive(Debug)]
struct Misfit;

impl WeightUpdate for Misfit {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = task.weights.dim();
        let mask = Mask::none(rows, columns)?;
        Ok(Some(Updated::new(Array2::zeros((columns, rows)), mask)))
    }
}

#[test]
fn what_a_users_update_removes_must_have_the_shape_of_the_layer() {
    let mut w = weights();
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(Misfit);
    let error = pruner.prune(&mut w, &NoStats).expect_err("another shape");
    let expected = Error::UpdateShape {
        weights: (2, 4),
        update: (4, 2),
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the layer is 2 x 4, but its update is 4 x 2"
    );
    assert_eq!(w, weights());
}

#[test]
fn what_a_users_update_leaves_of_pruned_weights_is_refused() {
    for last in [0.5, -2.0] {
        let update = Halve {
            last: Some(last),
            ..Halve::PLAIN
        };
        let mut w = weights();
        let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(update);
        let error = pruner
            .prune(&mut w, &NoStats)
            .expect_err("a weight that stays");
        let Error::NotPruned {
            row: 1,
            column: 0,
            value,
        } = error
        else {
            panic!("{error}");
        };
        assert!((value - f64::from(last)).abs() < 1e-6, "{value}");
        assert_eq!(
            error.to_string(),
            format!(
                "the update pruned the weight in row 1, column 0, but leaves {value}; \
                 it has to remove all of it, so that +0.0 is left"
            )
        );
        assert_eq!(w, weights());
    }
    // Nothing is left of -0.0 less +0.0, but its sign.
    let mut w = array![[-0.0_f32, 1.0]];
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(Misread);
    let error = pruner
        .prune(&mut w, &NoStats)
        .expect_err("a zero with a sign");
    assert!(
        matches!(
            error,
            Error::NotPruned {
                row: 0,
                column: 0,
                ..
            }
        ),
        "{error}"
    );
}

/// An update that takes nothing away from the weights of the first column, and says it pruned them.
#[derive(Debug)]
struct Misread;

impl WeightUpdate for Misread {
    fn run(&self, task: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
        let (rows, columns) = task.weights.dim();
        let mask = Mask::from_fn(rows, columns, |_, column| column == 0)?;
        Ok(Some(Updated::new(Array2::zeros((rows, columns)), mask)))
    }
}

#[test]
fn a_relative_error_is_a_number_or_none() {
    let basis = ErrorBasis::Gram;
    let value = |lost, total| RelativeError::new(lost, total, basis).map(|error| error.value());
    assert_eq!(value(1.0, 4.0), Some(0.25));
    assert_eq!(value(-1e-20, 4.0), Some(0.0));
    for (lost, total) in [
        (0.0, 0.0),
        (1.0, -1.0),
        (f64::NAN, 1.0),
        (1.0, f64::NAN),
        (f64::INFINITY, f64::INFINITY),
        (1e300, 1e-300),
    ] {
        assert_eq!(value(lost, total), None, "{lost} of {total}");
    }
}

#[test]
fn weights_that_a_users_update_makes_too_large_are_named() {
    for (last, text) in [
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
        (f32::NAN, "NaN"),
    ] {
        let update = Halve {
            last: Some(last),
            ..Halve::PLAIN
        };
        let mut w = weights();
        let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(update);
        let error = pruner.prune(&mut w, &NoStats).expect_err("no weight");
        assert_eq!(
            error.to_string(),
            format!(
                "the updated weight in row 1, column 0 is {text}, \
                 which the type it is stored in cannot hold"
            )
        );
        assert_eq!(w, weights());
    }
    // What `f32` can hold, half precision need not.
    let update = Halve {
        last: Some(1e6),
        ..Halve::PLAIN
    };
    let mut w = weights().mapv(f16::from_f32);
    let error = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
        .update(update)
        .prune(&mut w, &NoStats);
    assert!(
        matches!(
            error,
            Err(Error::Overflow {
                row: 1,
                column: 0,
                ..
            })
        ),
        "{error:?}"
    );
    assert_eq!(w, weights().mapv(f16::from_f32));
}

#[test]
fn a_users_update_must_not_prune_protected_weights() {
    let protected = Mask::from_fn(2, 4, |row, column| (row, column) == (1, 0)).expect("a mask");
    let mut w = weights();
    let error = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
        .protect(protected)
        .update(Halve::PLAIN)
        .prune(&mut w, &NoStats);
    assert!(
        matches!(
            error,
            Err(Error::TooManyProtected {
                row: 1,
                column: 0,
                ..
            })
        ),
        "{error:?}"
    );
    assert_eq!(w, weights());
}

#[test]
fn what_a_users_update_finds_wrong_reaches_the_caller() {
    /// Never satisfied.
    #[derive(Debug)]
    struct Sulking;

    impl WeightUpdate for Sulking {
        fn run(&self, _: &UpdateTask<'_, f32>) -> Result<Option<Updated<f32>>> {
            Err(Error::Custom {
                origin: "sulking".to_owned(),
                reason: "not today".to_owned(),
            })
        }
    }

    let mut w = weights();
    let pruner = Pruner::new(Magnitude, Pattern::PerOutput(0.5)).update(Sulking);
    let error = pruner.prune(&mut w, &NoStats).expect_err("an error");
    assert_eq!(error.to_string(), "sulking: not today");
    assert_eq!(pruner.mask(&w, &NoStats), Err(error));
    assert_eq!(w, weights());
    // There is nothing to sulk about where there is nothing.
    let mut nothing = Array2::<f32>::zeros((0, 4));
    assert!(pruner.prune(&mut nothing, &NoStats).is_ok());
}

#[cfg(feature = "second-order")]
mod in_a_sweep {
    use std::ops::Range;

    use wanda::{Gram, Obs, ObsSweep};

    use super::*;
    use common::layer::{correlated_inputs, gram_of, normal_weights};

    const ROWS: usize = 11;
    const COLUMNS: usize = 13;

    fn stats() -> Gram {
        gram_of(&correlated_inputs::<f32>((50, COLUMNS), 1))
    }

    /// The mask that a sweep in blocks of four columns gives.
    fn swept(pattern: &dyn SparsityPattern) -> Result<Mask> {
        let w = normal_weights::<f32>((ROWS, COLUMNS), 1);
        Pruner::new(Obs::new(), pattern)
            .update(ObsSweep::new().block_size(4))
            .mask(&w, &stats())
    }

    /// How many weights of every row the mask leaves in each run of `len` columns.
    fn left(mask: &Mask, len: usize) -> Vec<Vec<usize>> {
        let runs: Vec<Range<usize>> = (0..COLUMNS)
            .step_by(len)
            .map(|start| start..COLUMNS.min(start + len))
            .collect();
        let left = |row, run: &Range<usize>| {
            let kept = run
                .clone()
                .filter(|&column| mask.get(row, column) == Some(false));
            kept.count()
        };
        (0..ROWS)
            .map(|row| runs.iter().map(|run| left(row, run)).collect())
            .collect()
    }

    #[test]
    fn the_sweep_works_behind_references_and_boxes() {
        let sweep = |update: &dyn WeightUpdate| {
            let mut w = normal_weights::<f32>((ROWS, COLUMNS), 1);
            let report = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
                .update(update)
                .prune(&mut w, &stats())
                .expect("a fine layer");
            (w, report.pruned(), report.damping())
        };
        let plain = sweep(&ObsSweep::new());
        assert_eq!(plain.1, ROWS * 6);
        let boxed: Box<dyn WeightUpdate> = Box::new(ObsSweep::new());
        assert_eq!(sweep(&boxed), plain);
        assert_eq!(sweep(&&boxed), plain);
    }

    #[test]
    fn a_users_row_rule_decides_the_rows_of_a_block() {
        let mask = swept(&KeepOfRow { keep: 1 }).expect("a fine layer");
        assert_eq!(left(&mask, 4), vec![vec![1; 4]; ROWS]);
    }

    #[test]
    fn a_users_pattern_decides_a_block_like_a_layer() {
        let mask = swept(&WholeColumns { columns: 1 }).expect("a fine layer");
        assert_eq!(mask.count(), 4 * ROWS);
        let columns = (0..COLUMNS).filter(|&column| mask.get(0, column) == Some(true));
        for column in columns {
            assert!((0..ROWS).all(|row| mask.get(row, column) == Some(true)));
        }
    }

    /// Keeps the highest score of every run of columns.
    #[derive(Debug, Clone, Copy)]
    struct BestOf {
        run: usize,
        /// Whether a block is asked to be whole runs.
        whole: bool,
    }

    impl SparsityPattern for BestOf {
        fn check(&self, _: usize, _: usize) -> Result<()> {
            Ok(())
        }

        fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
            project_rows(self, scores)
        }

        fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
            Some(Box::new(*self))
        }

        fn block_columns(&self) -> usize {
            if self.whole { self.run } else { 1 }
        }
    }

    impl RowRule for BestOf {
        fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
            for (i, run) in scores.chunks(self.run).enumerate() {
                marks.mark_lowest(i * self.run, run, run.len() - 1);
            }
        }

        fn group(&self) -> Option<usize> {
            Some(self.run)
        }
    }

    #[test]
    fn a_users_rule_for_groups_decides_every_group() {
        for run in [1, 2, 3, 5, 13, 20] {
            let mask = swept(&BestOf { run, whole: true }).expect("a fine layer");
            let runs = COLUMNS.div_ceil(run);
            assert_eq!(left(&mask, run), vec![vec![1; runs]; ROWS], "{run}");
        }
    }

    /// Runs are counted from column 0, so it is for the sweep to see that blocks are whole runs.
    #[test]
    fn a_users_rule_for_groups_need_not_ask_for_whole_groups() {
        for run in [3, 5] {
            let mask = swept(&BestOf { run, whole: false }).expect("a fine layer");
            let runs = COLUMNS.div_ceil(run);
            assert_eq!(left(&mask, run), vec![vec![1; runs]; ROWS], "{run}");
        }
    }

    /// Says of its blocks or groups that they have no columns.
    #[derive(Debug, Clone, Copy)]
    struct NoColumns {
        block: usize,
        group: Option<usize>,
    }

    impl SparsityPattern for NoColumns {
        fn check(&self, _: usize, _: usize) -> Result<()> {
            Ok(())
        }

        fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
            project_rows(self, scores)
        }

        fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
            Some(Box::new(*self))
        }

        fn block_columns(&self) -> usize {
            self.block
        }
    }

    impl RowRule for NoColumns {
        fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
            marks.mark_lowest(0, scores, scores.len() / 2);
        }

        fn group(&self) -> Option<usize> {
            self.group
        }
    }

    #[test]
    fn blocks_and_groups_of_no_columns_are_no_reason_to_panic() {
        for (block, group) in [(1, Some(0)), (0, None), (0, Some(0))] {
            // Decided or refused.
            match swept(&NoColumns { block, group }) {
                Ok(mask) => assert_eq!(mask.dim(), (ROWS, COLUMNS)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// Patterns and metrics of users that say enough of themselves to be decided while they are scored
/// give what they give without.
mod in_passing {
    use std::cmp::Ordering;

    use super::*;

    const ROWS: usize = 9;
    const COLUMNS: usize = 203;

    /// Weights of which many are equal.
    fn weights() -> Array2<f32> {
        Array2::from_shape_fn((ROWS, COLUMNS), |(row, column)| {
            let size = ((row * 31 + column * 17) % 23) as f32;
            if column % 3 == 0 { -size } else { size }
        })
    }

    /// What pruning makes of the weights, and of the same with a mask decided beforehand.
    fn pruned_and_masked(
        metric: &dyn ImportanceMetric,
        pattern: &dyn SparsityPattern,
    ) -> (Array2<f32>, Array2<f32>) {
        let pruner = Pruner::new(metric, pattern);
        let mask = pruner.mask(&weights(), &NoStats).expect("a fine layer");
        let masked = Array2::from_shape_fn((ROWS, COLUMNS), |(row, column)| {
            if mask.get(row, column) == Some(true) {
                0.0
            } else {
                weights()[[row, column]]
            }
        });
        let mut at_once = weights();
        let report = pruner.prune(&mut at_once, &NoStats).expect("a fine layer");
        assert_eq!(report.pruned(), mask.count());
        (at_once, masked)
    }

    /// Prunes the lowest of every group, all but one, and says so.
    #[derive(Debug, Clone, Copy)]
    struct BestOf(usize);

    impl RowRule for BestOf {
        fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
            for (i, run) in scores.chunks(self.0.max(1)).enumerate() {
                marks.mark_lowest(i * self.0, run, run.len() - 1);
            }
        }

        fn group(&self) -> Option<usize> {
            Some(self.0)
        }

        fn lowest(&self, columns: usize) -> Option<usize> {
            Some(columns.saturating_sub(1))
        }
    }

    #[test]
    fn groups_that_lose_their_lowest() {
        for size in [1, 2, 3, 4, 8, 16, 32, 64, 150, 300] {
            let (pruned, masked) = pruned_and_masked(&Magnitude, &RowByRow(BestOf(size)));
            assert_eq!(pruned, masked, "{size}");
            assert!(pruned.iter().any(|&w| w != 0.0), "{size}");
        }
    }

    #[test]
    fn groups_of_no_columns_are_no_reason_to_panic() {
        let pruner = Pruner::new(Magnitude, RowByRow(BestOf(0)));
        assert!(pruner.prune(&mut weights(), &NoStats).is_ok());
    }

    /// The magnitude times a factor, which it tells of, or of a few of them only.
    #[derive(Debug, Clone, Copy)]
    struct Weighted {
        told: usize,
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
            let all = pruned_and_masked(&Weighted { told: COLUMNS }, &pattern);
            assert_eq!(all.0, all.1, "{pattern}");
            for told in [0, 1, 100] {
                let some = pruned_and_masked(&Weighted { told }, &pattern);
                assert_eq!(some, all, "{pattern}, {told}");
            }
        }
    }

    /// Prunes up to a place that is known beforehand.
    #[derive(Debug, Clone, Copy)]
    struct UpTo(LayerCut<f32>);

    impl SparsityPattern for UpTo {
        fn check(&self, _: usize, _: usize) -> Result<()> {
            Ok(())
        }

        fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
            let (rows, columns) = scores.dim();
            let mut all = Array2::zeros((rows, columns));
            for (row, mut scored) in all.rows_mut().into_iter().enumerate() {
                scores.read(row, 0, scored.as_slice_mut().expect("a run"))?;
            }
            let (edge_row, edge) = self.0.ties_before;
            Mask::from_fn(rows, columns, |row, column| {
                let comes_before = (column, row) < (edge, edge_row);
                match all[[row, column]].partial_cmp(&self.0.threshold) {
                    Some(Ordering::Less) => true,
                    Some(Ordering::Equal) => comes_before,
                    _ => false,
                }
            })
        }

        fn layer_cut(&self, _: &dyn Rows<f32>) -> Result<Option<LayerCut<f32>>> {
            Ok(Some(self.0))
        }
    }

    #[test]
    fn layers_are_cut_at_any_place() {
        for threshold in [-1.0, 0.0, 7.0, 7.5, 100.0, f32::INFINITY, f32::NAN] {
            for ties_before in [
                (0, 0),
                (3, 0),
                (4, 64),
                (0, 65),
                (ROWS, 202),
                (0, COLUMNS),
                (usize::MAX, usize::MAX),
            ] {
                let cut = LayerCut {
                    threshold,
                    ties_before,
                };
                for metric in [&Magnitude as &dyn ImportanceMetric, &Weighted { told: 0 }] {
                    let (pruned, masked) = pruned_and_masked(metric, &UpTo(cut));
                    assert_eq!(pruned, masked, "{cut:?}");
                }
            }
        }
    }
}
