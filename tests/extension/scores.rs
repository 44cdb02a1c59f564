//! Scores as patterns of users read them, and matrices of scores that users bring.

use std::ops::Range;

use wanda::half::f16;
use wanda::ndarray::{Array2, ArrayRef2, ArrayView2, s};
use wanda::{
    ColumnNorms, Element, Error, Mask, NoStats, Pruner, Real, Result, Rows, SparsityPattern, Wanda,
};

use crate::common::layer::of_each_kind;
use crate::metrics::Scored;

/// Prunes nothing, but finds out whether blocks of scores are the scores that are read one by one.
#[derive(Debug)]
struct ReadsBlocks;

impl<T: Real> SparsityPattern<T> for ReadsBlocks {
    fn project(&self, scores: &dyn Rows<T>, _: Range<usize>) -> Result<Mask> {
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
    for pattern in of_each_kind(0.5, (1, 2)) {
        let whole = SparsityPattern::<f32>::project(&pattern, &scores, 0..70).expect("fine scores");
        let view: ArrayView2<'_, f32> = scores.view();
        assert_eq!(
            SparsityPattern::<f32>::project(&pattern, &view, 0..70),
            Ok(whole.clone())
        );
        let pruner = Pruner::new(Scored(f32::abs), pattern);
        assert_eq!(pruner.mask(&scores, &NoStats), Ok(whole));
        assert!(
            matches!(
                SparsityPattern::<f32>::project(&pattern, &Computed, 0..70),
                Err(Error::InvalidScore { column: 69, .. })
            ),
            "{pattern}"
        );
    }
}
