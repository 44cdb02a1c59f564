//! `prune-llm`: see `prune-llm --help`.

use clap::Parser;
use prune_llm::{
    Progress,
    cli::{Cli, Job},
    job,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let progress = Progress::default();
    let result = match Cli::parse().job() {
        Job::Prune(args) if args.dry_run => job::dry_run(&args, progress),
        Job::Prune(args) => job::prune(&args, progress).map(drop),
        Job::Calibrate(args) => job::calibrate(&args, progress),
        Job::Compare(args) => job::compare(&args, progress).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
