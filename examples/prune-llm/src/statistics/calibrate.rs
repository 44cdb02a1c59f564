//! Gathering the statistics of a dense model into a file.

use super::names;
use crate::{
    cli::CalibrateArgs,
    hidden::HiddenStates,
    input::{Input, Location},
    model::{Model, Tap},
    progress::Progress,
    sample, setup, staging,
    stats::InputStats,
    text::Sequences,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wanda::stats::file::StatsWriter;

/// Runs the dense model over the calibration text and writes the statistics of all inputs; tells
/// of it on standard output.
///
/// # Errors
/// The model or the text cannot be read, they do not fit each other, or the file cannot be
/// written.
pub fn calibrate(args: &CalibrateArgs, progress: Progress) -> Result<()> {
    let location = Location::find(args.data.model.as_deref(), progress)?;
    let output = match &args.output {
        Some(file) => file.clone(),
        None => default_file(location.name(), args.gram),
    };
    staging::check_file(&output)?;
    let input = location.open()?;
    let texts = texts(args, &input, progress)?;
    setup::announce(&input, Some(&texts));
    write(&input.model, &texts, args.gram, &output, progress)?;
    println!("written to `{}`", output.display());
    Ok(())
}

fn default_file(model: &str, gram: bool) -> PathBuf {
    let kind = if gram { "gram" } else { "norms" };
    PathBuf::from(format!("{model}-{kind}.safetensors"))
}

/// The text that was given, or the same that pruning samples where there is none.
fn texts(args: &CalibrateArgs, input: &Input, progress: Progress) -> Result<Sequences> {
    let data = &args.data;
    let (count, length) = (data.calibration_samples, data.sequence_length);
    if let Some(file) = &data.calibration {
        return Sequences::from_file(file, &input.tokenizer, count, length);
    }
    let sampled = sample::texts(&input.model, 0..count, length, data.seed, progress)?;
    Ok(Sequences::cut(&sampled, length))
}

/// One block in memory at a time, whose statistics go to the file before the next one is read.
fn write(
    model: &Model,
    texts: &Sequences,
    gram: bool,
    output: &Path,
    progress: Progress,
) -> Result<()> {
    let folder = staging::parent(output);
    fs::create_dir_all(folder).with_context(|| format!("cannot write `{}`", output.display()))?;
    let mut writer = StatsWriter::create(output)?;
    let mut hidden = HiddenStates::embed(model, texts, model.dtype()?)?;
    let bar = progress.bar("calibrating", model.blocks() * hidden.batches());
    for index in 0..model.blocks() {
        let block = model.block(index)?.widened()?;
        let mut stats = InputStats::new(&model.config, gram, |_| true);
        let observed = if index + 1 < model.blocks() {
            hidden.advance_observed(&block, &mut stats, &bar)
        } else {
            hidden.observe(&block, &mut stats, &bar)
        };
        observed.with_context(|| format!("calibration failed in block {index}"))?;
        for tap in Tap::ALL {
            if let Some((name, stats)) = names(index, tap).next().zip(stats.at(tap)) {
                writer.add(&name, stats)?;
            }
        }
        progress.finished(index + 1, model.blocks());
    }
    writer.finish()?;
    staging::sync_folder(folder)
}
