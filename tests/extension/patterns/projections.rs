//! Patterns that are asked directly, as an update of a user asks them: about blocks that do not fit,
//! and about scores that are too many or change their shape.

use wanda::ndarray::Array2;
use wanda::{
    Error, ImportanceMetric, Magnitude, Mask, MaskRow, NoStats, Pattern, Pruner, Result, RowRule,
    Rows, SparsityPattern, Wanda, project_rows,
};

use crate::common::layer::{gathered, of_each_kind, ones};

/// Calls `mark_lowest` in ways that do not fit the row.
#[derive(Debug)]
struct Careless {
    start: usize,
    scores: usize,
    count: usize,
}

impl SparsityPattern for Careless {
    fn check(&self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn project(&self, scores: &dyn Rows<f32>) -> Result<Mask> {
        project_rows(self, scores)
    }

    fn row_rule(&self) -> Option<Box<dyn RowRule + '_>> {
        Some(Box::new(Self { ..*self }))
    }
}

impl RowRule for Careless {
    fn select(&self, _: &[f32], marks: &mut MaskRow<'_>) {
        let scores: Vec<f32> = (0..self.scores).map(|i| i as f32).collect();
        marks.mark_lowest(self.start, &scores, self.count);
    }
}

#[test]
fn marking_past_the_end_of_a_row_marks_what_is_there() {
    for columns in [1, 63, 64, 65, 130] {
        for start in [
            0,
            1,
            62,
            63,
            64,
            65,
            129,
            130,
            131,
            usize::MAX - 1,
            usize::MAX,
        ] {
            for scores in [0, 1, 2, 64, 200] {
                for count in [0, 1, 3, 64, 1000, usize::MAX] {
                    let pattern = Careless {
                        start,
                        scores,
                        count,
                    };
                    let mask = Pruner::new(Magnitude, pattern)
                        .mask(&ones(2, columns), &NoStats)
                        .expect("finite weights");
                    let there = columns.saturating_sub(start).min(scores);
                    // The scores ascend, so that the lowest are the first.
                    let marked = there.min(count);
                    let expected = Mask::from_fn(2, columns, |_, column| {
                        column >= start && column - start < marked
                    });
                    assert_eq!(
                        Ok(mask),
                        expected,
                        "{columns} columns, {start}, {scores}, {count}"
                    );
                }
            }
        }
    }
}

/// Zeros of any shape, of which there need be no memory.
struct Endless {
    dim: (usize, usize),
}

impl Rows<f32> for Endless {
    fn dim(&self) -> (usize, usize) {
        self.dim
    }

    fn read(&self, _: usize, _: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
}

#[test]
fn a_layer_with_more_weights_than_numbers_can_count_is_too_large() {
    let (rows, columns) = (usize::MAX, 2);
    let scores = Endless {
        dim: (rows, columns),
    };
    for pattern in of_each_kind(0.5, (3, 2)) {
        let expected = Err(Error::TooLarge { rows, columns });
        let found = pattern.project(&scores).map(|_| ());
        assert_eq!(found, expected, "{pattern}");
        let found = pattern.project_block(&scores, 0..2, 2).map(|_| ());
        assert_eq!(found, expected, "{pattern}");
        let cut = SparsityPattern::<f32>::layer_cut(&pattern, &scores).map(|_| ());
        assert_eq!(cut, expected, "{pattern}");
    }
}

#[test]
fn a_block_that_scores_are_not_of_is_refused() {
    let scores = Array2::<f32>::ones((3, 2));
    let mut patterns: Vec<Box<dyn SparsityPattern>> = vec![Box::new(
        Mask::none(3, 1000).expect("there is memory for a mask"),
    )];
    for pattern in of_each_kind(0.5, (3, 2)) {
        patterns.push(Box::new(pattern));
    }
    #[allow(
        clippy::reversed_empty_ranges,
        reason = "that is one of those to be refused"
    )]
    for block in [
        0..1000,
        5..2,
        999..1001,
        0..1,
        0..0,
        usize::MAX - 1..usize::MAX,
    ] {
        for pattern in &patterns {
            let found = pattern.project_block(&scores, block.clone(), 1000);
            let expected = Error::BlockShape {
                start: block.start,
                end: block.end,
                columns: 1000,
                scores: 2,
            };
            assert_eq!(found.map(|_| ()), Err(expected), "{}", pattern.name());
        }
    }
}

