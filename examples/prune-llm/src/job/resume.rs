//! Work that can be stopped at any moment and resumed by the same command.
//!
//! Everything is in one folder beside the output: the output as far as it is written, the hidden
//! states of the calibration texts after the last finished block, and a file that says what is
//! finished. That file is written last and replaced by a rename, so whatever it lists is there.

use super::settings::Settings;
use crate::{
    calibrate::{HiddenStates, Sequences},
    model::{Model, check_output},
    util::staging,
};
use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use wanda::FileError;

const STATE: &str = "state.json";
const LOCK: &str = "lock";
const RESULT: &str = "result";
const REPLACED: &str = "replaced";

/// Work that has begun, in its folder.
#[derive(Debug)]
pub(crate) struct Unfinished<W> {
    folder: PathBuf,
    state: State<W>,
    _lock: Lock,
}

/// Keeps others from a folder as long as the work runs; the system releases it however that ends.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(folder: &Path, output: &Path) -> Result<Self> {
        let context = || format!("cannot write to the folder `{}`", folder.display());
        let file = File::create(folder.join(LOCK)).with_context(context)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another run is writing `{}`; wait for it, or choose another place with `--output`",
                output.display()
            ),
            Err(fs::TryLockError::Error(error)) => Err(error).with_context(context),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is just being started has the file too, and would keep the lock.
        // If this fails it is released when the file is closed everywhere.
        let _ = self.0.unlock();
    }
}

/// How far the work has come.
#[derive(Debug, Serialize, Deserialize)]
struct State<W> {
    settings: Settings,
    /// Blocks that are finished.
    blocks: usize,
    /// What else is finished, which depends on the kind of work.
    work: W,
}

impl<W: Default + Serialize + DeserializeOwned> Unfinished<W> {
    /// Resumes the work on `output`, or begins it.
    ///
    /// # Errors
    /// It was begun with other settings, somebody else is at it, or the file system refuses.
    pub(crate) fn open(output: &Path, settings: Settings) -> Result<Self> {
        let folder = folder_for(output)?;
        let context = || format!("cannot write to the folder `{}`", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        let lock = Lock::take(&folder, output)?;
        let replaced = folder.join(REPLACED);
        if replaced.is_dir() && !output.exists() {
            // Stopped between moving the old one away and the new one there.
            fs::rename(&replaced, output).with_context(context)?;
        }
        let state = if let Some(state) = saved_state::<W>(&folder)? {
            check_settings(&state.settings, &settings, &folder)?;
            let blocks = state.blocks;
            let kept = [
                LOCK,
                STATE,
                RESULT,
                &hidden_name(blocks),
                &dense_name(blocks),
            ];
            clear(&folder, &kept).with_context(context)?;
            state
        } else {
            clear(&folder, &[LOCK]).with_context(context)?;
            State {
                settings,
                blocks: 0,
                work: W::default(),
            }
        };
        let unfinished = Self {
            folder,
            state,
            _lock: lock,
        };
        unfinished.save()?;
        Ok(unfinished)
    }

    /// How many blocks are finished.
    pub(crate) fn blocks(&self) -> usize {
        self.state.blocks
    }

    /// What else is finished.
    pub(crate) fn work(&self) -> &W {
        &self.state.work
    }

    /// The same, to be added to.
    pub(crate) fn work_mut(&mut self) -> &mut W {
        &mut self.state.work
    }

    /// Where the output is, as far as it is written. Without it nothing is resumed.
    pub(crate) fn result(&self) -> PathBuf {
        self.folder.join(RESULT)
    }

    /// Makes what has been added to the work last.
    ///
    /// # Errors
    /// When the file system refuses; what was saved before stays.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state)?;
        staging::replace(&self.folder.join(STATE), |path| Ok(fs::write(path, &text)?))
    }

    /// What the first block reads that is not finished.
    ///
    /// # Errors
    /// The texts do not fit the model, or what was saved of them cannot be read.
    pub(crate) fn hidden(&self, model: &Model, texts: &Sequences) -> Result<HiddenStates> {
        self.stream(model, texts, hidden_name)
    }

    /// The same in the dense model, beside the pruned one.
    ///
    /// # Errors
    /// As [`hidden`](Self::hidden).
    pub(crate) fn dense(&self, model: &Model, texts: &Sequences) -> Result<HiddenStates> {
        self.stream(model, texts, dense_name)
    }

