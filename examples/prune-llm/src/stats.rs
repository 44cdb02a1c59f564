//! What calibration gathers as texts flow through a block.

use crate::{
    matrix,
    model::{Config, Observer, Tap},
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use wanda::{ActivationStats, ColumnNorms, Gram, ndarray::ArrayRef2};

/// Statistics of everything that flows into a block's linear layers. Layers that read the same
/// input share them.
#[derive(Debug)]
pub struct InputStats {
    taps: [TapStats; Tap::ALL.len()],
}

/// Statistics of one input.
#[derive(Debug)]
enum TapStats {
    Norms(ColumnNorms),
    Gram(Gram),
}

impl InputStats {
    /// The norms of all inputs.
    #[must_use]
    pub fn norms(config: &Config) -> Self {
        Self {
            taps: Tap::ALL.map(|tap| TapStats::Norms(ColumnNorms::new(tap.features(config)))),
        }
    }

    /// The Gram matrices of all inputs.
    #[must_use]
    pub fn grams(config: &Config) -> Self {
        Self {
            taps: Tap::ALL.map(|tap| TapStats::Gram(Gram::new(tap.features(config)))),
        }
    }

    /// What the layers that read here saw.
    #[must_use]
    pub fn at(&self, tap: Tap) -> &dyn ActivationStats {
        match &self.taps[tap as usize] {
            TapStats::Norms(norms) => norms,
            TapStats::Gram(gram) => gram,
        }
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
                TapStats::Norms(norms) => norms.update(rows),
                TapStats::Gram(gram) => gram.update(rows),
            }
            .with_context(|| format!("at the input of {}", tap.readers()))
        })
    }
}
