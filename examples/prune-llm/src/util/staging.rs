//! Files and folders that appear under their names only when they are complete.

use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// The folder that something is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Refuses a folder where a file is to be written.
pub(crate) fn check_file(target: &Path) -> Result<()> {
    ensure!(
        !target.is_dir(),
        "`{}` is a folder; give the name of a file",
        target.display()
    );
    Ok(())
}

/// Writes a file that is either complete or not there, and the folders above it if need be.
///
/// # Errors
/// `target` is a folder, or the file system refuses.
pub(crate) fn write(target: &Path, contents: &[u8]) -> Result<()> {
    check_file(target)?;
    fs::create_dir_all(parent(target))
        .with_context(|| format!("cannot write `{}`", target.display()))?;
    replace(target, |path| Ok(fs::write(path, contents)?))
}

/// Lets `write` write a file under another name, and gives it its own when it is safe on disk. A
/// file that is already there is replaced, and stays as it is if that fails.
pub(crate) fn replace(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = target.with_file_name(format!(".{name}.unfinished"));
    let publish = || {
        // Written to, since some systems make nothing safe that was opened for reading.
        OpenOptions::new()
            .append(true)
            .open(&unfinished)?
            .sync_all()?;
        fs::rename(&unfinished, target)
    };
    let written = write(&unfinished).and_then(|()| Ok(publish()?));
    if written.is_err() {
        // It may never have been made; the error below tells all.
        let _ = fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("cannot write `{}`", target.display()))?;
    sync_folder(parent(target))
}

/// Moves a finished folder to where it belongs. A folder that is already there goes to `replaced`,
/// or stays where it is if anything fails.
pub(crate) fn move_folder(finished: &Path, target: &Path, replaced: &Path) -> Result<()> {
    let moved = if target.is_dir() {
        fs::rename(target, replaced).and_then(|()| {
            fs::rename(finished, target).inspect_err(|_| {
                // Nothing more can be done if this fails as well; the error below tells.
                let _ = fs::rename(replaced, target);
            })
        })
    } else {
        fs::rename(finished, target)
    };
    moved.with_context(|| format!("cannot move the finished `{}` there", target.display()))?;
    sync_folder(parent(target))
}

/// Waits until the names in a folder would survive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let sync = || -> io::Result<()> {
        // Elsewhere a folder cannot be opened.
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    sync().with_context(|| format!("cannot write to the folder `{}`", folder.display()))
}
