//! From what the user names to a model ready to be read.

use super::{
    families, fetch,
    files::{Checkpoint, companions, config_text},
    gguf::{self, Container, Gguf},
    tokenizer::{self, Companions},
    weights::Model,
};
use crate::util::{Progress, json::pretty};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    collections::btree_map::Entry,
    path::{Path, PathBuf},
};
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
    /// The model's short name.
    pub name: String,
    /// The file or folder.
    pub path: PathBuf,
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

    /// Opens the model. Its weights are read when their turn comes.
    pub fn open(self) -> Result<Input> {
        let context = format!("cannot use the model `{}`", self.path.display());
        self.read().context(context)
    }

    fn read(self) -> Result<Input> {
        let (model, tokenizer, mut companions) = if self.path.is_dir() {
            let (model, companions) = open_folder(&self.path)?;
            (model, tokenizer::from_companions(&companions)?, companions)
        } else {
            open_gguf(&self.path)?
        };
        let settings = companions.entry("generation_config.json".to_owned());
        if let Entry::Vacant(settings) = settings {
            let config = model.config();
            settings.insert(pretty(&json!({
                "bos_token_id": config.bos_token_id,
                "eos_token_id": config.eos_json(),
            }))?);
        }
        Ok(Input {
            name: self.name,
            model,
            tokenizer,
            companions,
        })
    }
}

/// Opens a Hugging Face folder, with the files beside its weights.
pub fn open_folder(folder: &Path) -> Result<(Model, Companions)> {
    let text = config_text(folder)?;
    let family = families::from_json(&text)
        .with_context(|| format!("in `{}`", folder.join("config.json").display()))?;
    let checkpoint = Checkpoint::open(folder)?;
    let mut companions = companions(folder, &checkpoint)?;
    companions.insert("config.json".to_owned(), text.into_bytes());
    Ok((Model::open(family, Box::new(checkpoint))?, companions))
}

/// Opens a GGUF file, with its tokenizer and the files that a Hugging Face folder of it needs.
fn open_gguf(path: &Path) -> Result<(Model, Tokenizer, Companions)> {
    let file = Container::open(path)
        .with_context(|| format!("`{}` cannot be read as a GGUF file", path.display()))?;
    let parts = || -> Result<_> {
        let family = families::from_gguf(&file)?;
        let tokenizer = gguf::tokenizer(&file.metadata)?;
        let positions = family.config().max_position_embeddings;
        let companions = gguf::companions(&tokenizer, positions, &file.metadata)?;
        Ok((family, tokenizer, companions))
    };
    let (family, tokenizer, mut companions) =
        parts().with_context(|| format!("in `{}`", path.display()))?;
    let source = Gguf::new(file, family.block().clone());
    let config = pretty(&family.to_json(source.dtype()))?;
    companions.insert("config.json".to_owned(), config);
    let model = Model::open(family, Box::new(source))?;
    Ok((model, tokenizer, companions))
}
