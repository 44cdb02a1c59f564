//! The whole job, in order.

use super::{
    blocks::{Done, Outcome, Sink, prune_blocks},
    perplexity::{check_finite, perplexity},
    resume::Unfinished,
    settings,
    setup::{self, Needs, Texts},
};
use crate::{
    calibrate::{Files, Sequences, Streams, sample},
    cli::PruneArgs,
    model::{Block, Input, Location, Model, RECORD, Writer, check_output, open_folder, tokenizer},
    plan::{Plan, Recipe},
    report::{
        Calibration, ChosenLayers, Continuation, Layer, Report, Seconds, Text, html,
        peak_memory_bytes,
    },
    util::{Progress, staging},
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, fs, path::PathBuf, time::Instant};

/// What both models are asked to continue.
const PROMPT: &str = "The three most important things to know about the ocean are";

/// What of a job is finished besides blocks.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Finished {
    /// The texts that were sampled, once they are.
    sampled: Option<Texts>,
    dense: Option<Dense>,
    /// Whether all that is not pruned has been copied.
    copied: bool,
    /// What pruning the finished blocks gave.
    outcome: Outcome,
    /// Where the time went, without what `outcome` holds.
    seconds: Seconds,
}

/// What is known of the dense model.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Dense {
    perplexity: f64,
    continuation: String,
}

/// Measures, prunes, measures again, writes; prints results on standard output. Resumes the same job
/// where it was stopped.
pub fn prune(args: &PruneArgs, progress: Progress) -> Result<Report> {
    let start = Instant::now();
    let location = Location::find(args.input.data.model.as_deref(), progress)?;
    let output = output_folder(args, &location)?;
    for path in [&args.report, &args.html].into_iter().flatten() {
        staging::check_file(path)?;
    }
    let path = location.path.clone();
    let input = location.open()?;
    let model = &input.model;
    let plan = Plan::new(model.spec(), model.blocks(), args.recipe(), &args.layers)?;
    let files = Files::given(&args.statistics, &plan)?;
    let given = Texts::read(&args.input, &input.tokenizer)?;
    let unfinished = Unfinished::open(&output, settings::prune(args, &path, &given)?)?;
    let mut job = Job {
        args,
        input,
        plan,
        files,
        given,
        unfinished,
        progress,
    };
    job.unfinished.work_mut().seconds.load += start.elapsed().as_secs_f64();

    let report = match job.work() {
        Ok(report) => report,
        Err(error) => return Err(job.unfinished.stopped(error)),
    };
    // Before the work is over, so that a full disk does not cost it.
    write_reports(args, &report).with_context(|| job.unfinished.how_to_resume())?;
    job.unfinished.publish(&output)?;
    println!("model written to `{}`", output.display());
    Ok(report)
}

fn write_reports(args: &PruneArgs, report: &Report) -> Result<()> {
    if let Some(path) = &args.report {
        staging::write(path, &report.to_json()?).context("cannot write the report")?;
        println!("report written to `{}`", path.display());
    }
    if let Some(path) = &args.html {
        let page = html::page(report)?;
        staging::write(path, page.as_bytes()).context("cannot write the page")?;
        println!("page written to `{}`", path.display());
    }
    Ok(())
}

struct Job<'a> {
    args: &'a PruneArgs,
    input: Input,
    plan: Plan,
    /// Statistics that take the place of calibration.
    files: Option<Files>,
    /// The texts that come from files.
    given: Texts,
    unfinished: Unfinished<Finished>,
    progress: Progress,
}

