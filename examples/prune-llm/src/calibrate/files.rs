//! Statistics of a model's inputs as files: gathered by `prune-llm calibrate` or by llama.cpp, and
//! used in place of calibration.

use super::{imatrix, inputs::InputStats};
use crate::{model::BlockSpec, plan::Plan};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};
use wanda::{ActivationStats, ColumnNorms, LayerStats, stats::file::StatsFile};

/// Files that take the place of calibration. Where several have statistics of the same layer,
/// these are added up.
#[derive(Debug)]
pub struct Files {
    files: Vec<(PathBuf, Format)>,
}

#[derive(Debug)]
enum Format {
    Wanda(StatsFile),
    Imatrix(BTreeMap<String, ColumnNorms>),
}

impl Files {
    /// Those that are to be used, if there are any.
    pub fn given(paths: &[PathBuf], plan: &Plan) -> Result<Option<Self>> {
        let given = !paths.is_empty();
        given.then(|| Self::open(paths, plan)).transpose()
    }

    /// Opens files and checks that they fit the model, and that nothing the plan needs is missing.
    ///
    /// # Errors
    /// The plan needs more than statistics, a file is damaged or of another model, an input of a layer to prune is in none of them, or
    /// Gram matrices are needed and a file has norms.
    pub fn open(paths: &[PathBuf], plan: &Plan) -> Result<Self> {
        if let Some(argument) = plan.recipe.needs_streams() {
            bail!(
                "`{argument}` needs texts that flow through the model as it is pruned, and \
                 `--statistics` takes their place; choose one of them"
            );
        }
        let files = paths
            .iter()
            .map(|path| Ok((path.clone(), Format::open(path, &plan.spec)?)))
            .collect::<Result<_>>()?;
        let mut files = Self { files };
        for (path, format) in &mut files.files {
            format
                .check(plan)
                .with_context(|| format!("cannot use the statistics `{}`", path.display()))?;
        }
        for block in 0..plan.blocks() {
            for input in plan.inputs(block) {
                let mut formats = files.files.iter().map(|(_, format)| format);
                ensure!(
                    formats.any(|format| format.find(block, input, &plan.spec).is_some()),
                    "no file of statistics has the input of {} in block {block}",
                    plan.spec.reader_names(input).join(", ")
                );
            }
        }
        Ok(files)
    }

    /// The statistics of a block's inputs, where the plan needs them.
    pub fn block<'a>(&mut self, block: usize, plan: &'a Plan) -> Result<InputStats<'a>> {
        let inputs = (0..plan.spec.inputs()).map(|input| {
            let needed = plan.needs(block, input);
            needed.then(|| self.input(block, input, plan)).transpose()
        });
        Ok(InputStats::gathered(
            &plan.spec,
            inputs.collect::<Result<_>>()?,
        ))
    }

    fn input(&mut self, block: usize, input: usize, plan: &Plan) -> Result<LayerStats> {
        let mut sum: Option<LayerStats> = None;
        for (path, format) in &mut self.files {
            let Some(name) = format.find(block, input, &plan.spec) else {
                continue;
            };
            let stats = format.read(&name, plan.recipe.needs_gram())?;
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
                plan.spec.reader_names(input).join(", ")
            )
        })
    }
}

impl Format {
    /// Opens a file of either format, by what it begins with.
    fn open(path: &Path, spec: &BlockSpec) -> Result<Self> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(4).read_to_end(&mut start))
            .with_context(|| format!("cannot open the statistics `{}`", path.display()))?;
        if start == b"GGUF" {
            let layers = imatrix::read(path, spec).with_context(|| {
                format!("cannot read `{}` as an importance matrix", path.display())
            })?;
            return Ok(Self::Imatrix(layers));
        }
        Ok(Self::Wanda(StatsFile::open(path)?))
    }

    /// Refuses a file of another model, and one without Gram matrices where they are needed.
    fn check(&mut self, plan: &Plan) -> Result<()> {
        let spec = &plan.spec;
        let mut others = self.layers();
        for block in 0..plan.blocks() {
            for input in 0..spec.inputs() {
                others.retain(|layer| names(block, input, spec).all(|name| name != *layer));
                let Some(name) = self.find(block, input, spec) else {
                    continue;
                };
                let (found, expected) = (self.features(&name)?, spec.features(input));
                ensure!(
                    found == expected,
                    "`{name}` has {found} inputs, where the model has {expected}: the statistics \
                     are those of another model"
                );
                ensure!(
                    !plan.recipe.needs_gram() || self.has_gram(&name),
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
            Self::Imatrix(layers) => layers.keys().cloned().collect(),
        }
    }

    /// The name under which the file has the statistics of an input, if it has.
    fn find(&self, block: usize, input: usize, spec: &BlockSpec) -> Option<String> {
        names(block, input, spec).find(|name| match self {
            Self::Wanda(file) => file.contains(name),
            Self::Imatrix(layers) => layers.contains_key(name),
        })
    }

    fn features(&mut self, name: &str) -> Result<usize> {
        match self {
            Self::Wanda(file) => Ok(file.features(name)?),
            Self::Imatrix(layers) => Ok(get(layers, name)?.features()),
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
            Self::Imatrix(layers) => Ok(get(layers, name)?.clone().into()),
        }
    }
}

/// The names that the statistics of an input may have: those of the layers that read it.
fn names(block: usize, input: usize, spec: &BlockSpec) -> impl Iterator<Item = String> {
    let readers = spec.readers(input);
    readers.map(move |(_, layer)| layer.full_name(block))
}

fn get<'a>(layers: &'a BTreeMap<String, ColumnNorms>, name: &str) -> Result<&'a ColumnNorms> {
    let norms = layers.get(name);
    norms.with_context(|| format!("there are no statistics of `{name}`"))
}
