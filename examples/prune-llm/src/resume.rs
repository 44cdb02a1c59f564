//! Work that can be stopped at any moment and gone on with by the same command.
//!
//! Everything is in one folder beside the output: the output as far as it is written, the hidden
//! states of the calibration texts after the last finished block, and a file that says what is
//! finished. That file is written last and replaced by a rename, so whatever it tells of is there.

use crate::{
    hidden::HiddenStates,
    model::{Model, save},
    prune::{Done, Outcome},
    report::Seconds,
    settings::Settings,
    setup::Texts,
    staging,
    text::Sequences,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const STATE: &str = "state.json";
const LOCK: &str = "lock";
const MODEL: &str = "model";
const REPLACED: &str = "replaced";

/// What is known of the dense model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dense {
    pub perplexity: f64,
    pub continuation: String,
}

/// How far the work has come.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    settings: Settings,
    /// The texts that were sampled, once they are.
    pub sampled: Option<Texts>,
    pub dense: Option<Dense>,
    /// Whether all that is not pruned has been copied.
    pub copied: bool,
    /// Blocks that are pruned and written.
    blocks: usize,
    outcome: Outcome,
    /// Where the time went, but for what `outcome` tells.
    pub seconds: Seconds,
}

/// Work that has begun, in its folder.
#[derive(Debug)]
pub struct Unfinished {
    folder: PathBuf,
    pub state: State,
    /// Held as long as the work goes on, and let go by the system however it ends.
    _lock: File,
}

impl Unfinished {
    /// Goes on with the work on `output`, or begins it.
    ///
    /// # Errors
    /// It was begun with other settings, somebody else is at it, or the file system refuses.
    pub fn open(output: &Path, settings: Settings) -> Result<Self> {
        let folder = folder_for(output)?;
        let context = || format!("cannot write to the folder `{}`", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        let lock = File::create(folder.join(LOCK)).with_context(context)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another run is writing `{}`; wait for it, or choose another folder with `--output`",
                output.display()
            ),
            Err(fs::TryLockError::Error(error)) => return Err(error).with_context(context),
        }
        let replaced = folder.join(REPLACED);
        if replaced.is_dir() && !output.exists() {
            // Stopped between moving the old one away and the new one there.
            fs::rename(&replaced, output).with_context(context)?;
        }
        let state = if let Some(state) = saved_state(&folder)? {
            check_settings(&state.settings, &settings, &folder)?;
            let kept = [LOCK, STATE, MODEL, &hidden_name(state.blocks)];
            clear(&folder, &kept).with_context(context)?;
            state
        } else {
            clear(&folder, &[LOCK]).with_context(context)?;
            State {
                settings,
                ..State::default()
            }
        };
        fs::create_dir_all(folder.join(MODEL)).with_context(context)?;
        let unfinished = Self {
            folder,
            state,
            _lock: lock,
        };
        unfinished.save()?;
        Ok(unfinished)
    }

    /// The folder of the work.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many blocks are finished.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.state.blocks
    }

    /// The folder of the pruned model, as far as it is written.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.folder.join(MODEL)
    }

    /// Makes what has been added to the state last.
    ///
    /// # Errors
    /// When the file system refuses; what was saved before stays.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state)?;
        staging::replace(&self.folder.join(STATE), |path| Ok(fs::write(path, &text)?))
    }

    /// Where pruning goes on.
    ///
    /// # Errors
    /// The hidden states cannot be read.
    pub fn done(&self, model: &Model, calibration: Option<&Sequences>) -> Result<Done> {
        let State {
            blocks, outcome, ..
        } = &self.state;
        if *blocks == 0 {
            return Done::nothing(model, calibration);
        }
        // After the last block nobody reads them.
        let calibration = calibration.filter(|_| *blocks < model.blocks());
        let hidden = calibration.map(|texts| {
            let file = self.folder.join(hidden_name(*blocks));
            HiddenStates::load(model, texts, model.dtype()?, &file)
        });
        Ok(Done {
            blocks: *blocks,
            hidden: hidden.transpose()?,
            outcome: outcome.clone(),
        })
    }

    /// Saves that a block is finished; its weights have to be safe by now.
    ///
    /// # Errors
    /// When the file system refuses; what was saved before stays.
    pub fn save_block(&mut self, done: &Done, last: bool) -> Result<()> {
        if let Some(hidden) = done.hidden.as_ref().filter(|_| !last) {
            staging::replace(&self.folder.join(hidden_name(done.blocks)), |path| {
                hidden.save(path)
            })?;
        }
        self.state.blocks = done.blocks;
        self.state.outcome = done.outcome.clone();
        self.save()?;
        let old = self.folder.join(hidden_name(done.blocks - 1));
        if old.exists() {
            fs::remove_file(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        }
        Ok(())
    }

    /// Moves the finished model to where it belongs, in place of what may be there, and clears up.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn publish(self, output: &Path) -> Result<()> {
        save::check_output(output)?;
        staging::sync_folder(&self.model())?;
        staging::move_folder(&self.model(), output, &self.folder.join(REPLACED))?;
        self.discard()
    }

    /// Removes the folder of the work.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn discard(self) -> Result<()> {
        // Without the state there is nothing to go on with, whatever else is left.
        fs::remove_file(self.folder.join(STATE))
            .and_then(|()| fs::remove_dir_all(&self.folder))
            .with_context(|| format!("cannot remove `{}`", self.folder.display()))
    }
}

/// Whether the same command may get further another time: the operating system refused something,
/// which says nothing about the model or the arguments.
#[must_use]
pub fn may_get_further(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let refused = cause.downcast_ref::<wanda::Error>();
        cause.is::<io::Error>() || matches!(refused, Some(wanda::Error::StatsFileAccess { .. }))
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

/// What an earlier run left, if there is a model to go on with: a run that was stopped after it
/// had moved the model away was finished.
fn saved_state(folder: &Path) -> Result<Option<State>> {
    let path = folder.join(STATE);
    if !path.is_file() || !folder.join(MODEL).is_dir() {
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
                "an unfinished run was begun with {name} {before}, and now it is {now}; go on with \
                 what it was begun with, or remove the folder `{}` to start over",
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