impl Job<'_> {
    /// All between opening the model and moving the finished one to its place.
    fn work(&mut self) -> Result<Report> {
        let texts = self.texts()?;
        setup::announce(&self.input, texts.calibration.as_ref());
        let dense = self.dense(&texts)?;
        let outcome = self.prune(&texts)?;
        println!("pruned with {}: {outcome}", self.plan.recipe);
        let model = self.pruned()?;
        let perplexity = self.pruned_perplexity(&model, &texts)?;
        let continuation = self.continuations(dense.continuation, &model)?;
        let report = self.report(outcome, dense.perplexity, perplexity, continuation);
        staging::write(&self.unfinished.result().join(RECORD), &report.to_record()?)?;
        Ok(report)
    }

    /// The texts of the files and, where there are none, texts sampled now or before.
    fn texts(&mut self) -> Result<Texts> {
        let needs = self.needs();
        let finished = self.unfinished.work_mut();
        if finished.sampled.is_none() {
            let sampled = self.given.sample(
                &self.args.input,
                needs,
                &self.input.model,
                &mut finished.seconds,
                self.progress,
            )?;
            finished.sampled = Some(sampled);
            self.unfinished.save()?;
        }
        let sampled = self.unfinished.work().sampled.as_ref();
        Ok(sampled.map_or(self.given.clone(), |sampled| self.given.or(sampled)))
    }

    fn needs(&self) -> Needs {
        if self.files.is_some() {
            Needs::Files
        } else if self.plan.recipe.needs_calibration() {
            Needs::Texts
        } else {
            Needs::Nothing
        }
    }

    /// What there is to know of the dense model, found out now or before.
    fn dense(&mut self, texts: &Texts) -> Result<Dense> {
        if let Some(dense) = &self.unfinished.work().dense {
            println!("dense perplexity: {:.3}, measured before", dense.perplexity);
            return Ok(dense.clone());
        }
        let dense = Dense {
            perplexity: setup::dense_perplexity(
                &self.input.model,
                texts.evaluation()?,
                &mut self.unfinished.work_mut().seconds,
                self.progress,
            )?,
            continuation: self.continuation(&self.input.model)?,
        };
        self.unfinished.work_mut().dense = Some(dense.clone());
        self.unfinished.save()?;
        Ok(dense)
    }

    /// Writes everything of the pruned model but the record.
    fn prune(&mut self, texts: &Texts) -> Result<Outcome> {
        let model = &self.input.model;
        let folder = self.unfinished.result();
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot write to the folder `{}`", folder.display()))?;
        let mut writer = Writer::open(&folder, model.layout()?)?;
        if !self.unfinished.work().copied {
            for (name, contents) in &self.input.companions {
                staging::write(&folder.join(name), contents)?;
            }
            copy_the_rest(model, &self.plan, &mut writer)?;
            self.unfinished.work_mut().copied = true;
            self.unfinished.save()?;
        }
        let calibration = texts.calibration.as_ref();
        let done = done(&self.unfinished, model, &self.plan, calibration)?;
        if done.blocks > 0 {
            println!("resuming after block {} of {}", done.blocks, model.blocks());
        }
        let mut sink = BlockWriter {
            plan: &self.plan,
            blocks: model.blocks(),
            progress: self.progress,
            writer,
            unfinished: &mut self.unfinished,
        };
        let files = self.files.as_mut();
        prune_blocks(model, &self.plan, done, files, &mut sink, self.progress)
    }

    /// The pruned model as it has been written.
    fn pruned(&self) -> Result<Model> {
        Ok(open_folder(&self.unfinished.result())?.0)
    }

    fn pruned_perplexity(&mut self, model: &Model, texts: &Texts) -> Result<f64> {
        let start = Instant::now();
        let perplexity = check_finite(perplexity(model, texts.evaluation()?, self.progress)?)?;
        self.unfinished.work_mut().seconds.evaluate += start.elapsed().as_secs_f64();
        println!("pruned perplexity: {perplexity:.3}");
        Ok(perplexity)
    }

    /// The continuations by both models, if they were asked for; prints them.
    fn continuations(&self, dense: String, pruned: &Model) -> Result<Option<Continuation>> {
        if self.args.continuation == 0 {
            return Ok(None);
        }
        let pruned = self.continuation(pruned)?;
        println!("\ndense:  {PROMPT}{dense}\npruned: {PROMPT}{pruned}\n");
        Ok(Some(Continuation {
            prompt: PROMPT.to_owned(),
            dense,
            pruned,
        }))
    }

    fn report(
        &self,
        outcome: Outcome,
        dense_perplexity: f64,
        perplexity: f64,
        continuation: Option<Continuation>,
    ) -> Report {
        let seconds = &self.unfinished.work().seconds;
        let args = &self.args.input;
        let data = &args.data;
        Report {
            model: data.model.clone().unwrap_or(self.input.name.clone()),
            recipe: self.plan.recipe,
            choice: ChosenLayers::new(&self.args.layers),
            seed: data.seed,
            calibration: calibration(self.args),
            evaluation: Text::new(args.eval.as_deref(), args.eval_windows, args.eval_length),
            dense_perplexity,
            perplexity,
            sparsity: outcome.sparsity(),
            seconds: Seconds {
                load: seconds.load,
                calibrate: seconds.calibrate + outcome.calibrate.as_secs_f64(),
                prune: outcome.prune.as_secs_f64(),
                evaluate: seconds.evaluate,
            },
            peak_memory_bytes: peak_memory_bytes(),
            layers: layers(&outcome),
            inputs: outcome.inputs,
            continuation,
        }
    }

    /// What a model puts after the prompt, on one line.
    fn continuation(&self, model: &Model) -> Result<String> {
        if self.args.continuation == 0 {
            return Ok(String::new());
        }
        let tokenizer = &self.input.tokenizer;
        let mut tokens = tokenizer::tokens(tokenizer, PROMPT)?;
        tokens.extend(sample::continuation(
            model,
            &tokens,
            self.args.continuation,
        )?);
        // All of it, since a decoder may drop the space that a text begins with.
        let text = tokenizer::text(tokenizer, &tokens)?;
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(line.strip_prefix(PROMPT).unwrap_or(&line).to_owned())
    }
}

