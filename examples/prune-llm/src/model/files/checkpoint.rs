//! Reading a Hugging Face folder: its texts and its safetensors files.

use super::{
    layout::{FileLayout, MAX_HEADER, SINGLE},
    raw,
    source::TensorSource,
};
use crate::{model::tokenizer::Companions, util::json::pretty};
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{DType, Shape, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The file that lists which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// What else a folder may hold that belongs to the model and is copied to the output.
const COMPANIONS: [&str; 10] = [
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];

/// The files of a hub repository that this program reads.
pub fn is_wanted(file: &str) -> bool {
    let weights = Path::new(file)
        .extension()
        .is_some_and(|e| e == "safetensors");
    // Only the top folder: repositories keep copies in other formats further down.
    !file.contains('/') && (weights || file == "config.json" || COMPANIONS.contains(&file))
}

/// The text of a folder's `config.json`.
pub(crate) fn config_text(folder: &Path) -> Result<String> {
    fs::read_to_string(folder.join("config.json")).with_context(|| {
        format!(
            "`{}` is not a model folder that can be read: it needs `config.json`, `tokenizer.json` \
             and safetensors files",
            folder.display()
        )
    })
}

/// What else belongs to the model in a folder.
pub(crate) fn companions(folder: &Path, checkpoint: &Checkpoint) -> Result<Companions> {
    let mut companions = Companions::new();
    for name in COMPANIONS {
        let path = folder.join(name);
        if path.is_file() {
            let contents =
                fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            companions.insert(name.to_owned(), contents);
        }
    }
    if checkpoint.shards.len() > 1 && !companions.contains_key(INDEX) {
        companions.insert(INDEX.to_owned(), checkpoint.index()?);
    }
    Ok(companions)
}

/// The file that lists the shards.
#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(default)]
    metadata: Value,
    weight_map: BTreeMap<String, String>,
}

/// The safetensors files of a folder. Tensors are read one at a time, straight from the file.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    shards: Vec<Shard>,
    shard_of: HashMap<String, usize>,
}

impl Checkpoint {
    /// Reads the headers of a folder's safetensors files.
    ///
    /// # Errors
    /// A file is missing or damaged, or a tensor is there twice.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let mut checkpoint = Self {
            shards: Vec::new(),
            shard_of: HashMap::new(),
        };
        for path in weight_files(folder)? {
            let shard = Shard::open(&path)?;
            for name in shard.metadata.offset_keys() {
                let index = checkpoint.shards.len();
                if let Some(other) = checkpoint.shard_of.insert(name.clone(), index) {
                    bail!(
                        "tensor `{name}` is both in `{}` and in `{}`",
                        checkpoint
                            .shards
                            .get(other)
                            .map_or(path.as_path(), |shard| shard.path.as_path())
                            .display(),
                        path.display()
                    );
                }
            }
            checkpoint.shards.push(shard);
        }
        Ok(checkpoint)
    }

    fn shard(&self, name: &str) -> Result<&Shard> {
        self.shard_of
            .get(name)
            .and_then(|&index| self.shards.get(index))
            .ok_or_else(|| anyhow!("the checkpoint has no tensor `{name}`"))
    }

    /// What lists the shards, for a folder that has no such file.
    fn index(&self) -> Result<Vec<u8>> {
        let files = self.shards.iter().flat_map(|shard| {
            let names = shard.metadata.offset_keys().into_iter();
            names.map(|name| (name, shard.file_name()))
        });
        let size: usize = self.shards.iter().map(|s| s.metadata.data_len()).sum();
        pretty(&Index {
            metadata: json!({ "total_size": size }),
            weight_map: files.collect(),
        })
    }
}

impl TensorSource for Checkpoint {
    fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.shard_of.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        self.shard(name)?.info(name)
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        self.shard(name)?.read(name)
    }

    fn layout(&self) -> Result<Vec<FileLayout>> {
        Ok(self.shards.iter().map(Shard::layout).collect())
    }

    fn copy(&mut self, name: &str, to: &mut dyn Write) -> Result<()> {
        self.shard(name)?.copy(name, to)
    }
}

