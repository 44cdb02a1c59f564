//! The norm of every input feature: all that Wanda needs.

use std::collections::TryReserveError;

use ndarray::ArrayRef2;

use super::{ActivationStats, gather::gather_by_own_methods, squares};
use crate::element::{Element, Real};
use crate::error::{Error, Result};

/// The sum of squares of every input feature of a layer, gathered batch by batch.
///
/// # Formula
///
/// ```text
/// Sⱼ = Σₜ aₜ xₜⱼ²       aₜ the weight of token t, 1 unless given
/// dⱼ = √Sⱼ               the norm ‖Xⱼ‖₂ that Wanda multiplies weights by
/// ```
///
/// The published code divides Sⱼ by the number of calibration sequences. That factor is the same
/// for all features, so it changes no decision, and it is left out here.
///
/// # Accuracy
///
/// Squares are formed and summed in `f64`, in the order of the tokens. They neither overflow nor
/// get lost beside outlier features, and the result has the same bits however the tokens are cut
/// into batches and however many threads work on it. [`merge`](Self::merge) adds two sums and so
/// may differ from a single pass in the last bits: by at most a relative 2⁻⁵² a token.
///
/// # Complexity
///
/// With n features: n multiplications and additions a token; 8n bytes of memory, and as many
/// again during an update.
///
/// # Example
///
/// ```
/// use wanda::{ActivationStats, ColumnNorms, ndarray::array};
///
/// let mut stats = ColumnNorms::new(2);
/// stats.update(&array![[3.0_f32, 1.0], [4.0, 0.0]])?;
/// stats.update(&array![[0.0_f32, 2.0]])?;
/// assert_eq!(stats.tokens(), 3);
/// assert_eq!(stats.sums_of_squares(), [25.0, 5.0]);
/// # Ok::<(), wanda::Error>(())
/// ```
///
/// # Reference
///
/// Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models",
/// arXiv 2306.11695, section 3.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "StoredColumnNorms")
)]
#[cfg_attr(
    feature = "serde",
    allow(
        clippy::unsafe_derive_deserialize,
        reason = "the lint sees into ndarray's slicing macro; what is read is checked"
    )
)]
pub struct ColumnNorms {
    features: usize,
    tokens: u64,
    /// Σₜ aₜ
    weight: f64,
    /// Empty until a token is seen, so that a number of features that no batch confirms costs
    /// nothing.
    sums: Vec<f64>,
}

