//! The tensors of a GGUF file under their Hugging Face names.

use super::{
    container::{Container, Stored},
    rope::ROPE_FACTORS,
};
use crate::model::{
    files::TensorSource,
    spec::{BlockSpec, EMBEDDING, FINAL_NORM, HEAD, place},
};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Shape, Tensor};
use std::collections::HashMap;

/// The tensors of a GGUF file, one at a time. Those that are quantized become f32.
#[derive(Debug)]
pub(crate) struct Gguf {
    file: Container,
    /// From Hugging Face names to the file's.
    names: HashMap<String, String>,
    spec: BlockSpec,
}

impl Gguf {
    /// The tensors of a model whose blocks are as `spec` says.
    pub(crate) fn new(file: Container, spec: BlockSpec) -> Self {
        let names = file
            .names()
            .filter(|name| *name != ROPE_FACTORS)
            .map(|name| (hugging_face_name(name, &spec), name.to_owned()))
            .collect();
        Self { file, names, spec }
    }

    /// The type of the first layer's weights, which stands for that of all matrices.
    pub(crate) fn dtype(&self) -> DType {
        let layer = self.spec.layers.first();
        let stored = layer.and_then(|layer| self.file.get(&format!("blk.0.{}.weight", layer.gguf)));
        stored.map_or(DType::F32, Stored::dtype)
    }

    /// The file's name of a tensor.
    fn stored_name(&self, name: &str) -> Result<&str> {
        self.names
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("the file has no tensor for `{name}`"))
    }
}

impl TensorSource for Gguf {
    fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        let stored = self.file.get(self.stored_name(name)?);
        let stored = stored.with_context(|| format!("the file has no tensor for `{name}`"))?;
        Ok((stored.dtype(), stored.shape.clone()))
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.file.read(self.stored_name(name)?)?;
        let module = place(name).and_then(|(_, rest)| Some(rest.rsplit_once('.')?.0));
        let mut layers = self.spec.layers.iter();
        let layer = layers.find(|layer| Some(layer.name) == module);
        match layer.and_then(|layer| layer.interleaved_heads) {
            Some(heads) => split_halves(&tensor, heads),
            None => Ok(tensor),
        }
    }
}

/// llama.cpp rotates neighbouring rows of a head together, Hugging Face rows half a head apart, so
/// in files of some architectures the rows of queries and keys come interleaved. This puts them
/// back, be they of weights or of biases.
fn split_halves(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    ensure!(
        heads > 0 && rows.is_multiple_of(2 * heads),
        "{rows} rows cannot be split over {heads} heads"
    );
    let columns = tensor.elem_count() / rows;
    Ok(tensor
        .reshape((heads, rows / heads / 2, 2, columns))?
        .transpose(1, 2)?
        .reshape(tensor.shape())?)
}

/// The Hugging Face name of a tensor, or its own when it has none: reading the model reports it.
fn hugging_face_name(name: &str, spec: &BlockSpec) -> String {
    match name {
        "token_embd.weight" => EMBEDDING.to_owned(),
        "output_norm.weight" => FINAL_NORM.to_owned(),
        "output.weight" => HEAD.to_owned(),
        _ => spec.name_of_gguf(name).unwrap_or_else(|| name.to_owned()),
    }
}
