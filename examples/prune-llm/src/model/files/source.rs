//! Where a model's tensors come from, whatever the file format.

use super::{
    layout::{FileLayout, SINGLE},
    raw,
};
use anyhow::{Result, ensure};
use candle_core::{DType, Shape, Tensor};
use std::{fmt, io::Write};

/// A checkpoint that hands out tensors by their Hugging Face names, one at a time.
pub(crate) trait TensorSource: fmt::Debug {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// The type and the shape that a tensor is handed out in.
    fn info(&self, name: &str) -> Result<(DType, Shape)>;

    /// Reads one tensor.
    fn read(&mut self, name: &str) -> Result<Tensor>;

    /// The safetensors files that hold these tensors, or that will.
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
    fn copy(&mut self, name: &str, to: &mut dyn Write) -> Result<()> {
        raw::write(&self.read(name)?, to)
    }
}

/// Reads a tensor that must have this shape.
pub(crate) fn load(
    source: &mut dyn TensorSource,
    name: &str,
    shape: impl Into<Shape>,
) -> Result<Tensor> {
    let tensor = source.read(name)?;
    check_shape(name, tensor.shape(), &shape.into())?;
    Ok(tensor)
}

/// Refuses a checkpoint without such a tensor. Reads none of it.
pub(crate) fn check(source: &dyn TensorSource, name: &str, shape: impl Into<Shape>) -> Result<()> {
    check_shape(name, &source.info(name)?.1, &shape.into())
}

fn check_shape(name: &str, found: &Shape, expected: &Shape) -> Result<()> {
    ensure!(
        found == expected,
        "tensor `{name}` has the shape {:?}, where the model's configuration asks for {:?}",
        found.dims(),
        expected.dims()
    );
    Ok(())
}
