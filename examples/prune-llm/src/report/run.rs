//! What a run gave, as JSON for programs.

use crate::{
    calibrate::InputNorms,
    plan::{Choice, Recipe},
    util::json,
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, fs, path::Path};
use wanda::ErrorBasis;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub model: String,
    #[serde(flatten)]
    pub recipe: Recipe,
    #[serde(flatten)]
    pub choice: ChosenLayers,
    pub seed: u64,
    /// `None` if no data was looked at.
    pub calibration: Option<Calibration>,
    pub evaluation: Text,
    pub dense_perplexity: f64,
    pub perplexity: f64,
    /// The fraction of zeros in the pruned layers.
    pub sparsity: f64,
    pub seconds: Seconds,
    /// `None` where the operating system does not say.
    pub peak_memory_bytes: Option<u64>,
    pub layers: Vec<Layer>,
    /// How the norms of the inputs are spread; empty without calibration.
    pub inputs: Vec<InputNorms>,
    /// `None` where none was asked for.
    pub continuation: Option<Continuation>,
}

/// The layers that were chosen, as on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenLayers {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub sparsity_of: Vec<String>,
}

impl ChosenLayers {
    /// What was chosen.
    pub fn new(choice: &Choice) -> Self {
        fn strings(items: &[impl ToString]) -> Vec<String> {
            items.iter().map(ToString::to_string).collect()
        }
        Self {
            include: strings(&choice.include),
            exclude: strings(&choice.exclude),
            sparsity_of: strings(&choice.sparsity_of),
        }
    }
}

/// Where the statistics came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibration {
    Text(Text),
    /// Files, by name.
    Statistics(Vec<String>),
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Statistics(files) => {
                write!(f, "statistics of the dense model, `{}`", files.join("`, `"))
            }
        }
    }
}

/// A text that was calibrated or measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// `None` for text sampled from the dense model.
    pub file: Option<String>,
    pub sequences: usize,
    /// Tokens in each of them.
    pub length: usize,
}

impl Text {
    /// The first `sequences` times `length` tokens of a file, or text that was sampled.
    pub fn new(file: Option<&Path>, sequences: usize, length: usize) -> Self {
        Self {
            file: file.map(|file| file.display().to_string()),
            sequences,
            length,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} tokens of ", self.sequences, self.length)?;
        match &self.file {
            Some(file) => write!(f, "`{file}`"),
            None => f.write_str("text sampled from the dense model"),
        }
    }
}

/// A prompt and its continuation by each of both models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    pub prompt: String,
    pub dense: String,
    pub pruned: String,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    pub load: f64,
    /// Forward passes and statistics, and sampling the text if there was none.
    pub calibrate: f64,
    pub prune: f64,
    /// Both perplexities, and sampling the text if there was none.
    pub evaluate: f64,
}

/// One pruned layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    /// Rows (outputs) and columns (inputs).
    pub shape: [usize; 2],
    pub sparsity: f64,
    /// Squared error of the layer's output relative to the output; `None` without calibration.
    pub relative_error: Option<f64>,
    /// The same relative to the weights that best give the target, and to their output; `None`
    /// without a target.
    pub target_error: Option<f64>,
    /// Iterations of a solver; `None` if there was none.
    pub iterations: Option<usize>,
    /// What that error was computed from.
    pub error_basis: Option<ErrorBasis>,
    /// The damping of the Gram matrix, as a multiple of the mean of its diagonal or of its entries;
    /// `None` if there was none.
    pub damping: Option<f64>,
    pub seconds: f64,
}

impl Report {
    /// The report as text.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        json::pretty(self)
    }

    /// The report as text, without what differs between two runs of the same job.
    pub fn to_record(&self) -> Result<Vec<u8>> {
        const MEASURED: [&str; 2] = ["seconds", "peak_memory_bytes"];
        let mut report = serde_json::to_value(self)?;
        let layers = report.get_mut("layers").and_then(Value::as_array_mut);
        let layers = layers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut);
        layers.for_each(|layer| layer.retain(|key, _| !MEASURED.contains(&key.as_str())));
        if let Some(report) = report.as_object_mut() {
            report.retain(|key, _| !MEASURED.contains(&key.as_str()));
        }
        json::pretty(&report)
    }
}

/// The most memory this process has held so far.
pub fn peak_memory_bytes() -> Option<u64> {
    // Linux only; elsewhere the file is not there.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
