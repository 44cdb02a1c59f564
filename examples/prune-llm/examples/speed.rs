//! What a job takes beside the forward passes that it cannot do without.
//!
//! Takes the arguments of `prune-llm`, does the job, and runs the calibration texts through the
//! dense model before and after it.
//!
//! ```sh
//! cargo run --release -p prune-llm --example speed -- --calibration README.md \
//!   --calibration-samples 4 --output pruned
//! ```

use anyhow::{Result, bail};
use clap::Parser;
use indicatif::ProgressBar;
use prune_llm::{
    Progress,
    calibrate::{HiddenStates, Sequences},
    cli::{Cli, Job},
    job::{Texts, prune},
    model::{Location, Model, Unobserved},
};
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    let Job::Prune(args) = Cli::parse().job() else {
        bail!("only pruning is measured");
    };
    let progress = Progress::default();
    let input = Location::find(args.input.data.model.as_deref(), progress)?.open()?;
    let Some(texts) = Texts::read(&args.input, &input.tokenizer)?.calibration else {
        bail!("give the calibration text as a file");
    };
    // One before and one after, since what else the machine does may change in between.
    let before = pass(&input.model, &texts)?;
    let report = prune(&args, progress)?;
    let after = pass(&input.model, &texts)?;

    let bare = (before + after).as_secs_f64();
    let job = report.seconds.calibrate + report.seconds.prune;
    println!(
        "two forward passes: {bare:.1} s; calibration {:.1} s and pruning {:.1} s: {:.2} times \
         that; {:.1} s a block; at most {} MB of memory",
        report.seconds.calibrate,
        report.seconds.prune,
        job / bare,
        job / input.model.blocks() as f64,
        report.peak_memory_bytes.unwrap_or(0) / 1_000_000
    );
    Ok(())
}

/// The time of one pass of the texts through all blocks, without reading them.
fn pass(model: &Model, texts: &Sequences) -> Result<Duration> {
    let mut hidden = HiddenStates::embed(model, texts, model.dtype()?)?;
    let mut time = Duration::ZERO;
    for index in 0..model.blocks() {
        let block = model.block(index)?.widened()?;
        let start = Instant::now();
        hidden.advance(&block, &mut Unobserved, &ProgressBar::hidden())?;
        time += start.elapsed();
    }
    Ok(time)
}
