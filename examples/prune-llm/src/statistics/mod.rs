//! Statistics of a model's inputs as files: gathered by `prune-llm calibrate` or by llama.cpp, and
//! used in place of calibration.

pub mod calibrate;
mod imatrix;
pub mod inputs;
pub mod outliers;

use crate::{
    model::{Config, Tap, layer_name},
    plan::Plan,
};
use anyhow::{Context, Result, bail, ensure};
use imatrix::Imatrix;
use inputs::InputStats;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};
use wanda::{ActivationStats, LayerStats, stats::file::StatsFile};

/// The name that this program gives the statistics of an input.
fn name(block: usize, tap: Tap) -> Option<String> {
    names(block, tap).next()
}

/// The names that the statistics of an input may have: those of the layers that read it.
fn names(block: usize, tap: Tap) -> impl Iterator<Item = String> {
    let layers = tap.layers().iter();
    layers.map(move |&layer| layer_name(block, layer))
}

/// Files that take the place of calibration. Where several have statistics of the same layer,
/// these are added up.
#[derive(Debug)]
pub struct Files {
    files: Vec<(PathBuf, Format)>,
}

#[derive(Debug)]
enum Format {
    Wanda(StatsFile),
    Imatrix(Imatrix),
}

impl Files {
    /// Those that are to be used, if there are any.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn given(paths: &[PathBuf], config: &Config, plan: &Plan) -> Result<Option<Self>> {
        let given = !paths.is_empty();
        given.then(|| Self::open(paths, config, plan)).transpose()
    }

    /// Opens files and checks that they fit the model, and that nothing the plan needs is missing.
    ///
    /// # Errors
    /// A file is damaged or of another model, an input of a layer to prune is in none of them, or
    /// Gram matrices are needed and a file has norms.
    pub fn open(paths: &[PathBuf], config: &Config, plan: &Plan) -> Result<Self> {
        let files = paths
            .iter()
            .map(|path| Ok((path.clone(), Format::open(path)?)))
            .collect::<Result<_>>()?;
        let mut files = Self { files };
        for (path, format) in &mut files.files {
            format
                .check(config, plan.recipe.needs_gram())
                .with_context(|| format!("cannot use the statistics `{}`", path.display()))?;
        }
        for block in 0..config.num_hidden_layers {
            for tap in plan.taps(block) {
                let mut formats = files.files.iter().map(|(_, format)| format);
                ensure!(
                    formats.any(|format| format.find(block, tap).is_some()),
                    "no file of statistics has the input of {} in block {block}",
                    tap.readers()
                );
            }
        }
        Ok(files)
    }

    /// The statistics of a block's inputs, where the plan needs them.
    ///
    /// # Errors
    /// They cannot be read, are damaged, or cannot be added up.
    pub fn block(&mut self, block: usize, plan: &Plan) -> Result<InputStats> {
        let mut taps = [const { None }; Tap::ALL.len()];
        for tap in plan.taps(block) {
            taps[tap as usize] = Some(self.tap(block, tap, plan.recipe.needs_gram())?);
        }
        Ok(InputStats::from_taps(taps))
    }

    fn tap(&mut self, block: usize, tap: Tap, needs_gram: bool) -> Result<LayerStats> {
        let mut sum: Option<LayerStats> = None;
        for (path, format) in &mut self.files {
            let Some(name) = format.find(block, tap) else {
                continue;
            };
            let stats = format.read(&name, needs_gram)?;
            match &mut sum {
                None => sum = Some(stats),
                Some(sum) => sum.merge(&stats).with_context(|| {
                    format!("cannot add `{name}` of the statistics `{}`", path.display())
                })?,
            }
        }
        sum.with_context(|| {
            format!(
                "there are no statistics of {} in block {block}",
                tap.readers()
            )
        })
    }
}

impl Format {
    /// Opens a file of either format, by what it begins with.
    fn open(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(4).read_to_end(&mut start))
            .with_context(|| format!("cannot open the statistics `{}`", path.display()))?;
        if start == b"GGUF" {
            let imatrix = Imatrix::read(path).with_context(|| {
                format!("cannot read `{}` as an importance matrix", path.display())
            })?;
            return Ok(Self::Imatrix(imatrix));
        }
        Ok(Self::Wanda(StatsFile::open(path)?))
    }

    /// Refuses a file of another model, and one without Gram matrices where they are needed.
    fn check(&mut self, config: &Config, needs_gram: bool) -> Result<()> {
        let mut others = self.layers();
        for block in 0..config.num_hidden_layers {
            for tap in Tap::ALL {
                others.retain(|layer| names(block, tap).all(|name| name != *layer));
                let Some(name) = self.find(block, tap) else {
                    continue;
                };
                let (found, expected) = (self.features(&name)?, tap.features(config));
                ensure!(
                    found == expected,
                    "`{name}` has {found} inputs, where the model has {expected}: the statistics \
                     are those of another model"
                );
                ensure!(
                    !needs_gram || self.has_gram(&name),
                    "`{name}` has only norms, and the method needs Gram matrices, as `prune-llm \
                     calibrate --gram` writes them"
                );
            }
        }
        if let Some(layer) = others.first() {
            bail!("`{layer}` is no layer of the model: the statistics are those of another model");
        }
        Ok(())
    }

    fn layers(&self) -> Vec<String> {
        match self {
            Self::Wanda(file) => file.layers().map(str::to_owned).collect(),
            Self::Imatrix(imatrix) => imatrix.layers.keys().cloned().collect(),
        }
    }

    /// The name under which the file has the statistics of an input, if it has.
    fn find(&self, block: usize, tap: Tap) -> Option<String> {
        names(block, tap).find(|name| match self {
            Self::Wanda(file) => file.contains(name),
            Self::Imatrix(imatrix) => imatrix.layers.contains_key(name),
        })
    }

    fn features(&mut self, name: &str) -> Result<usize> {
        match self {
            Self::Wanda(file) => Ok(file.features(name)?),
            Self::Imatrix(imatrix) => Ok(imatrix.get(name)?.features()),
        }
    }

    fn has_gram(&self, name: &str) -> bool {
        match self {
            Self::Wanda(file) => file.has_gram(name),
            Self::Imatrix(_) => false,
        }
    }

    /// Reads no more than is needed: Gram matrices are large.
    fn read(&mut self, name: &str, needs_gram: bool) -> Result<LayerStats> {
        match self {
            Self::Wanda(file) if needs_gram => Ok(file.layer(name)?),
            Self::Wanda(file) => Ok(file.norms(name)?.into()),
            Self::Imatrix(imatrix) => Ok(imatrix.get(name)?.clone().into()),
        }
    }
}
