//! What a pruned layer looks like, and what it cost.

use std::fmt;
use std::time::Duration;

use crate::mask::fraction;

/// What pruning did to one layer.
///
/// Its `Display` is one line for people:
///
/// ```text
/// 576 x 1536: 442368 of 884736 weights pruned (50.0 %), relative output error 0.0291 (from input norms), 1.9 ms
/// ```
#[must_use = "the report says what the layer lost"]
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerReport {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) pruned: usize,
    pub(crate) zeros: usize,
    pub(crate) dead_inputs: usize,
    pub(crate) error: Option<RelativeError>,
    pub(crate) target_error: Option<RelativeError>,
    pub(crate) damping: Option<f64>,
    pub(crate) solved: Option<Solved>,
    pub(crate) time: Duration,
}

/// How much of a layer's output was lost; see [`LayerReport::relative_error`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RelativeError {
    value: f64,
    basis: ErrorBasis,
}

impl RelativeError {
    /// What was `lost` of the squared output `total`, both at least 0; `None` if there was none, or
    /// if these are no such numbers. What rounding made a little less than 0 counts as 0.
    #[must_use]
    pub fn new(lost: f64, total: f64, basis: ErrorBasis) -> Option<Self> {
        let value = lost.max(0.0) / total;
        (total > 0.0 && lost.is_finite() && value.is_finite()).then_some(Self { value, basis })
    }

    /// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)`: 0 for an unchanged layer, 1 for one that lost all.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Which G was used.
    #[must_use]
    pub fn basis(&self) -> ErrorBasis {
        self.basis
    }
}

/// What an iterative solver did.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Solved {
    iterations: usize,
    residual: f64,
    discarded: bool,
}

impl Solved {
    /// So many iterations, after which so much of the gradient was left, relative to what it was.
    #[must_use]
    pub fn new(iterations: usize, residual: f64) -> Self {
        Self {
            iterations,
            residual,
            discarded: false,
        }
    }

    /// The same, but what was there before was better and kept.
    #[must_use]
    pub fn discarded(mut self) -> Self {
        self.discarded = true;
        self
    }

    /// Iterations, those of a refit included.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// How much of the gradient on the mask was left in the end, relative to what it was before the
    /// refit.
    #[must_use]
    pub fn residual(&self) -> f64 {
        self.residual
    }

    /// Whether the result was worse than what it began with, which was kept then.
    #[must_use]
    pub fn is_discarded(&self) -> bool {
        self.discarded
    }
}

/// What a relative error was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ErrorBasis {
    /// The norms of the inputs alone, as if inputs were uncorrelated: G is taken as diagonal.
    InputNorms,
    /// The Gram matrix of the inputs.
    Gram,
}

impl fmt::Display for ErrorBasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputNorms => "input norms",
            Self::Gram => "the Gram matrix",
        })
    }
}

impl LayerReport {
    /// Rows of the weight matrix, the layer's outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the weight matrix, the layer's inputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many weights the pattern pruned, counting those that were zero before.
    #[must_use]
    pub fn pruned(&self) -> usize {
        self.pruned
    }

    /// How many weights are zero now: the pruned ones, and zeros beyond what the pattern asks for.
    #[must_use]
    pub fn zeros(&self) -> usize {
        self.zeros
    }

    /// The fraction of weights that are zero now.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        fraction(self.zeros, self.rows, self.columns)
    }

    /// Input features that calibration never saw other than zero.
    ///
    /// Their weights score 0 with [`Wanda`](crate::Wanda) and go first. A sweep makes all of them
    /// zero.
    #[must_use]
    pub fn dead_inputs(&self) -> usize {
        self.dead_inputs
    }

    /// The squared error of the layer's output over the calibration tokens, relative to the
    /// squared output: `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)` with ΔW the change of the stored weights and
    /// G = `XᵀX`.
    ///
    /// `None` without statistics, and for a layer whose output was zero.
    #[must_use]
    pub fn relative_error(&self) -> Option<RelativeError> {
        self.error
    }

    /// The damping of the Gram matrix that was used, as a multiple of the mean of its diagonal or
    /// of its entries, as was asked for ([`Damping`](crate::Damping)); `None` if nothing was factored.
    #[must_use]
    pub fn damping(&self) -> Option<f64> {
        self.damping
    }

    /// The squared error against the weights that best give the target, relative to what these put
    /// out; `None` without a target.
    #[must_use]
    pub fn target_error(&self) -> Option<RelativeError> {
        self.target_error
    }

    /// What an iterative solver did; `None` if there was none.
    #[must_use]
    pub fn solved(&self) -> Option<Solved> {
        self.solved
    }

    /// How long pruning took.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.time
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} x {}: {} of {} weights pruned ({:.1} %)",
            self.rows,
            self.columns,
            self.pruned,
            // Read back from elsewhere, they may be any numbers.
            self.rows as u128 * self.columns as u128,
            100.0 * fraction(self.pruned, self.rows, self.columns)
        )?;
        if self.zeros > self.pruned {
            write!(f, ", {} zeros in all", self.zeros)?;
        }
        if let Some(error) = self.error {
            let RelativeError { value, basis } = error;
            write!(f, ", relative output error {value:.4} (from {basis})")?;
        }
        if let Some(damping) = self.damping {
            write!(f, ", damped by {damping}")?;
        }
        match self.dead_inputs {
            0 => {}
            1 => write!(f, ", 1 dead input")?,
            n => write!(f, ", {n} dead inputs")?,
        }
        write!(f, ", {:.1} ms", self.time.as_secs_f64() * 1e3)
    }
}