impl ColumnNorms {
    /// Statistics of a layer with `features` inputs that has seen nothing yet.
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self {
            features,
            tokens: 0,
            weight: 0.0,
            sums: Vec::new(),
        }
    }

    /// Statistics from the sum of squares of every feature over `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidStatistic`] for a sum that is negative, infinite or not a number;
    /// [`Error::NoCalibration`] if `tokens` is 0.
    pub fn from_sums_of_squares(sums: Vec<f64>, tokens: u64) -> Result<Self> {
        if tokens == 0 {
            return Err(Error::NoCalibration {
                metric: "sums of squares".to_owned(),
                tokens,
            });
        }
        Self::from_parts(sums.len(), tokens, tokens as f64, sums)
    }

    /// Statistics from the mean square of every feature over `tokens` tokens. For sums, as
    /// llama.cpp's importance matrices in GGUF files hold them, there is
    /// [`from_sums_of_squares`](Self::from_sums_of_squares).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidStatistic`] for a mean that is negative, infinite or not a number;
    /// [`Error::NoCalibration`] if `tokens` is 0.
    pub fn from_mean_squares(means: &[f32], tokens: u64) -> Result<Self> {
        let sums = means.iter().map(|&mean| f64::from(mean) * tokens as f64);
        Self::from_sums_of_squares(sums.collect(), tokens)
    }

    /// Adds a batch of inputs, [tokens, features]: any number of tokens, any strides.
    ///
    /// # Errors
    ///
    /// [`Error::BatchShape`] if the batch has another number of columns,
    /// [`Error::NonFiniteActivation`] if a value is infinite or not a number,
    /// [`Error::InvalidStatistic`] if a sum overflows, which only `f64` inputs can make it do.
    /// After an error the statistics are as before.
    pub fn update<A: Element>(&mut self, batch: &ArrayRef2<A>) -> Result<()> {
        self.add(batch, None)
    }

    /// Adds a batch of inputs, of which token `t` counts `token_weights[t]` times.
    ///
    /// A token of weight 0 is padding: its values are not looked at and may be anything.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and [`Error::TokenWeightCount`] if there is not one weight
    /// for each token, [`Error::InvalidTokenWeight`] if one is negative, infinite or not a
    /// number.
    pub fn update_weighted<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: &[f32],
    ) -> Result<()> {
        if token_weights.len() != batch.nrows() {
            return Err(Error::TokenWeightCount {
                tokens: batch.nrows(),
                weights: token_weights.len(),
            });
        }
        for (token, &weight) in token_weights.iter().enumerate() {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::InvalidTokenWeight {
                    token,
                    weight: f64::from(weight),
                });
            }
        }
        self.add(batch, Some(token_weights))
    }

    /// Adds what other statistics of the same layer have seen.
    ///
    /// # Errors
    ///
    /// [`Error::MergeFeatures`] if they cover another number of features,
    /// [`Error::InvalidStatistic`] if a sum overflows, [`Error::Damaged`] if that of all weights
    /// does. After an error the statistics are as before.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.features != other.features {
            return Err(Error::MergeFeatures {
                left: self.features,
                right: other.features,
            });
        }
        let sums = match (self.sums.is_empty(), other.sums.is_empty()) {
            (_, true) => self.sums.clone(),
            (true, false) => other.sums.clone(),
            (false, false) => self
                .sums
                .iter()
                .zip(&other.sums)
                .map(|(a, b)| a + b)
                .collect(),
        };
        *self = Self::from_parts(
            self.features,
            self.tokens.saturating_add(other.tokens),
            self.weight + other.weight,
            sums,
        )?;
        Ok(())
    }

    /// The mean square of every feature, Sⱼ / Σₜ aₜ; empty as long as no token was seen.
    #[must_use]
    pub fn mean_squares(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.weight).collect()
    }

    /// The norm ‖Xⱼ‖₂ = √Sⱼ of every feature; empty as long as no token was seen.
    #[must_use]
    pub fn norms(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum.sqrt()).collect()
    }

    fn add<A: Element>(
        &mut self,
        batch: &ArrayRef2<A>,
        token_weights: Option<&[f32]>,
    ) -> Result<()> {
        if batch.ncols() != self.features {
            return Err(Error::BatchShape {
                features: self.features,
                columns: batch.ncols(),
            });
        }
        let too_large = |_| Error::TooLarge {
            rows: batch.nrows(),
            columns: batch.ncols(),
        };
        let seen = seen_tokens(batch.nrows(), token_weights).map_err(too_large)?;
        if seen.is_empty() {
            return Ok(());
        }
        let tokens = self.tokens.saturating_add(seen.len() as u64);
        let weight = seen
            .iter()
            .fold(self.weight, |sum, (_, weight)| sum + weight);

        // The sums so far are copied, not changed in place, so that an error leaves them alone.
        let mut sums = Vec::new();
        sums.try_reserve_exact(self.features).map_err(too_large)?;
        sums.extend_from_slice(&self.sums);
        sums.resize(self.features, 0.0);
        squares::add_squares(&mut sums, batch, &seen);

        // An infinite or undefined input leaves its trace in the sum, so only then is it looked
        // for.
        if let Some(feature) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(
                first_not_finite(batch, &seen).unwrap_or(Error::InvalidStatistic {
                    feature,
                    value: sums[feature],
                }),
            );
        }
        (self.tokens, self.weight, self.sums) = (tokens, weight, sums);
        Ok(())
    }

    /// Σₜ aₜ
    #[cfg(feature = "safetensors")]
    pub(super) fn weight(&self) -> f64 {
        self.weight
    }

    /// Statistics from numbers that may not fit together.
    pub(super) fn from_parts(
        features: usize,
        tokens: u64,
        weight: f64,
        sums: Vec<f64>,
    ) -> Result<Self> {
        let damaged = |reason: String| Error::Damaged {
            what: "statistics",
            reason,
        };
        if let Some(feature) = sums.iter().position(|s| !(s.is_finite() && *s >= 0.0)) {
            return Err(Error::InvalidStatistic {
                feature,
                value: sums[feature],
            });
        }
        let expected = if tokens == 0 { 0 } else { features };
        if sums.len() != expected {
            return Err(damaged(format!(
                "{} sums for {features} features after {tokens} tokens",
                sums.len()
            )));
        }
        if !(weight.is_finite() && weight >= 0.0) || (weight == 0.0) != (tokens == 0) {
            return Err(damaged(format!("{tokens} tokens weigh {weight}")));
        }
        Ok(Self {
            features,
            tokens,
            weight,
            sums,
        })
    }
}

/// The tokens of a batch that count, with their weights.
fn seen_tokens(
    tokens: usize,
    weights: Option<&[f32]>,
) -> std::result::Result<Vec<(usize, f64)>, TryReserveError> {
    let mut seen = Vec::new();
    seen.try_reserve_exact(tokens)?;
    let weight_of = |token| weights.map_or(1.0, |weights| f64::from(weights[token]));
    let all = (0..tokens).map(|token| (token, weight_of(token)));
    seen.extend(all.filter(|&(_, weight)| weight != 0.0));
    Ok(seen)
}

/// The first input, token by token, that is infinite or not a number.
fn first_not_finite<A: Element>(batch: &ArrayRef2<A>, seen: &[(usize, f64)]) -> Option<Error> {
    seen.iter().find_map(|&(token, _)| {
        let values = batch.row(token);
        let mut values = values.iter().map(|x| x.widen().as_f64()).enumerate();
        let (feature, value) = values.find(|(_, value)| !value.is_finite())?;
        Some(Error::NonFiniteActivation {
            token,
            feature,
            value,
        })
    })
}

gather_by_own_methods!(ColumnNorms);

impl ActivationStats for ColumnNorms {
    fn features(&self) -> usize {
        self.features
    }

    fn tokens(&self) -> u64 {
        self.tokens
    }

    fn sums_of_squares(&self) -> &[f64] {
        &self.sums
    }
}

/// Statistics as they were stored, not yet checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "ColumnNorms")]
struct StoredColumnNorms {
    features: usize,
    tokens: u64,
    weight: f64,
    sums: Vec<f64>,
}

#[cfg(feature = "serde")]
impl TryFrom<StoredColumnNorms> for ColumnNorms {
    type Error = Error;

    fn try_from(stored: StoredColumnNorms) -> Result<Self> {
        Self::from_parts(stored.features, stored.tokens, stored.weight, stored.sums)
    }
}
