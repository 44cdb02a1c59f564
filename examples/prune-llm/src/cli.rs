//! The command line.

use crate::plan::{
    Choice, Explicit, Method, NamedDamping, Order, Preset, Recipe, TargetStrength, Update,
};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use wanda::Pattern;

const PRUNE_EXAMPLES: &str = "\
Examples:
  The whole job on SmolLM2-135M-Instruct, fetched at the first run, with no data needed:
    prune-llm

  Two of every four weights kept, measured on a text of yours:
    prune-llm --pattern 2:4 \\
      --eval README.md --eval-windows 4 --eval-length 128

  SparseGPT as published, with a page of charts to look at:
    prune-llm --method sparsegpt --pattern per-layer:0.5 --html report.html

  Wanda, with the kept weights updated to make up for the pruned ones:
    prune-llm --method wanda --update obs

  More of some layers and nothing of others; first see what would happen:
    prune-llm --exclude layers.0. --sparsity-of mlp=0.6 --dry-run

  The best there is for a given sparsity, at a few times the time:
    prune-llm --preset best --pattern per-layer:0.6

  Magnitude pruning, the baseline, with a report as JSON:
    prune-llm --method magnitude --pattern per-layer:0.5 --report report.json

  A model from the Hugging Face Hub (a GGUF file or a folder on disk work the same way):
    prune-llm --model HuggingFaceTB/SmolLM2-135M --output pruned";

const CALIBRATE_EXAMPLES: &str = "\
Examples:
  The norms of all inputs of SmolLM2-135M-Instruct, and a pruning run that uses them:
    prune-llm calibrate --output norms.safetensors
    prune-llm --statistics norms.safetensors --pattern 2:4

  Gram matrices, as sparsegpt needs them, of a text of yours:
    prune-llm calibrate --gram --output gram.safetensors \\
      --calibration README.md --calibration-samples 8 --sequence-length 128
    prune-llm --method sparsegpt --statistics gram.safetensors

  Half of the work on each of two machines:
    prune-llm calibrate --seed 1 --output one.safetensors
    prune-llm calibrate --seed 2 --output two.safetensors
    prune-llm --statistics one.safetensors two.safetensors";

const COMPARE_EXAMPLES: &str = "\
Examples:
  Everything on SmolLM2-135M-Instruct, with no data needed:
    prune-llm compare

  Measured on a text of yours, the table also as files:
    prune-llm compare --eval README.md --eval-windows 4 --eval-length 128 \\
      --markdown table.md --json table.json";

const MORE_JOBS: &str = "\
All methods side by side in one table: see
    prune-llm compare --help";

/// Prune a language model (Llama, Mistral, Qwen2, Qwen3, SmolLM) on a CPU.
///
/// Reads a model, prunes every linear layer in its blocks, measures the perplexity before and
/// after, and writes the pruned model as a Hugging Face folder. Without arguments it does all of
/// this on SmolLM2-135M-Instruct.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    after_help = format!("{PRUNE_EXAMPLES}\n\n{MORE_JOBS}"),
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    job: Option<Job>,

    #[command(flatten)]
    prune: PruneArgs,
}

impl Cli {
    /// What to do: to prune, where no subcommand says otherwise.
    pub fn job(self) -> Job {
        self.job.unwrap_or(Job::Prune(self.prune))
    }
}

/// The subcommands.
#[derive(Debug, Clone, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, made once from the command line"
)]
pub enum Job {
    /// Prune a model, measure it and write it: what is done without a subcommand
    #[command(after_help = PRUNE_EXAMPLES)]
    Prune(PruneArgs),

    /// Write the statistics of a dense model to a file, for many pruning runs
    ///
    /// Runs the model over the calibration text once and writes what it saw of the input of every
    /// linear layer. Files of several texts or machines can be used together. Layers after the
    /// first block see other inputs than when a model is calibrated as it is pruned: those of the
    /// dense model.
    #[command(after_help = CALIBRATE_EXAMPLES)]
    Calibrate(CalibrateArgs),

    /// Measure all methods on one model, beside the dense one
    ///
    /// Prunes by magnitude, wanda, sparsegpt, and wanda with the obs update, to 50 %, 4:8 and 2:4,
    /// every time from the dense weights and with the same texts, and prints a table of
    /// perplexities. At 50 %, weights are compared as where the method was published: in each row
    /// (wanda), in the whole layer (magnitude), or in blocks of 128 columns (sparsegpt). No model
    /// is written.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
}

