//! Gathering the statistics of a dense model into a file.

use super::names;
use crate::{
    cli::CalibrateArgs,
    input::Location,
    model::{Model, Tap},
    progress::Progress,
    sample,
    staging::{self, Staging},
    stats::InputStats,
    text::Sequences,
};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
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
    let input = location.load(progress)?;
    let texts = texts(args, &input.model, &input.tokenizer, progress)?;
    println!(
        "{}: {} blocks\ncalibration: {} x {} tokens",
        input.name,
        input.model.blocks().len(),
        texts.count(),
        texts.length()
    );
    write(&input.model, &texts, args.gram, &output, progress)?;
    println!("written to `{}`", output.display());
    Ok(())
}

fn default_file(model: &str, gram: bool) -> PathBuf {
    let kind = if gram { "gram" } else { "norms" };
    PathBuf::from(format!("{model}-{kind}.safetensors"))
}

/// The text that was given, or the same that pruning samples where there is none.
fn texts(
    args: &CalibrateArgs,
    model: &Model,
    tokenizer: &Tokenizer,
    progress: Progress,
) -> Result<Sequences> {
    let data = &args.data;
    let (count, length) = (data.calibration_samples, data.sequence_length);
    if let Some(file) = &data.calibration {
        return Sequences::from_file(file, tokenizer, count, length);
    }
    let sampled = sample::texts(model, 0..count, length, data.seed, progress)?;
    Ok(Sequences::cut(&sampled, length))
}

/// Block by block: statistics go to the file as soon as they are complete.
fn write(
    model: &Model,
    texts: &Sequences,
    gram: bool,
    output: &Path,
    progress: Progress,
) -> Result<()> {
    let staging = Staging::beside(output)?;
    let mut writer = StatsWriter::create(staging.path("statistics"))?;
    let rope = model.rope(texts.length())?;
    let mut batches = texts.embed(model)?;
    let bar = progress.bar("calibrating", model.blocks().len() * batches.len());
    for (index, block) in model.blocks().iter().enumerate() {
        let block = block.widened()?;
        let mut stats = InputStats::new(&model.config, gram);
        for x in &mut batches {
            *x = block
                .forward_observed(x, &rope, &mut stats)
                .with_context(|| format!("calibration failed in block {index}"))?;
            bar.inc(1);
        }
        for tap in Tap::ALL {
            for name in names(index, tap).take(1) {
                writer.add(&name, stats.layer(tap))?;
            }
        }
    }
    writer.finish()?;
    staging.publish("statistics", output)
}