#[test]
fn parameters_are_checked_wherever_a_pattern_is_asked() {
    let scores = Array2::<f32>::ones((3, 2));
    let mut patterns: Vec<Pattern> = [2.0, 1.0, -0.5, f64::NAN]
        .into_iter()
        .flat_map(|sparsity| of_each_kind(sparsity, (3, 2)))
        .filter(|pattern| !matches!(pattern, Pattern::NOfM { .. }))
        .collect();
    patterns.push(Pattern::NOfM { keep: 0, of: 0 });
    patterns.push(Pattern::NOfM { keep: 5, of: 4 });
    for (rows, cols) in [(0, 1), (1, 0)] {
        patterns.push(Pattern::Block {
            rows,
            cols,
            sparsity: 0.5,
        });
    }
    for pattern in patterns {
        assert!(pattern.project(&scores).is_err(), "{pattern}");
        assert!(
            pattern.project_block(&scores, 0..2, 2).is_err(),
            "{pattern}"
        );
        assert!(
            SparsityPattern::<f32>::layer_cut(&pattern, &scores).is_err(),
            "{pattern}"
        );
        // A rule has no errors: it may do as it likes, but ends.
        if let Some(rule) = SparsityPattern::<f32>::row_rule(&pattern) {
            let projected = project_rows(&*rule, &Array2::<f32>::ones((1, 6)));
            assert_eq!(projected.expect("a mask").dim(), (1, 6), "{pattern}");
        }
    }
}

/// Scores whose shape is another one whenever it is asked for.
#[derive(Default)]
struct Shifting {
    asked: std::sync::atomic::AtomicUsize,
}

impl Rows<f32> for Shifting {
    fn dim(&self) -> (usize, usize) {
        let asked = self
            .asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        [(130, 70), (3, 200), (500, 2), (0, 0)][asked % 4]
    }

    fn read(&self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        for (i, out) in out.iter_mut().enumerate() {
            *out = ((row * 7 + (start + i) * 13) % 31) as f32;
        }
        Ok(())
    }
}

#[test]
fn a_layer_that_changes_its_shape_is_no_reason_to_panic() {
    for pattern in of_each_kind(0.5, (3, 2)) {
        let mask = pattern.project(&Shifting::default()).expect("a mask");
        assert_eq!(mask.dim(), (130, 70), "{pattern}");
        let block = pattern.project_block(&Shifting::default(), 70..140, 200);
        assert_eq!(block.expect("a mask").dim(), (130, 70), "{pattern}");
        let cut = SparsityPattern::<f32>::layer_cut(&pattern, &Shifting::default());
        assert!(cut.is_ok(), "{pattern}");
    }
}

#[test]
fn rules_and_scorers_that_are_given_runs_of_wrong_lengths_do_not_panic() {
    /// A rule of this crate, asked about more scores than there are marks.
    struct TooMany<'a>(Box<dyn RowRule + 'a>);

    impl RowRule for TooMany<'_> {
        fn select(&self, scores: &[f32], marks: &mut MaskRow<'_>) {
            self.0.select(&scores.repeat(3), marks);
        }
    }

    let scores = Array2::<f32>::ones((2, 70));
    for pattern in [
        Pattern::PerOutput(0.5),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::NOfM { keep: 1, of: 200 },
    ] {
        let rule = SparsityPattern::<f32>::row_rule(&pattern).expect("a rule of rows");
        let mask = project_rows(&TooMany(rule), &scores).expect("a mask");
        assert_eq!(mask.dim(), (2, 70), "{pattern}");
    }
    let stats = gathered(&Array2::<f32>::ones((1, 70)));
    for metric in [&Magnitude as &dyn ImportanceMetric, &Wanda] {
        let prepared = metric.prepare(&scores, &stats).expect("a scorer");
        for (start, weights, len) in [
            (0, 5, 3),
            (0, 3, 5),
            (69, 3, 3),
            (70, 1, 1),
            (usize::MAX, 1, 1),
        ] {
            prepared.score(0, start, &vec![1.0; weights], &mut vec![0.0; len]);
        }
    }
}
