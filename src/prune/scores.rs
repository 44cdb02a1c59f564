//! The scores of a layer, computed when they are read.

use ndarray::{ArrayRef2, ArrayView1, s};
use num_traits::{Float, Zero};

use crate::element::{Element, Real, widened};
use crate::error::{Error, Result};
use crate::kernels;
use crate::mask::Mask;
use crate::matrix::{Rows, check_bounds, read_one_by_one, stride};
use crate::metric::{Scorer, settle_scores};

/// What a pattern sees of a layer: its scores, of which no copy is held.
pub(super) struct LayerScores<'a, A: Element> {
    pub(super) weights: &'a ArrayRef2<A>,
    pub(super) scorer: &'a dyn Scorer<A::Compute>,
    /// Name of the metric, if its scores have to be checked.
    pub(super) checked_as: Option<&'a str>,
    pub(super) protected: Option<&'a Mask>,
}

impl<A: Element> LayerScores<'_, A> {
    /// The factors of some columns, if magnitudes are multiplied by those.
    fn factors(&self, start: usize, len: usize) -> Option<&[A::Compute]> {
        self.scorer.factors()?.get(start..start + len)
    }

    /// Scores a run of weights, and checks the scores where that is asked for.
    fn score(
        &self,
        row: usize,
        start: usize,
        run: &ArrayView1<'_, A>,
        out: &mut [A::Compute],
    ) -> Result<()> {
        let mut buffer = Vec::new();
        let weights = widened(run, &mut buffer);
        self.scorer.score(row, start, weights, out);
        let Some(metric) = self.checked_as else {
            return Ok(());
        };
        for (score, weight) in out.iter_mut().zip(weights) {
            if weight.is_zero() {
                *score = A::Compute::zero();
            }
        }
        settle_scores(out).map_err(|index| Error::InvalidScore {
            metric: metric.to_owned(),
            row,
            column: start + index,
            score: out[index].as_f64(),
        })
    }

    /// How many weights on those are that will be asked for soon. Patterns read whole rows, in long
    /// runs, or strips of columns.
    fn ahead(&self, len: usize) -> usize {
        if len > 512 {
            2 * len
        } else {
            2048_usize.div_ceil(len.max(1)) * stride(self.weights)
        }
    }
}

impl<A: Element> Rows<A::Compute> for LayerScores<'_, A> {
    fn dim(&self) -> (usize, usize) {
        self.weights.dim()
    }

    fn read(&self, row: usize, start: usize, out: &mut [A::Compute]) -> Result<()> {
        check_bounds(self.weights.dim(), row, start, out.len())?;
        let run = self.weights.slice(s![row, start..start + out.len()]);
        if let Some(run) = run.as_slice() {
            kernels::prefetch_after(run, self.ahead(out.len()));
        }
        match (
            self.checked_as,
            run.as_slice(),
            self.factors(start, out.len()),
        ) {
            (None, Some(run), Some(factors)) => kernels::scaled_abs(run, factors, out),
            _ => self.score(row, start, &run, out)?,
        }
        if let Some(protected) = self.protected {
            for (j, score) in out.iter_mut().enumerate() {
                if protected.get(row, start + j) == Some(true) {
                    *score = A::Compute::infinity();
                }
            }
        }
        Ok(())
    }

    fn read_block(
        &self,
        row: usize,
        start: usize,
        width: usize,
        out: &mut [A::Compute],
    ) -> Result<()> {
        let height = out.len().checked_div(width).unwrap_or(0);
        let Some(below) = height.checked_sub(1) else {
            return Ok(());
        };
        let (_, columns) = self.weights.dim();
        check_bounds(self.weights.dim(), row.saturating_add(below), start, width)?;
        let at_once = self.checked_as.is_none() && self.protected.is_none();
        let weights = self.weights.as_slice().filter(|_| at_once);
        match (weights, self.factors(start, width)) {
            (Some(weights), Some(factors)) => {
                let weights = &weights[row * columns + start..];
                kernels::scaled_abs_of_rows(weights, columns, factors, out);
                Ok(())
            }
            _ => read_one_by_one(self, row, start, width, out),
        }
    }
}
