//! A Gram matrix taken apart, as files hold it.

use std::borrow::Cow;

use super::{Block, Gram};
use crate::error::{Error, Result};
use crate::linalg::Symmetric;
use crate::stats::{ActivationStats, ColumnNorms};

/// What a Gram matrix consists of; when read, not yet checked.
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename = "Gram")
)]
pub(in crate::stats) struct StoredGram<'a> {
    pub(in crate::stats) norms: Cow<'a, ColumnNorms>,
    pub(in crate::stats) folded: Cow<'a, Symmetric>,
    /// The tokens that wait for a full block, [tokens, features].
    #[cfg_attr(feature = "serde", serde(rename = "narrow"))]
    pub(in crate::stats) pending_f32: Vec<f32>,
    #[cfg_attr(feature = "serde", serde(rename = "wide"))]
    pub(in crate::stats) pending_f64: Vec<f64>,
}

impl<'a> From<&'a Gram> for StoredGram<'a> {
    fn from(gram: &'a Gram) -> Self {
        Self {
            norms: Cow::Borrowed(&gram.norms),
            folded: Cow::Borrowed(&gram.folded),
            pending_f32: gram.pending_f32.to_tokens(),
            pending_f64: gram.pending_f64.to_tokens(),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Gram {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        StoredGram::from(self).serialize(serializer)
    }
}

impl TryFrom<StoredGram<'_>> for Gram {
    type Error = Error;

    fn try_from(stored: StoredGram<'_>) -> Result<Self> {
        let mut gram = Self {
            norms: stored.norms.into_owned(),
            folded: stored.folded.into_owned(),
            ..Self::new(0)
        };
        let n = gram.norms.features();
        let damaged = |reason: &str| Error::Damaged {
            what: "statistics",
            reason: format!("{reason} of {n} features"),
        };
        let complete = match gram.norms.tokens() {
            0 => gram.folded.is_empty(),
            _ => gram.folded.is_valid(n),
        };
        if !complete {
            return Err(damaged("they do not hold all products, finite,"));
        }
        gram.pending_f32 = Block::from_tokens(n, stored.pending_f32)
            .ok_or_else(|| damaged("they do not hold whole tokens, finite,"))?;
        gram.pending_f64 = Block::from_tokens(n, stored.pending_f64)
            .ok_or_else(|| damaged("they do not hold whole tokens, finite,"))?;
        let pending = gram.pending_f32.all().len() + gram.pending_f64.all().len();
        if pending as u64 > gram.norms.tokens() {
            return Err(damaged("they hold tokens that were never seen,"));
        }
        gram.check_products()?;
        Ok(gram)
    }
}

impl Gram {
    /// Refuses products that no inputs with these norms have: by Cauchy and Schwarz, no product of
    /// two inputs is larger than that of their norms. The norms are those of the tokens whose
    /// products were added up: without the tokens that wait, which cannot have larger ones than
    /// all.
    fn check_products(&self) -> Result<()> {
        /// More than what rounding in blocks of `f32` products can add.
        const SLACK: f64 = 1.0 + 1e-3;
        /// More than what rounding tokens to `f32` can add to a sum of squares, relative to it.
        const ROUNDING: f64 = 1e-6;
        // Squares so small that they were lost are made up for.
        let lost = self.norms.tokens() as f64 * f64::MIN_POSITIVE;
        let sums = self.norms.sums_of_squares();
        let mut waiting = vec![0.0; sums.len()];
        self.pending_f32.add_squares(&mut waiting);
        self.pending_f64.add_squares(&mut waiting);
        let left = sums.iter().zip(&waiting);
        let left: Vec<f64> = left
            .map(|(sum, waiting)| sum * (1.0 + ROUNDING) + lost - waiting)
            .collect();
        if let Some(feature) = left.iter().position(|&left| left < 0.0) {
            return Err(Error::ImpossibleProduct {
                features: (feature, feature),
                product: waiting[feature],
            });
        }
        let norms: Vec<f64> = left.into_iter().map(f64::sqrt).collect();
        for columns in self.folded.panels() {
            let rows = self.folded.panel(&columns).chunks_exact(columns.len());
            for (j, row) in (columns.start..).zip(rows) {
                for (k, &product) in columns.clone().zip(row).take_while(|&(k, _)| k < j) {
                    if product.abs() > norms[j] * norms[k] * SLACK {
                        return Err(Error::ImpossibleProduct {
                            features: (j, k),
                            product,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}
