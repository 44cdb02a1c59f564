//! All that the result of a run depends on, so that it is never resumed as another one.

use super::setup::Texts;
use crate::{
    calibrate::Sequences,
    cli::{CalibrateArgs, CalibrationArgs, InputArgs, PruneArgs},
    model::is_wanted,
    report::ChosenLayers,
    util::checksum::{hexadecimal, sha256},
};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Pairs of what a setting is called and its value.
pub(crate) type Settings = Vec<(String, String)>;

/// The settings of pruning the model at `path` with these of the texts that are given.
///
/// Weights are too large to be read for this; a file of weights counts as the same if its size and
/// the time of its last change are.
pub(crate) fn prune(args: &PruneArgs, path: &Path, given: &Texts) -> Result<Settings> {
    let PruneArgs {
        input,
        layers,
        statistics,
        continuation,
        // All that the recipe tells, and where results go.
        preset: _,
        method: _,
        update: _,
        pattern: _,
        order: _,
        target: _,
        damping: _,
        output_weights: _,
        output: _,
        report: _,
        html: _,
        dry_run: _,
    } = args;
    let InputArgs {
        data,
        eval: _,
        eval_windows,
        eval_length,
    } = input;
    let recipe = args.recipe();
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let choice = ChosenLayers::new(layers);
    let own = [
        ("--method", recipe.method.to_string()),
        ("--update", recipe.update.to_string()),
        ("--pattern", recipe.pattern.to_string()),
        ("--order", recipe.order.to_string()),
        ("--target", recipe.target.to_string()),
        ("--damping", recipe.damping.to_string()),
        ("--output-weights", recipe.output_weights.to_string()),
        ("--include", list(choice.include)),
        ("--exclude", list(choice.exclude)),
        ("--sparsity-of", list(choice.sparsity_of)),
        ("--statistics", list(checksums(statistics)?)),
        ("--eval", text(given.evaluation.as_ref())),
        ("--eval-windows", eval_windows.to_string()),
        ("--eval-length", eval_length.to_string()),
        ("--continuation", continuation.to_string()),
    ];
    of_all(own, data, path, given.calibration.as_ref())
}

/// The settings of calibrating the model at `path` on this text, if it is given.
pub(crate) fn calibrate(
    args: &CalibrateArgs,
    path: &Path,
    given: Option<&Sequences>,
) -> Result<Settings> {
    let CalibrateArgs {
        data,
        gram,
        output: _,
    } = args;
    of_all([("--gram", gram.to_string())], data, path, given)
}

/// Those of one kind of work, and those that all kinds have.
fn of_all<const N: usize>(
    own: [(&str, String); N],
    data: &CalibrationArgs,
    path: &Path,
    calibration: Option<&Sequences>,
) -> Result<Settings> {
    let CalibrationArgs {
        model: _,
        // What they give is in the tokens.
        calibration: _,
        spread: _,
        calibration_samples,
        sequence_length,
        seed,
    } = data;
    let common = [
        ("prune-llm", env!("CARGO_PKG_VERSION").to_owned()),
        ("--model", path.display().to_string()),
        ("--calibration", text(calibration)),
        ("--calibration-samples", calibration_samples.to_string()),
        ("--sequence-length", sequence_length.to_string()),
        ("--seed", seed.to_string()),
    ];
    let named = common.into_iter().chain(own);
    let named = named.map(|(name, value)| (name.to_owned(), value));
    Ok(named.chain(files(path)?).collect())
}

/// The files, each with a checksum that shows whether it has changed.
fn checksums(files: &[PathBuf]) -> Result<Vec<String>> {
    let files = files.iter();
    let checksums = files.map(|file| {
        let checksum = sha256(file)?;
        Ok(format!(
            "`{}` with the SHA-256 checksum {checksum}",
            file.display()
        ))
    });
    checksums.collect()
}

fn text(sequences: Option<&Sequences>) -> String {
    match sequences {
        None => "sampled".to_owned(),
        Some(sequences) => {
            let mut hash = Sha256::new();
            for token in sequences.iter().flatten() {
                hash.update(token.to_le_bytes());
            }
            let checksum = hexadecimal(&hash.finalize());
            format!("tokens with the SHA-256 checksum {checksum}")
        }
    }
}

/// The model's files, each with what shows whether it has changed.
fn files(path: &Path) -> Result<Settings> {
    let context = || format!("cannot look at `{}`", path.display());
    let files = if path.is_dir() {
        model_files(path).with_context(context)?
    } else {
        vec![path.to_owned()]
    };
    files
        .iter()
        .map(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            Ok((format!("the file `{name}`"), identity(file)?))
        })
        .collect::<io::Result<_>>()
        .with_context(context)
}

fn model_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_wanted(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn identity(file: &Path) -> io::Result<String> {
    let metadata = fs::metadata(file)?;
    let changed = metadata.modified()?;
    let since_1970 = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!(
        "of {} bytes, last changed {} s after 1970",
        metadata.len(),
        since_1970.as_secs_f64()
    ))
}