/// What to prune, how, and where the result goes.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    pub input: InputArgs,

    /// What the arguments from --method to --output-weights are unless they are given; --dry-run
    /// shows it
    #[arg(long, value_enum, default_value_t)]
    pub preset: Preset,

    /// How much a weight matters [default: wanda; sparsegpt in the preset balanced]
    #[arg(long, value_enum)]
    pub method: Option<Method>,

    /// What happens to the weights that stay [default: obs for sparsegpt, none for the others; obs
    /// in the preset balanced, joint in best]
    #[arg(long, value_enum)]
    pub update: Option<Update>,

    /// Which weights go: "0.5" (half of every row), "2:4" (two of four kept), "per-layer:0.5",
    /// "per-input:0.5", "block:16x4:0.5", "cumulative:0.5", "threshold:0.5"
    ///
    /// The default compares the weights of a row, whatever the method. The published sparsegpt
    /// compares those of all rows: "per-layer:0.5", which the obs update decides block by block
    /// of 128 columns, or with the threshold of the published code, which takes ties along,
    /// "threshold:0.5".
    ///
    /// [default: 0.5; per-layer:0.5 in the presets balanced and best]
    #[arg(long)]
    pub pattern: Option<Pattern>,

    /// When the statistics of a layer's inputs are gathered [default: block; sequential in the
    /// presets balanced and best]
    ///
    /// Statistics from files have no order.
    #[arg(long, value_enum)]
    pub order: Option<Order>,

    /// How far each layer is pruned toward what the dense model gives, not toward its own output
    /// on inputs that pruning has changed: 0 for not at all; two numbers for the outputs of layers
    /// and for what the hidden states lack [default: 0; 0.5 in the presets balanced and best]
    ///
    /// The dense model runs beside the pruned one, block by block. Near 1 few calibration tokens
    /// are overfitted.
    #[arg(long, value_name = "B[,G]")]
    pub target: Option<TargetStrength>,

    /// What is added to the diagonal of Gram matrices: a multiple of its mean, or of each entry
    /// [default: mean:0.01, as published; diagonal:0.1 with a target, and for joint and refit]
    #[arg(long, value_name = "KIND:FACTOR")]
    pub damping: Option<NamedDamping>,

    /// Compare weights of different rows also by what their outputs do further on: for gate, up,
    /// queries, keys and values [default: false; true in the presets balanced and best]
    ///
    /// No effect on patterns that compare within rows.
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub output_weights: Option<bool>,

    #[command(flatten)]
    pub layers: Choice,

    /// List the layers and what would become of each, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How many tokens the dense and the pruned model continue a text by, to be seen side by side
    ///
    /// What of the model goes beyond 256 MB in f32 is read once for each of them.
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = at_least::<0>)]
    pub continuation: usize,

    /// Statistics to use in place of calibration: files of `prune-llm calibrate`, or importance
    /// matrices of llama.cpp as GGUF, which have norms. Several are added up
    ///
    /// No forward pass is made to calibrate. The text to measure on, where it is sampled, begins
    /// after --calibration-samples texts, as without this argument.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "calibration")]
    pub statistics: Vec<PathBuf>,

    /// The folder to write the pruned model to [default: ./MODEL-METHOD-PATTERN, with the update
    /// after the method if it is not the method's own]
    ///
    /// It must not exist, be empty, or have been written by this program, in which case it is
    /// replaced once the new one is complete. Until then all is in the folder `.DIR.unfinished`
    /// beside it, and the same command resumes a run that was stopped.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Also write the results as JSON
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,

    /// Also write the results as a page to look at, with charts
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
}

impl PruneArgs {
    /// How to prune.
    pub fn recipe(&self) -> Recipe {
        self.preset.recipe(Explicit {
            method: self.method,
            update: self.update,
            pattern: self.pattern,
            order: self.order,
            target: self.target,
            damping: self.damping,
            output_weights: self.output_weights,
        })
    }
}

/// What to calibrate on, and where the statistics go.
#[derive(Debug, Clone, Args)]
pub struct CalibrateArgs {
    #[command(flatten)]
    pub data: CalibrationArgs,

    /// Gather Gram matrices, as sparsegpt and the obs update need them, and not norms alone
    #[arg(long)]
    pub gram: bool,

    /// The file to write [default: ./MODEL-norms.safetensors, or ./MODEL-gram.safetensors]
    ///
    /// Until it is complete all is in the folder `.FILE.unfinished` beside it, and the same
    /// command resumes a run that was stopped.
    #[arg(long, value_name = "FILE.safetensors")]
    pub output: Option<PathBuf>,
}

/// What to compare on, and where the table goes.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub input: InputArgs,

    /// Also write the results as JSON
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,

    /// Also write the table as Markdown
    #[arg(long, value_name = "FILE.md")]
    pub markdown: Option<PathBuf>,
}

