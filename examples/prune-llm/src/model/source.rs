//! Where a model's tensors come from, whatever the file format.

use anyhow::{Result, ensure};
use candle_core::{Shape, Tensor};

/// A checkpoint that hands out tensors by their Hugging Face names, in the type they are stored in.
pub trait TensorSource {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// Reads one tensor.
    ///
    /// # Errors
    /// When it is missing, of a type that is not supported, or cannot be read.
    fn read(&mut self, name: &str) -> Result<Tensor>;
}

/// Reads a tensor that must have this shape.
pub(super) fn load(
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