/// The safetensors files a folder's model consists of.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX);
    if index.is_file() {
        let text = fs::read_to_string(&index)
            .with_context(|| format!("cannot read `{}`", index.display()))?;
        let files: BTreeSet<String> = serde_json::from_str::<Index>(&text)
            .with_context(|| format!("`{}` is not an index of safetensors files", index.display()))?
            .weight_map
            .into_values()
            .collect();
        return files
            .into_iter()
            .map(|file| {
                ensure!(
                    Path::new(&file)
                        .file_name()
                        .is_some_and(|name| *name == *file),
                    "`{}` names the file `{file}`, which is not inside the folder",
                    index.display()
                );
                let path = folder.join(&file);
                ensure!(
                    path.is_file(),
                    "`{}` is missing, which `{INDEX}` lists; fetch the folder again",
                    path.display()
                );
                Ok(path)
            })
            .collect();
    }
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)
        .with_context(|| format!("cannot list the folder `{}`", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    ensure!(
        !files.is_empty(),
        "`{}` has no safetensors files; a checkpoint in another format has to be saved as \
         safetensors first (in Python: `model.save_pretrained(folder)`)",
        folder.display()
    );
    files.sort_unstable();
    Ok(files)
}

/// One safetensors file, its header read.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    header: Vec<u8>,
    metadata: Metadata,
}

impl Shard {
    /// Reads the header.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read_header(path)
            .with_context(|| format!("cannot read `{}` as safetensors", path.display()))
    }

    fn read_header(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .context("the file is too short to hold a header")?;
        let mut header = length.to_vec();
        let length = u64::from_le_bytes(length);
        ensure!(
            length <= MAX_HEADER && length + 8 <= size,
            "its header claims {length} bytes and the file has {size}: it is damaged or incomplete"
        );
        Read::by_ref(&mut file)
            .take(length)
            .read_to_end(&mut header)?;
        // Deserializing checks shapes, types and offsets against each other.
        let metadata: Metadata =
            serde_json::from_slice(&header[8..]).context("its header is damaged")?;
        let expected = 8 + length + metadata.data_len() as u64;
        ensure!(
            expected == size,
            "the file has {size} bytes and its header describes {expected}: it is damaged or \
             incomplete"
        );
        Ok(Self {
            path: path.to_owned(),
            file,
            header,
            metadata,
        })
    }

    fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn layout(&self) -> FileLayout {
        FileLayout::of(self.file_name(), self.header.clone(), &self.metadata)
    }

    fn info(&self, name: &str) -> Result<(DType, Shape)> {
        let context = || format!("in `{}`", self.path.display());
        let info = self
            .metadata
            .info(name)
            .with_context(|| format!("the checkpoint has no tensor `{name}`"))
            .with_context(context)?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(anyhow!(
                    "the type of tensor `{name}` is {other:?}; supported are F32, F16 and BF16"
                ))
                .with_context(context);
            }
        };
        Ok((dtype, info.shape.clone().into()))
    }

    /// Reads one tensor.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let (dtype, shape) = self.info(name)?;
        self.bytes(name)
            .and_then(|mut bytes| raw::read(&mut bytes, dtype, &shape))
            .with_context(|| self.cannot_read(name))
    }

    fn copy(&self, name: &str, to: &mut dyn Write) -> Result<()> {
        let mut bytes = self.bytes(name).with_context(|| self.cannot_read(name))?;
        let expected = bytes.limit();
        let copied = io::copy(&mut bytes, to)?;
        ensure!(
            copied == expected,
            "{}: it ends early",
            self.cannot_read(name)
        );
        Ok(())
    }

    /// Reads a tensor's bytes from the file, and no further.
    fn bytes(&self, name: &str) -> Result<io::Take<&File>> {
        let info = self
            .metadata
            .info(name)
            .context("it is not in the header")?;
        let (start, end) = info.data_offsets;
        let mut file = &self.file;
        file.seek(SeekFrom::Start((self.header.len() + start) as u64))?;
        Ok(file.take((end - start) as u64))
    }

    fn cannot_read(&self, name: &str) -> String {
        format!("cannot read tensor `{name}` from `{}`", self.path.display())
    }
}
