//! Gathering the statistics of a dense model into a file.

use super::{resume::Unfinished, settings, setup};
use crate::{
    calibrate::{InputStats, Sequences, sample},
    cli::CalibrateArgs,
    model::{Input, Location, Model, module_name},
    util::{Progress, staging},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use wanda::stats::file::{Checkpoint, StatsWriter};

/// What is finished besides blocks.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Finished {
    /// The text that was sampled, once it is.
    sampled: Option<Sequences>,
    /// How far the file is written, once there are blocks in it.
    written: Option<Checkpoint>,
}

/// Runs the dense model over the calibration text and writes the statistics of all inputs; prints
/// results on standard output. Resumes the same job where it was stopped.
///
/// # Errors
/// The model or the text cannot be read, they do not fit each other, or the file cannot be
/// written.
pub fn calibrate(args: &CalibrateArgs, progress: Progress) -> Result<()> {
    let location = Location::find(args.data.model.as_deref(), progress)?;
    let output = match &args.output {
        Some(file) => file.clone(),
        None => default_file(&location.name, args.gram),
    };
    staging::check_file(&output)?;
    let path = location.path.clone();
    let input = location.open()?;
    let given = setup::calibration_text(&args.data, &input.tokenizer)?;
    let settings = settings::calibrate(args, &path, given.as_ref())?;
    let mut job = Job {
        args,
        input,
        unfinished: Unfinished::open(&output, settings)?,
        progress,
    };
    if let Err(error) = job.work(given, &output) {
        return Err(job.unfinished.stopped(error));
    }
    job.unfinished.discard()?;
    println!("written to `{}`", output.display());
    Ok(())
}

fn default_file(model: &str, gram: bool) -> PathBuf {
    let kind = if gram { "gram" } else { "norms" };
    PathBuf::from(format!("{model}-{kind}.safetensors"))
}

struct Job<'a> {
    args: &'a CalibrateArgs,
    input: Input,
    unfinished: Unfinished<Finished>,
    progress: Progress,
}

impl Job<'_> {
    /// All between opening the model and clearing up.
    fn work(&mut self, given: Option<Sequences>, output: &Path) -> Result<()> {
        let text = given.map_or_else(|| self.sampled(), Ok)?;
        setup::announce(&self.input, Some(&text));
        let mut writer = self.writer(output)?;
        self.gather(&text, &mut writer)?;
        writer.finish()?;
        staging::sync_folder(staging::parent(output))
    }

    /// The same text that pruning samples where none is given, sampled now or before.
    fn sampled(&mut self) -> Result<Sequences> {
        if let Some(text) = &self.unfinished.work().sampled {
            return Ok(text.clone());
        }
        let data = &self.args.data;
        let (count, length) = (data.calibration_samples, data.sequence_length);
        let model = &self.input.model;
        let sampled = sample::texts(model, 0..count, length, data.seed, self.progress)?;
        let text = Sequences::cut(&sampled, length);
        self.unfinished.work_mut().sampled = Some(text.clone());
        self.unfinished.save()?;
        Ok(text)
    }

    /// The file, begun now or before.
    fn writer(&self, output: &Path) -> Result<StatsWriter> {
        let unfinished = self.unfinished.result();
        Ok(match self.unfinished.work().written.clone() {
            Some(written) => StatsWriter::resume(output, unfinished, written)?,
            None => StatsWriter::create_resumable(output, unfinished, layers(&self.input.model))?,
        })
    }

    /// Runs the blocks that are left, one in memory at a time.
    fn gather(&mut self, text: &Sequences, writer: &mut StatsWriter) -> Result<()> {
        let model = &self.input.model;
        let (begun, blocks) = (self.unfinished.blocks(), model.blocks());
        if begun > 0 {
            println!("resuming after block {begun} of {blocks}");
        }
        if begun == blocks {
            return Ok(());
        }
        let mut hidden = self.unfinished.hidden(model, text)?;
        let steps = (blocks - begun) * hidden.batches();
        let bar = self.progress.bar("calibrating", steps);
        for index in begun..blocks {
            let block = model.block(index)?.widened()?;
            let mut stats = InputStats::new(model.spec(), self.args.gram, |_| true);
            let last = index + 1 == blocks;
            let observed = if last {
                hidden.observe(&block, &mut stats, &bar)
            } else {
                hidden.advance(&block, &mut stats, &bar)
            };
            observed.with_context(|| format!("calibration failed in block {index}"))?;
            for (readers, stats) in stats.known() {
                if let Some(module) = readers.first() {
                    writer.add(&module_name(index, module), stats)?;
                }
            }
            self.unfinished.work_mut().written = Some(writer.checkpoint()?);
            self.unfinished
                .save_block((!last).then_some(&hidden), None)?;
            self.progress.finished(index + 1, blocks);
        }
        Ok(())
    }
}

/// The layers that the file is of: of those that read the same input the first.
fn layers(model: &Model) -> impl Iterator<Item = String> {
    let (spec, blocks) = (model.spec(), 0..model.blocks());
    let first = move |input| spec.readers(input).next();
    blocks.flat_map(move |block| {
        let layers = (0..spec.inputs()).filter_map(first);
        layers.map(move |(_, layer)| layer.full_name(block))
    })
}
