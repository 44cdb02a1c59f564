//! Patterns that are asked directly, as an update of a user asks them: about blocks that do not fit,
//! and about scores that are too many or change their shape.

use wanda::ndarray::Array2;
use wanda::pattern::mark_rows;
use wanda::{
    Context, Error, ImportanceMetric, Magnitude, Mask, NoStats, Pattern, Pruner, Result, Rows,
    Scoring, SparsityPattern, Wanda,
};

use super::row_by_row;
use crate::common::layer::{gathered, of_each_kind, ones};
use crate::metrics::{Scored, Weighted};

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
                    let pattern = row_by_row(move |_, marks| {
                        let scores: Vec<f32> = (0..scores).map(|i| i as f32).collect();
                        marks.mark_lowest(start, &scores, count);
                    });
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
        let found = pattern.project(&scores, 0..2).map(|_| ());
        assert_eq!(found, expected, "{pattern}");
        let found = pattern.project(&scores, 2..4).map(|_| ());
        assert!(matches!(found, Err(Error::TooLarge { .. })), "{pattern}");
    }
    let found = mark_rows(&scores, |_, _, _| ()).map(|_| ());
    assert_eq!(found, Err(Error::TooLarge { rows, columns }));
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
        999..1002,
        0..1,
        0..0,
        usize::MAX - 1..usize::MAX,
    ] {
        for pattern in &patterns {
            let found = pattern.project(&scores, block.clone());
            let expected = Error::BlockShape {
                start: block.start,
                end: block.end,
                scores: 2,
            };
            assert_eq!(found.map(|_| ()), Err(expected), "{}", pattern.name());
        }
    }
    // A mask knows how many columns there are.
    let found = patterns[0].project(&scores, 999..1001);
    let expected = Error::MaskShape {
        expected: (3, 1001),
        found: (3, 1000),
    };
    assert_eq!(found, Err(expected));
    for pattern in &patterns {
        // Decided or refused.
        if let Ok(mask) = pattern.project(&scores, usize::MAX - 2..usize::MAX) {
            assert_eq!(mask.dim(), (3, 2), "{}", pattern.name());
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
        assert!(pattern.project(&scores, 0..2).is_err(), "{pattern}");
        assert!(pattern.project(&scores, 2..4).is_err(), "{pattern}");
        // A count has no errors: it may be any number, but ends.
        for size in [0, 1, 6, usize::MAX] {
            let _ = SparsityPattern::<f32>::count(&pattern, size);
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
        for block in [0..70, 70..140] {
            let mask = pattern.project(&Shifting::default(), block);
            assert_eq!(mask.expect("a mask").dim(), (130, 70), "{pattern}");
        }
    }
    let mask = mark_rows(&Shifting::default(), |_, scores, marks| {
        marks.mark_lowest(0, scores, 3);
    });
    assert_eq!(
        mask.map(|mask| (mask.dim(), mask.count())),
        Ok(((130, 70), 390))
    );
}

#[test]
fn more_scores_than_a_row_has_columns_are_no_reason_to_panic() {
    let scores = Array2::<f32>::ones((2, 70));
    for count in [0, 35, 70, 105, 210, usize::MAX] {
        let mask = mark_rows(&scores, |_, scores, marks| {
            marks.mark_lowest(0, &scores.repeat(3), count);
        });
        let mask = mask.expect("a mask");
        assert_eq!((mask.dim(), mask.count()), ((2, 70), 2 * count.min(70)));
    }
}

#[test]
fn scores_of_weights_that_are_not_there_are_an_error() {
    let w = ones(2, 70);
    let stats = gathered(&ones(1, 70));
    let context = Context::new(&stats, 1.0);
    let everywhere = Mask::from_fn(2, 70, |_, _| true).expect("a small mask");
    let metrics: [(&dyn ImportanceMetric, bool); 4] = [
        (&Magnitude, true),
        (&Wanda, true),
        (&Weighted::Factors, true),
        // Code does not say how large the layer is.
        (&Scored(f32::abs), false),
    ];
    for (metric, has_factors) in metrics {
        let prepared = metric.prepare(&w, &context).expect("scores");
        let scoring = Scoring::new(metric, &prepared);
        for scoring in [scoring, scoring.protect(Some(&everywhere))] {
            for (start, weights, len) in [(0, 5, 3), (0, 3, 5), (usize::MAX, 1, 1)] {
                let mut scores = vec![0.0; len];
                let found = scoring.score(0, start, &vec![1.0; weights], &mut scores);
                assert!(
                    matches!(found, Err(Error::OutOfBounds { .. })),
                    "{found:?} by {} from {start}",
                    metric.name()
                );
            }
            for (row, start, len) in [(0, 69, 3), (0, 70, 1), (0, usize::MAX - 1, 1)] {
                let mut scores = vec![0.0; len];
                let found = scoring.score(row, start, &vec![1.0; len], &mut scores);
                assert_eq!(
                    found.is_err(),
                    has_factors,
                    "{} from {start}",
                    metric.name()
                );
            }
            assert_eq!(scoring.score(1, 69, &[1.0], &mut [0.0]), Ok(()));
            for start in [1, 69, 70, usize::MAX - 1, usize::MAX] {
                let scores = scoring.of(&w, start);
                let found = scores.read(0, 0, &mut [0.0; 70]);
                assert_eq!(
                    found.is_err(),
                    has_factors || start > usize::MAX - 70,
                    "{} from {start}",
                    metric.name()
                );
                assert!(scores.read_block(0, 69, 2, &mut [0.0; 4]).is_err());
            }
            assert_eq!(scoring.of(&w, 0).read(1, 0, &mut [0.0; 70]), Ok(()));
        }
    }
}