    fn stream(
        &self,
        model: &Model,
        texts: &Sequences,
        name: fn(usize) -> String,
    ) -> Result<HiddenStates> {
        let dtype = model.dtype()?;
        match self.state.blocks {
            0 => HiddenStates::embed(model, texts, dtype),
            blocks => HiddenStates::load(model, texts, dtype, &self.folder.join(name(blocks))),
        }
    }

    /// Saves that another block is finished, and what the next one reads, if there is one, also in
    /// the dense model, if that runs beside. What has been written of the result has to be safe by
    /// now.
    ///
    /// # Errors
    /// When the file system refuses; what was saved before stays.
    pub(crate) fn save_block(
        &mut self,
        hidden: Option<&HiddenStates>,
        dense: Option<&HiddenStates>,
    ) -> Result<()> {
        let names = [hidden_name, dense_name];
        let old = names.map(|name| self.folder.join(name(self.state.blocks)));
        self.state.blocks += 1;
        for (name, stream) in names.into_iter().zip([hidden, dense]) {
            if let Some(stream) = stream {
                let new = self.folder.join(name(self.state.blocks));
                staging::replace(&new, |path| stream.save(path))?;
            }
        }
        self.save()?;
        for old in old.iter().filter(|old| old.exists()) {
            fs::remove_file(old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        }
        Ok(())
    }

    /// The message for work that stopped with an error. What is finished stays where that may
    /// help, and is removed where it cannot.
    pub(crate) fn stopped(self, error: Error) -> Error {
        if may_get_further(&error) {
            return error.context(self.how_to_resume());
        }
        match self.discard() {
            Ok(()) => error,
            Err(left) => error.context(format!("{left:#}, after an error")),
        }
    }

    /// How to resume.
    pub(crate) fn how_to_resume(&self) -> String {
        format!(
            "stopped; once the cause is gone, the same command resumes from what is finished, in \
             `{}`",
            self.folder.display()
        )
    }

    /// Moves a finished folder to where it belongs, in place of what may be there, and clears up.
    pub(crate) fn publish(self, output: &Path) -> Result<()> {
        check_output(output)?;
        staging::sync_folder(&self.result())?;
        staging::move_folder(&self.result(), output, &self.folder.join(REPLACED))?;
        self.discard()
    }

    /// Removes the folder of the work.
    pub(crate) fn discard(self) -> Result<()> {
        // Without the state there is nothing to resume, whatever else is left.
        fs::remove_file(self.folder.join(STATE))
            .and_then(|()| fs::remove_dir_all(&self.folder))
            .with_context(|| format!("cannot remove `{}`", self.folder.display()))
    }
}

/// Whether the same command may get further another time: the operating system refused something,
/// which says nothing about the model or the arguments.
fn may_get_further(error: &Error) -> bool {
    error.chain().any(|cause| {
        let refused = cause.downcast_ref::<wanda::Error>();
        cause.is::<io::Error>()
            || matches!(refused, Some(wanda::Error::File(FileError::Access { .. })))
    })
}

fn folder_for(output: &Path) -> Result<PathBuf> {
    let name = output
        .file_name()
        .with_context(|| format!("the output `{}` has no name", output.display()))?;
    let name = format!(".{}.unfinished", name.to_string_lossy());
    Ok(staging::parent(output).join(name))
}

fn hidden_name(blocks: usize) -> String {
    format!("hidden-{blocks}.safetensors")
}

fn dense_name(blocks: usize) -> String {
    format!("dense-{blocks}.safetensors")
}

/// What an earlier run left, if there is a result to resume: a run that was stopped after it
/// had moved the result away was finished.
fn saved_state<W: DeserializeOwned>(folder: &Path) -> Result<Option<State<W>>> {
    let path = folder.join(STATE);
    if !path.is_file() || !folder.join(RESULT).exists() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let state = serde_json::from_slice(&text).with_context(|| {
        format!(
            "`{}` is damaged; remove the folder `{}` to start over",
            path.display(),
            folder.display()
        )
    })?;
    Ok(Some(state))
}

fn check_settings(before: &Settings, now: &Settings, folder: &Path) -> Result<()> {
    let value = |settings: &Settings, name: &str| {
        let mut settings = settings.iter();
        let found = settings.find(|(found, _)| found == name);
        found.map_or("not there".to_owned(), |(_, value)| value.clone())
    };
    for (name, _) in before.iter().chain(now) {
        let (before, now) = (value(before, name), value(now, name));
        if before != now {
            bail!(
                "an unfinished run was begun with {name} {before}, and now it is {now}; resume it \
                 with what it was begun with, or remove the folder `{}` to start over",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Removes everything but what is named.
fn clear(folder: &Path, kept: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if kept.iter().any(|name| entry.file_name() == **name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
