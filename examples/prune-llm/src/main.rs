//! `prune-llm`: see `prune-llm --help`.

use clap::Parser;
use prune_llm::{
    cli::{Cli, Job},
    compare::compare,
    dry_run::dry_run,
    progress::Progress,
    run::run,
    statistics::calibrate::calibrate,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let progress = Progress::new();
    let result = match Cli::parse().job() {
        Job::Prune(args) if args.dry_run => dry_run(&args, progress),
        Job::Prune(args) => run(&args, progress).map(drop),
        Job::Calibrate(args) => calibrate(&args, progress),
        Job::Compare(args) => compare(&args, progress).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
