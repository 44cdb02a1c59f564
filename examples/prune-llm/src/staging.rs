//! Files and folders that appear under their names only when they are complete.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A temporary folder on the same file system as the place its contents will move to. Whatever is
/// left in it goes away with it.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
}

impl Staging {
    /// Makes a temporary folder beside `target`, and the folders above it if need be.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = fs::create_dir_all(parent)
            .and_then(|()| {
                tempfile::Builder::new()
                    .prefix(".prune-llm-")
                    .tempdir_in(parent)
            })
            .with_context(|| format!("cannot write to the folder `{}`", parent.display()))?;
        Ok(Self { folder })
    }

    /// The path of something in the temporary folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves something finished to where it belongs. A folder or file that is already there is
    /// replaced, and stays as it is if that fails.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn publish(&self, name: &str, target: &Path) -> Result<()> {
        let finished = self.path(name);
        let moved = if target.is_dir() {
            let old = self.path("replaced");
            fs::rename(target, &old).and_then(|()| {
                fs::rename(&finished, target).inspect_err(|_| {
                    // Nothing more can be done if this fails as well; the error below tells.
                    let _ = fs::rename(&old, target);
                })
            })
        } else {
            fs::rename(&finished, target)
        };
        moved.with_context(|| format!("cannot move the finished `{}` there", target.display()))
    }
}

/// Refuses a folder where a file is to be written.
///
/// # Errors
/// Says that it is one.
pub fn check_file(target: &Path) -> Result<()> {
    ensure!(
        !target.is_dir(),
        "`{}` is a folder; give the name of a file",
        target.display()
    );
    Ok(())
}

/// Writes a file that is either complete or not there.
///
/// # Errors
/// `target` is a folder, or the file system refuses.
pub fn write(target: &Path, contents: &[u8]) -> Result<()> {
    check_file(target)?;
    let staging = Staging::beside(target)?;
    fs::write(staging.path("file"), contents)
        .with_context(|| format!("cannot write `{}`", target.display()))?;
    staging.publish("file", target)
}
