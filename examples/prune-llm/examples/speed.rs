//! What a job takes beside the forward passes that it cannot do without.
//!
//! Takes the arguments of `prune-llm`, runs the calibration texts twice through the dense model,
//! and then does the job.
//!
//! ```sh
//! cargo run --release -p prune-llm --example speed -- --calibration README.md \
//!   --calibration-samples 4 --output pruned
//! ```

use anyhow::{Result, bail};
use clap::Parser;
use indicatif::ProgressBar;
use prune_llm::{
    cli::{Cli, Job},
    hidden::HiddenStates,
    input::Location,
    progress::Progress,
    run::run,
    setup::Texts,
};
use std::time::{Duration, Instant};

const PASSES: usize = 2;

fn main() -> Result<()> {
    let Job::Prune(args) = Cli::parse().job() else {
        bail!("only pruning is measured");
    };
    let progress = Progress::new();
    let input = Location::find(args.input.data.model.as_deref(), progress)?.open()?;
    let Some(texts) = Texts::read(&args.input, &input.tokenizer)?.calibration else {
        bail!("give the calibration text as a file");
    };
    let model = &input.model;
    let mut bare = Duration::ZERO;
    let mut hidden = HiddenStates::embed(model, &texts, model.dtype()?)?;
    for index in 0..model.blocks() {
        let block = model.block(index)?.widened()?;
        let start = Instant::now();
        for _ in 0..PASSES {
            hidden.advance(&block, &ProgressBar::hidden())?;
        }
        bare += start.elapsed();
    }
    drop(hidden);

    let report = run(&args, progress)?;
    let bare = bare.as_secs_f64();
    let job = report.seconds.calibrate + report.seconds.prune;
    println!(
        "{PASSES} forward passes: {bare:.1} s; calibration {:.1} s and pruning {:.1} s: {:.2} times \
         that; {:.1} s a block; at most {} MB of memory",
        report.seconds.calibrate,
        report.seconds.prune,
        job / bare,
        job / model.blocks() as f64,
        report.peak_memory_bytes.unwrap_or(0) / 1_000_000
    );
    Ok(())
}