/// Where pruning begins or resumes.
fn done(
    unfinished: &Unfinished<Finished>,
    model: &Model,
    plan: &Plan,
    calibration: Option<&Sequences>,
) -> Result<Done> {
    let blocks = unfinished.blocks();
    // After the last block nobody reads them.
    let calibration = calibration.filter(|_| blocks < model.blocks());
    let streams = calibration.map(|texts| {
        let with_dense = plan.recipe.target.is_on();
        let dense = with_dense.then(|| unfinished.dense(model, texts));
        anyhow::Ok(Streams {
            pruned: unfinished.hidden(model, texts)?,
            dense: dense.transpose()?,
        })
    });
    Ok(Done {
        blocks,
        streams: streams.transpose()?,
        outcome: unfinished.work().outcome.clone(),
    })
}

/// Copies all that is not pruned, byte for byte.
fn copy_the_rest(model: &Model, plan: &Plan, writer: &mut Writer) -> Result<()> {
    let pruned: HashSet<String> = plan
        .layers()
        .map(|(block, layer, _)| layer.weight_name(block))
        .collect();
    for name in writer.names() {
        if !pruned.contains(&name) {
            writer.fill(&name, |to| model.copy(&name, to))?;
        }
    }
    writer.sync()
}

/// Writes the layers of every block that is finished.
struct BlockWriter<'a> {
    plan: &'a Plan,
    blocks: usize,
    progress: Progress,
    writer: Writer,
    unfinished: &'a mut Unfinished<Finished>,
}

impl Sink for BlockWriter<'_> {
    fn finished(&mut self, block: &Block, done: &Done) -> Result<()> {
        let index = done.blocks - 1;
        for (place, layer, _) in self.plan.block(index) {
            let name = layer.weight_name(index);
            self.writer.write(&name, block.weight(place))?;
        }
        self.writer.sync()?;
        self.unfinished.work_mut().outcome = done.outcome.clone();
        let streams = done.streams.as_ref();
        // After the last block nobody reads them.
        let streams = streams.filter(|_| done.blocks < self.blocks);
        self.unfinished.save_block(
            streams.map(|streams| &streams.pruned),
            streams.and_then(|streams| streams.dense.as_ref()),
        )?;
        self.progress.finished(done.blocks, self.blocks);
        Ok(())
    }
}

/// What a run with these arguments calibrates on.
fn calibration(args: &PruneArgs) -> Option<Calibration> {
    let data = &args.input.data;
    if !args.statistics.is_empty() {
        let files = args.statistics.iter();
        let names = files.map(|file| file.display().to_string()).collect();
        return Some(Calibration::Statistics(names));
    }
    (data.calibration.is_some() || args.recipe().needs_calibration()).then(|| {
        Calibration::Text(Text::new(
            data.calibration.as_deref(),
            data.calibration_samples,
            data.sequence_length,
        ))
    })
}

/// The layers' part of the report.
fn layers(outcome: &Outcome) -> Vec<Layer> {
    outcome
        .layers
        .iter()
        .map(|(name, report)| Layer {
            name: name.clone(),
            shape: [report.rows(), report.columns()],
            sparsity: report.sparsity(),
            relative_error: report.relative_error().map(|error| error.value()),
            target_error: report.target_error().map(|error| error.value()),
            iterations: report.solved().map(|solved| solved.iterations()),
            error_basis: report.relative_error().map(|error| error.basis()),
            damping: report.damping(),
            seconds: report.time().as_secs_f64(),
        })
        .collect()
}

/// Where the result goes, refused now if it cannot go there: before the work and not after.
pub(super) fn output_folder(args: &PruneArgs, location: &Location) -> Result<PathBuf> {
    let output = match &args.output {
        Some(folder) => folder.clone(),
        None => default_folder(&location.name, &args.recipe()),
    };
    check_output(&output)?;
    ensure!(
        output.canonicalize().ok().as_deref() != Some(&*location.path),
        "the output folder `{}` is where the model is read from; choose another with `--output`",
        output.display()
    );
    Ok(output)
}

fn default_folder(model: &str, recipe: &Recipe) -> PathBuf {
    let pattern = recipe.pattern.to_string().replace(':', "-");
    PathBuf::from(format!("{model}-{}-{pattern}", recipe.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Method, Update};
    use wanda::Pattern;

    #[test]
    fn the_default_folder_names_what_was_done() {
        for (method, update, pattern, expected) in [
            (
                Method::Wanda,
                Update::None,
                Pattern::PerOutput(0.5),
                "m-wanda-0.5",
            ),
            (
                Method::Wanda,
                Update::Obs,
                Pattern::PerOutput(0.5),
                "m-wanda-obs-0.5",
            ),
            (
                Method::SparseGpt,
                Update::Obs,
                Pattern::PerLayer(0.5),
                "m-sparsegpt-per-layer-0.5",
            ),
        ] {
            let recipe = Recipe::published(method, update, pattern);
            assert_eq!(default_folder("m", &recipe), PathBuf::from(expected));
        }
    }
}
