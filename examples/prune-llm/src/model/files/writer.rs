//! Writing a model as a Hugging Face folder, tensor by tensor.

use super::{checkpoint::is_wanted, layout::FileLayout, raw};
use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// How the model was pruned; its presence marks a folder as written by this program.
pub const RECORD: &str = "pruning.json";

/// Refuses an output folder whose contents are not this program's to replace.
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
        .find(|name| !written_here || !(is_wanted(name) || *name == RECORD));
    if let Some(name) = foreign {
        bail!(
            "the output folder `{}` holds `{name}`, which this program did not write; move it \
             away, or choose another folder with `--output`",
            folder.display()
        );
    }
    Ok(())
}

/// Safetensors files whose tensors are filled in one by one, in any order.
#[derive(Debug)]
pub struct Writer {
    files: Vec<OutputFile>,
    file_of: HashMap<String, usize>,
}

#[derive(Debug)]
struct OutputFile {
    path: PathBuf,
    file: File,
    layout: FileLayout,
}

impl Writer {
    /// Creates the files, or opens those that are there to fill in what is missing.
    pub fn open(folder: &Path, layouts: Vec<FileLayout>) -> Result<Self> {
        let mut writer = Self {
            files: Vec::with_capacity(layouts.len()),
            file_of: HashMap::new(),
        };
        for layout in layouts {
            let path = folder.join(&layout.name);
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .and_then(|mut file| file.write_all(&layout.header).map(|()| file))
                .with_context(|| cannot_write(&path))?;
            let names = layout.tensors.iter().map(|(name, _)| name.clone());
            let index = writer.files.len();
            writer.file_of.extend(names.map(|name| (name, index)));
            writer.files.push(OutputFile { path, file, layout });
        }
        Ok(writer)
    }

    /// The names of all tensors, file by file, in the order they lie in.
    pub fn names(&self) -> Vec<String> {
        let files = self.files.iter();
        files
            .flat_map(|file| &file.layout.tensors)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Writes one tensor.
    ///
    /// # Errors
    /// It does not belong here, or the file system refuses.
    pub fn write(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.fill(name, |to| raw::write(tensor, to))
    }

    /// Lets `f` write one tensor's bytes.
    ///
    /// # Errors
    /// The tensor does not belong here, it is of another size, or what `f` returns.
    pub fn fill(&mut self, name: &str, f: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let place = self.file_of.get(name).and_then(|&index| {
            let file = self.files.get_mut(index)?;
            let mut tensors = file.layout.tensors.iter();
            let (_, range) = tensors.find(|(found, _)| found == name)?;
            Some((&mut file.file, &file.path, range.clone()))
        });
        let (file, path, range) =
            place.with_context(|| format!("there is no place for a tensor `{name}`"))?;
        let context = || format!("tensor `{name}`: {}", cannot_write(path));
        file.seek(SeekFrom::Start(range.start))
            .with_context(context)?;
        f(file).with_context(context)?;
        let end = file.stream_position().with_context(context)?;
        ensure!(end == range.end, "tensor `{name}` has another size");
        Ok(())
    }

    /// Waits until everything written so far would survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        for OutputFile { path, file, .. } in &self.files {
            file.sync_data().with_context(|| cannot_write(path))?;
        }
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
