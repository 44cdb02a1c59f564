//! From what the user names to a model ready to be read.

use crate::{
    fetch,
    model::{Config, Model, TensorSource, checkpoint, gguf},
    progress::Progress,
    tokenizer::{self, Companions},
};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// A model with everything that belongs to it.
#[derive(Debug)]
pub struct Input {
    /// What to call it.
    pub name: String,
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// The files beside the weights, to be written to the output.
    pub companions: Companions,
}

/// Where a model is, found out before anything slow happens.
#[derive(Debug)]
pub struct Location {
    name: String,
    path: PathBuf,
}

impl Location {
    /// Finds the model: a path if there is such a file or folder, else a hub id, else the default.
    ///
    /// # Errors
    /// There is nothing of this name, or it cannot be fetched.
    pub fn find(model: Option<&str>, progress: Progress) -> Result<Self> {
        let Some(model) = model else {
            return Ok(Self {
                name: fetch::DEFAULT_MODEL.to_owned(),
                path: fetch::default_model(progress)?,
            });
        };
        let path = Path::new(model);
        if path.exists() {
            let path = path
                .canonicalize()
                .with_context(|| format!("cannot open `{model}`"))?;
            let name = if path.is_dir() {
                path.file_name()
            } else {
                path.file_stem()
            };
            return Ok(Self {
                name: name.unwrap_or_default().to_string_lossy().into_owned(),
                path,
            });
        }
        if !fetch::is_hub_id(model) {
            bail!(
                "there is no file or folder `{model}`; `--model` takes a GGUF file, a Hugging Face \
                 folder, or the id of a model on the Hugging Face Hub such as \
                 `HuggingFaceTB/SmolLM2-135M`"
            );
        }
        Ok(Self {
            name: model.rsplit('/').next().unwrap_or(model).to_owned(),
            path: fetch::from_hub(model, progress)?,
        })
    }

    /// The model's short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the model. Its weights are read when their turn comes.
    ///
    /// # Errors
    /// It is damaged, incomplete, or of an architecture that is not supported.
    pub fn open(self) -> Result<Input> {
        let context = format!("cannot use the model `{}`", self.path.display());
        self.read().context(context)
    }

    fn read(self) -> Result<Input> {
        if self.path.is_dir() {
            let (config, source, companions) = checkpoint::open(&self.path)?;
            let tokenizer = tokenizer::from_companions(&companions)?;
            self.assemble(config, Box::new(source), tokenizer, companions)
        } else {
            let (config, source, tokenizer, companions) = gguf::open(&self.path)?;
            self.assemble(config, Box::new(source), tokenizer, companions)
        }
    }

    fn assemble(
        self,
        config: Config,
        source: Box<dyn TensorSource>,
        tokenizer: Tokenizer,
        mut companions: Companions,
    ) -> Result<Input> {
        if !companions.contains_key(tokenizer::GENERATION_CONFIG) {
            let made = tokenizer::generation_config(&config)?;
            companions.insert(tokenizer::GENERATION_CONFIG.to_owned(), made);
        }
        Ok(Input {
            name: self.name,
            model: Model::open(config, source)?,
            tokenizer,
            companions,
        })
    }
}
