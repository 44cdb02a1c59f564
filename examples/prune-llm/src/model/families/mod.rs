//! The families of models this program can run, one file each, and which of them a model is of.

mod llama;

pub use llama::Llama;

use super::{
    family::{Architecture, Family, SUPPORTED},
    gguf::Container,
};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::rc::Rc;

fn architectures() -> impl Iterator<Item = &'static dyn Architecture> {
    llama::VARIANTS
        .iter()
        .map(|variant| variant as &dyn Architecture)
}

/// The model that the text of a `config.json` describes.
///
/// # Errors
/// Not JSON, a field missing, or a model that this program cannot run, by name.
pub fn from_json(text: &str) -> Result<Rc<dyn Family>> {
    let fields: Value = serde_json::from_str(text).context("it is not JSON")?;
    // The architecture comes first: another one may lack the fields that this one needs.
    architecture(&fields)?.read_json(fields)
}

/// The model in a GGUF file.
pub(super) fn from_gguf(file: &Container) -> Result<Rc<dyn Family>> {
    let name = file.architecture()?;
    architectures()
        .find(|known| known.gguf() == Some(name))
        .ok_or_else(|| unsupported(name))?
        .read_gguf(file)
}

fn architecture(fields: &Value) -> Result<&'static dyn Architecture> {
    let model_type = fields.get("model_type").and_then(Value::as_str);
    let classes: Vec<&str> = fields
        .get("architectures")
        .and_then(Value::as_array)
        .map(|classes| classes.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let name = model_type.or(classes.first().copied()).with_context(|| {
        format!("neither `model_type` nor `architectures` says what model this is; {SUPPORTED}")
    })?;
    let architecture = architectures()
        .find(|known| name == known.model_type() || name == known.class())
        .ok_or_else(|| unsupported(name))?;
    match classes.iter().find(|&&class| class != architecture.class()) {
        Some(class) => Err(unsupported(class)),
        None => Ok(architecture),
    }
}

fn unsupported(name: &str) -> anyhow::Error {
    anyhow!("the architecture `{name}` is not supported; {SUPPORTED}")
}
