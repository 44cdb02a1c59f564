//! Where a model's tensors come from, whatever the file format.

use super::{
    layout::{FileLayout, SINGLE},
    raw,
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Shape, Tensor};
use std::{fmt, io::Write};

/// A checkpoint that hands out tensors by their Hugging Face names, one at a time.
pub(crate) trait TensorSource: fmt::Debug {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// The type and the shape that a tensor is handed out in.
    ///
    /// # Errors
    /// When it is missing or of a type that is not supported.
    fn info(&self, name: &str) -> Result<(DType, Shape)>;

    /// Reads one tensor.
    ///
    /// # Errors
    /// When it is missing, of a type that is not supported, or cannot be read.
    fn read(&mut self, name: &str) -> Result<Tensor>;

    /// The safetensors files that hold these tensors, or that will.
    ///
    /// # Errors
    /// When a tensor is of a type that is not supported.
    fn layout(&self) -> Result<Vec<FileLayout>> {
        let tensors = self
            .names()
            .into_iter()
            .map(|name| {
                let (dtype, shape) = self.info(&name)?;
                Ok((name, dtype, shape))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![FileLayout::new(SINGLE, tensors)?])
    }

    /// Writes a tensor's bytes, as a file of [`layout`](Self::layout) holds them.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn copy(&mut self, name: &str, to: &mut dyn Write) -> Result<()> {
        raw::write(&self.read(name)?, to)
    }
}

/// Reads a tensor that must have this shape.
///
/// # Errors
/// It has another one, or cannot be read.
pub(crate) fn load(
    source: &mut dyn TensorSource,
    name: &str,
    shape: impl Into<Shape>,
) -> Result<Tensor> {
    let expected = shape.into();
    let tensor = source.read(name)?;
    ensure!(
        tensor.shape() == &expected,
        "tensor `{name}` has the shape {:?}, where the model's configuration asks for {:?}",
        tensor.dims(),
        expected.dims()
    );
    Ok(tensor)
}

/// A source that hands out tensors of the right type and shape without reading them: whatever can
/// be loaded from it can be loaded from `source`, if the file is intact.
#[derive(Debug)]
pub(crate) struct Unread<'a>(pub &'a dyn TensorSource);

impl TensorSource for Unread<'_> {
    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        self.0.info(name)
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let (dtype, shape) = self.info(name)?;
        // One element, seen at every place.
        let element = Tensor::zeros((), dtype, &Device::Cpu)?;
        element
            .broadcast_as(shape)
            .with_context(|| format!("tensor `{name}` has an impossible shape"))
    }

    fn copy(&mut self, name: &str, _: &mut dyn Write) -> Result<()> {
        bail!("tensor `{name}` was not read")
    }
}