/// A model, and the texts to calibrate and to measure it on.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    #[command(flatten)]
    pub data: CalibrationArgs,

    /// Text to measure the perplexity on [default: more text sampled from the dense model]
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,

    /// How many windows of that text to use
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least::<1>)]
    pub eval_windows: usize,

    /// Tokens in each window; all but the first are predicted
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = at_least::<2>)]
    pub eval_length: usize,
}

/// A model, and the text to calibrate it on.
#[derive(Debug, Clone, Args)]
pub struct CalibrationArgs {
    /// A GGUF file, a Hugging Face folder, or the id of a model on the Hugging Face Hub
    ///
    /// [default: SmolLM2-135M-Instruct, kept in the user's cache folder]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,

    /// Text to calibrate on [default: text sampled from the dense model]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,

    /// Take the sequences from all over that text, evenly, and not from its beginning
    #[arg(long, requires = "calibration")]
    pub spread: bool,

    /// How many sequences to calibrate on
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least::<1>)]
    pub calibration_samples: usize,

    /// Tokens in each of them
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = at_least::<1>)]
    pub sequence_length: usize,

    /// Decides the sampled text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// More texts or tokens than anyone has, and few enough to be added and multiplied.
const MOST: usize = u32::MAX as usize;

fn at_least<const MIN: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value < MIN => Err(format!("it must be at least {MIN}")),
        Ok(value) if value > MOST => Err(format!("it must be at most {MOST}")),
        Ok(value) => Ok(value),
        Err(_) => Err("it must be a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn job(line: &[&str]) -> Job {
        Cli::try_parse_from(line).unwrap().job()
    }

    #[test]
    fn pruning_is_what_is_done_without_a_subcommand() {
        for more in [vec![], vec!["--pattern", "2:4", "--seed", "3"]] {
            let bare = [vec!["prune-llm"], more.clone()].concat();
            let spelled_out = [vec!["prune-llm", "prune"], more].concat();
            assert!(matches!(job(&bare), Job::Prune(_)));
            assert_eq!(
                format!("{:?}", job(&bare)),
                format!("{:?}", job(&spelled_out))
            );
        }
        assert!(matches!(job(&["prune-llm", "compare"]), Job::Compare(_)));
        let calibrate = job(&["prune-llm", "calibrate", "--gram"]);
        assert!(matches!(calibrate, Job::Calibrate(args) if args.gram));
    }

    #[test]
    fn arguments_belong_to_one_job() {
        for line in [
            ["prune-llm", "--seed=3", "compare"],
            ["prune-llm", "compare", "--method=wanda"],
            ["prune-llm", "prune", "--markdown=table.md"],
            ["prune-llm", "calibrate", "--eval=text"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn an_update_is_the_method_s_own_unless_given() {
        let recipe = |more: &[&str]| match job(&[&["prune-llm"], more].concat()) {
            Job::Prune(args) => args.recipe().to_string(),
            Job::Calibrate(_) | Job::Compare(_) => unreachable!("no subcommand was given"),
        };
        assert_eq!(recipe(&[]), "wanda, 0.5");
        assert_eq!(recipe(&["--update", "obs"]), "wanda-obs, 0.5");
        assert_eq!(recipe(&["--method", "sparsegpt"]), "sparsegpt, 0.5");
        assert_eq!(
            recipe(&["--method", "sparsegpt", "--update", "none"]),
            "sparsegpt-none, 0.5"
        );
        assert_eq!(
            recipe(&["--method", "magnitude", "--update", "obs"]),
            "magnitude-obs, 0.5"
        );
    }

    #[test]
    fn examples_work_when_pasted() {
        let mut command = Cli::command();
        let help: Vec<String> = [&command]
            .into_iter()
            .chain(command.get_subcommands())
            .filter_map(|command| command.get_after_help())
            .map(ToString::to_string)
            .collect();
        assert_eq!(help.len(), 4);
        for text in help {
            // A line that a narrow terminal breaks would be pasted as two commands.
            let mut commands = text.lines().filter(|line| line.starts_with("    "));
            assert!(commands.all(|line| line.len() < 80), "{text}");

            let text = text.replace("\\\n", "");
            let mut examples = 0;
            for line in text.lines() {
                if !line.trim().starts_with("prune-llm") {
                    continue;
                }
                let line = line.split_whitespace();
                if let Err(error) = command.try_get_matches_from_mut(line) {
                    assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{error}");
                }
                examples += 1;
            }
            assert!(examples >= 2, "{text}");
        }
    }
}
