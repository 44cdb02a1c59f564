//! What calibration gathers as texts flow through a block.

use crate::{
    matrix,
    model::{Config, Observer, Tap},
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use wanda::{ColumnNorms, Gram, ndarray::ArrayRef2, stats::LayerStats};

/// Statistics of what flows into a block's linear layers. Layers that read the same input share
/// them.
#[derive(Debug)]
pub struct InputStats {
    /// `None` where nobody asks for them.
    taps: [Option<LayerStats>; Tap::ALL.len()],
}

impl InputStats {
    /// Of inputs to come, where they are needed: their Gram matrices, or their norms alone.
    #[must_use]
    pub fn new(config: &Config, gram: bool, needs: impl Fn(Tap) -> bool) -> Self {
        let empty = |tap: Tap| match tap.features(config) {
            features if gram => Gram::new(features).into(),
            features => ColumnNorms::new(features).into(),
        };
        Self {
            taps: Tap::ALL.map(|tap| needs(tap).then(|| empty(tap))),
        }
    }

    /// Statistics that were gathered before, in the order of [`Tap::ALL`].
    #[must_use]
    pub fn from_taps(taps: [Option<LayerStats>; Tap::ALL.len()]) -> Self {
        Self { taps }
    }

    /// What the layers that read here saw, if it is known.
    #[must_use]
    pub fn at(&self, tap: Tap) -> Option<&LayerStats> {
        self.taps[tap as usize].as_ref()
    }
}

impl Observer for InputStats {
    fn input(&mut self, tap: Tap, input: &Tensor) -> Result<()> {
        let Some(stats) = &mut self.taps[tap as usize] else {
            return Ok(());
        };
        // All tokens of the batch in one matrix: a Gram matrix takes one large product far faster
        // than many small ones.
        matrix::with_rows(input, |rows| {
            let rows: &ArrayRef2<f32> = &rows;
            stats
                .update(rows)
                .with_context(|| format!("at the input of {}", tap.readers()))
        })
    }
}
