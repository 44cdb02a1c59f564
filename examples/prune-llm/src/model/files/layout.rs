//! What a safetensors file looks like before its tensors are in it.

use anyhow::{Result, ensure};
use candle_core::{DType, Shape};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{cmp::Reverse, collections::HashMap, ops::Range};

/// The one file of a checkpoint that is not sharded.
pub(super) const SINGLE: &str = "model.safetensors";

/// The limit of the format itself.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file: its header and the place of every tensor.
#[derive(Debug, Clone)]
pub struct FileLayout {
    /// What the file is called.
    pub(super) name: String,
    /// Its first bytes.
    pub(super) header: Vec<u8>,
    /// Every tensor and where its bytes are, in the order of the file.
    pub(super) tensors: Vec<(String, Range<u64>)>,
}

impl FileLayout {
    /// A file of these tensors, in the order of the safetensors library's own writer.
    ///
    /// # Errors
    /// The tensors are too many or too large for one file.
    pub fn new(
        name: impl Into<String>,
        tensors: impl IntoIterator<Item = (String, DType, Shape)>,
    ) -> Result<Self> {
        let mut end = 0;
        let mut tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, dtype, shape)| (Reverse(Dtype::from(dtype)), name, dtype, shape))
            .collect();
        tensors.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let infos = tensors.into_iter().map(|(_, name, dtype, shape)| {
            let start = end;
            end += shape.elem_count() * dtype.size_in_bytes();
            let info = TensorInfo {
                dtype: dtype.into(),
                shape: shape.into_dims(),
                data_offsets: (start, end),
            };
            (name, info)
        });
        // transformers refuses files that do not name the framework.
        let framework = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(framework), infos.collect())?;
        let mut text = serde_json::to_vec(&metadata)?;
        // Keeps the tensors aligned.
        text.resize(text.len().next_multiple_of(8), b' ');
        ensure!(
            text.len() as u64 <= MAX_HEADER,
            "the model has more tensors than a safetensors file can list"
        );
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        Ok(Self::of(name.into(), header, &metadata))
    }

    /// The file with this header, its length in front as in the file.
    pub(super) fn of(name: String, header: Vec<u8>, metadata: &Metadata) -> Self {
        let start = header.len();
        let tensors = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| {
                let (from, to) = metadata.info(&name)?.data_offsets;
                Some((name, (start + from) as u64..(start + to) as u64))
            })
            .collect();
        Self {
            name,
            header,
            tensors,
        }
    }
}
