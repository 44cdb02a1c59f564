//! Writing a model as a Hugging Face folder.

use super::{Model, checkpoint};
use crate::{staging::Staging, tokenizer::Companions};
use anyhow::{Context, Result, bail, ensure};
use std::{collections::HashMap, fs, path::Path};

/// How the model was pruned; its presence marks a folder as written by this program.
pub const RECORD: &str = "pruning.json";

/// Refuses an output folder whose contents are not this program's to replace.
///
/// # Errors
/// Says what is in the way.
pub fn check_output(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    ensure!(
        folder.is_dir(),
        "the output `{}` is a file; choose a folder with `--output`",
        folder.display()
    );
    let names = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .with_context(|| format!("cannot list the output folder `{}`", folder.display()))?;
    let written_here = names.iter().any(|name| name == RECORD);
    let foreign = names
        .iter()
        .find(|name| !written_here || !(checkpoint::is_wanted(name) || *name == RECORD));
    if let Some(name) = foreign {
        bail!(
            "the output folder `{}` holds `{name}`, which this program did not write; move it \
             away, or choose another folder with `--output`",
            folder.display()
        );
    }
    Ok(())
}

/// Writes the folder: weights in the types they are held in, `companions` beside them, and
/// `record`.
///
/// # Errors
/// When the file system refuses; nothing is left behind then.
pub fn save(model: &Model, companions: &Companions, record: &[u8], folder: &Path) -> Result<()> {
    check_output(folder)?;
    let staging = Staging::beside(folder)?;
    let unfinished = staging.path("model");
    let context = || format!("cannot write the model to `{}`", folder.display());
    fs::create_dir(&unfinished).with_context(context)?;
    for (name, contents) in companions {
        fs::write(unfinished.join(name), contents).with_context(context)?;
    }
    fs::write(unfinished.join(RECORD), record).with_context(context)?;
    // transformers refuses files that do not name the framework.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(
        model.tensors(),
        Some(metadata),
        &unfinished.join(checkpoint::SINGLE),
    )
    .with_context(context)?;
    // The writer makes files for their owner's eyes only; the other files have what is usual here.
    let usual = fs::metadata(unfinished.join(RECORD)).with_context(context)?;
    fs::set_permissions(unfinished.join(checkpoint::SINGLE), usual.permissions())
        .with_context(context)?;
    staging.publish("model", folder)
}
