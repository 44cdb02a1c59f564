//! The command line.

use clap::{Parser, ValueEnum};
use std::{fmt, path::PathBuf};
use wanda::Pattern;

const EXAMPLES: &str = "\
Examples:
  The whole job on SmolLM2-135M-Instruct, fetched at the first run, with no data needed:
    cargo run --release -p prune-llm

  Two of every four weights kept, measured on a text of yours (here this project's README):
    cargo run --release -p prune-llm -- --pattern 2:4 --eval README.md --eval-windows 4 --eval-length 128

  Magnitude pruning, the baseline, with a report as JSON:
    cargo run --release -p prune-llm -- --method magnitude --pattern per-layer:0.5 --report report.json

  A model from the Hugging Face Hub (a GGUF file or a folder on disk work the same way):
    cargo run --release -p prune-llm -- --model HuggingFaceTB/SmolLM2-135M --output pruned";

/// Prune a Llama-architecture language model on a CPU.
///
/// Reads a model, prunes every linear layer in its blocks, measures the perplexity before and
/// after, and writes the pruned model as a Hugging Face folder. Without arguments it does all of
/// this on SmolLM2-135M-Instruct.
#[derive(Debug, Clone, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// A GGUF file, a Hugging Face folder, or the id of a model on the Hugging Face Hub
    ///
    /// [default: SmolLM2-135M-Instruct, kept in the user's cache folder]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// How much a weight matters
    #[arg(long, value_enum, default_value_t = Method::Wanda)]
    pub method: Method,

    /// Which weights go: "0.5" (half of every row), "2:4" (two of four kept), "per-layer:0.5",
    /// "per-input:0.5", "block:16x4:0.5", "cumulative:0.5"
    #[arg(long, default_value = "0.5")]
    pub pattern: Pattern,

    /// Text to calibrate on [default: text sampled from the dense model]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,

    /// How many sequences to calibrate on
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least::<1>)]
    pub calibration_samples: usize,

    /// Tokens in each of them
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = at_least::<1>)]
    pub sequence_length: usize,

    /// Text to measure the perplexity on [default: more text sampled from the dense model]
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,

    /// How many windows of that text to use
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least::<1>)]
    pub eval_windows: usize,

    /// Tokens in each window; all but the first are predicted
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = at_least::<2>)]
    pub eval_length: usize,

    /// The folder to write the pruned model to [default: ./MODEL-METHOD-PATTERN]
    ///
    /// It must not exist, be empty, or have been written by this program, in which case it is
    /// replaced once the new one is complete.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Also write the results as JSON
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,

    /// Decides the sampled text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The importance metrics on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// The size of a weight; looks at no data
    Magnitude,
    /// The size of a weight times the norm of its input
    Wanda,
}

impl Method {
    /// The library's metric of this name.
    #[must_use]
    pub fn metric(self) -> &'static dyn wanda::ImportanceMetric {
        match self {
            Self::Magnitude => &wanda::Magnitude,
            Self::Wanda => &wanda::Wanda,
        }
    }

    /// Whether pruning is impossible without calibration.
    #[must_use]
    pub fn needs_calibration(self) -> bool {
        match self {
            Self::Magnitude => false,
            Self::Wanda => true,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magnitude => "magnitude",
            Self::Wanda => "wanda",
        })
    }
}

fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value >= MIN => Ok(value),
        Ok(_) => Err(format!("it must be at least {MIN}")),
        Err(_) => Err("it must be a whole number".to_owned()),
    }
}
