//! What calibration gathers as texts flow through a block.

use crate::{
    matrix,
    model::{Config, Observer, Tap},
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use wanda::{ActivationStats, ColumnNorms, Gram, ndarray::ArrayRef2, stats::file::LayerStats};

/// Statistics of everything that flows into a block's linear layers. Layers that read the same
/// input share them.
#[derive(Debug)]
pub struct InputStats {
    taps: [LayerStats; Tap::ALL.len()],
}

impl InputStats {
    /// Of inputs to come: their Gram matrices, or their norms alone.
    #[must_use]
    pub fn new(config: &Config, gram: bool) -> Self {
        Self {
            taps: Tap::ALL.map(|tap| match tap.features(config) {
                features if gram => Gram::new(features).into(),
                features => ColumnNorms::new(features).into(),
            }),
        }
    }

    /// Statistics that were gathered before, in the order of [`Tap::ALL`].
    ///
    /// # Errors
    /// There are not as many of them.
    pub fn from_taps(taps: Vec<LayerStats>) -> Result<Self> {
        let taps = taps.try_into().ok();
        let taps = taps.with_context(|| format!("a block has {} inputs", Tap::ALL.len()))?;
        Ok(Self { taps })
    }

    /// What the layers that read here saw.
    #[must_use]
    pub fn at(&self, tap: Tap) -> &dyn ActivationStats {
        self.layer(tap).as_stats()
    }

    /// The same, as files hold it.
    #[must_use]
    pub fn layer(&self, tap: Tap) -> &LayerStats {
        &self.taps[tap as usize]
    }
}

impl Observer for InputStats {
    fn input(&mut self, tap: Tap, input: &Tensor) -> Result<()> {
        let stats = &mut self.taps[tap as usize];
        // All tokens of the batch in one matrix: a Gram matrix takes one large product far faster
        // than many small ones.
        matrix::with_rows(input, |rows| {
            let rows: &ArrayRef2<f32> = &rows;
            match stats {
                LayerStats::Norms(norms) => norms.update(rows),
                LayerStats::Gram(gram) => gram.update(rows),
            }
            .with_context(|| format!("at the input of {}", tap.readers()))
        })
    }
}
