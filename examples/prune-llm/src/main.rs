//! `prune-llm`: see `prune-llm --help`.

use clap::Parser;
use prune_llm::{cli::Args, progress::Progress, run::run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Args::parse(), Progress::new()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
