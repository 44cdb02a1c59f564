//! Reading a Hugging Face folder: `config.json`, `tokenizer.json` and safetensors files.

use super::{Config, TensorSource};
use crate::tokenizer::Companions;
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The file that lists which shard holds which tensor.
pub const INDEX: &str = "model.safetensors.index.json";
/// The one file of a checkpoint that is not sharded.
pub const SINGLE: &str = "model.safetensors";

/// What else a folder may hold that belongs to the model and is copied to the output.
const COMPANIONS: [&str; 9] = [
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
#[must_use]
pub fn is_wanted(file: &str) -> bool {
    let weights = Path::new(file)
        .extension()
        .is_some_and(|e| e == "safetensors");
    // Only the top folder: repositories keep copies in other formats further down.
    !file.contains('/')
        && (weights || file == INDEX || file == "config.json" || COMPANIONS.contains(&file))
}

/// A folder opened: the configuration, the tensors to come, and the files to copy.
///
/// # Errors
/// Something is missing or damaged, or the model is not supported.
pub fn open(folder: &Path) -> Result<(Config, Checkpoint, Companions)> {
    let config_path = folder.join("config.json");
    let text = fs::read_to_string(&config_path).with_context(|| {
        format!(
            "`{}` is not a model folder that can be read: it needs `config.json`, `tokenizer.json` \
             and safetensors files",
            folder.display()
        )
    })?;
    let config =
        Config::from_json(&text).with_context(|| format!("in `{}`", config_path.display()))?;
    let mut companions = Companions::from([("config.json".to_owned(), text.into_bytes())]);
    for name in COMPANIONS {
        let path = folder.join(name);
        if path.is_file() {
            let contents =
                fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            companions.insert(name.to_owned(), contents);
        }
    }
    Ok((config, Checkpoint::open(folder)?, companions))
}

/// The safetensors files of a folder. Tensors are read one at a time, straight from the file.
#[derive(Debug)]
pub struct Checkpoint {
    shards: Vec<Shard>,
    shard_of: HashMap<String, usize>,
}

impl Checkpoint {
    fn open(folder: &Path) -> Result<Self> {
        let mut checkpoint = Self {
            shards: Vec::new(),
            shard_of: HashMap::new(),
        };
        for path in weight_files(folder)? {
            let shard = Shard::open(&path)
                .with_context(|| format!("cannot read `{}` as safetensors", path.display()))?;
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
}

impl TensorSource for Checkpoint {
    fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.shard_of.keys().cloned().collect()
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let shard = self
            .shard_of
            .get(name)
            .and_then(|&index| self.shards.get_mut(index))
            .ok_or_else(|| anyhow!("the checkpoint has no tensor `{name}`"))?;
        let path = shard.path.clone();
        shard
            .read(name)
            .with_context(|| format!("cannot read tensor `{name}` from `{}`", path.display()))
    }
}

/// The safetensors files a folder's model consists of.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
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
struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        /// The limit of the format itself.
        const MAX_HEADER: u64 = 100_000_000;
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .context("the file is too short to hold a header")?;
        let length = u64::from_le_bytes(length);
        ensure!(
            length <= MAX_HEADER && length + 8 <= size,
            "its header claims {length} bytes and the file has {size}: it is damaged or incomplete"
        );
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header)?;
        // Deserializing checks shapes, types and offsets against each other.
        let metadata: Metadata =
            serde_json::from_slice(&header).context("its header is damaged")?;
        let expected = 8 + length + metadata.data_len() as u64;
        ensure!(
            expected == size,
            "the file has {size} bytes and its header tells of {expected}: it is damaged or \
             incomplete"
        );
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            data_start: 8 + length,
        })
    }

    fn read(&mut self, name: &str) -> Result<Tensor> {
        let info = self
            .metadata
            .info(name)
            .context("it is not in the header")?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => bail!("its type is {other:?}; supported are F32, F16 and BF16"),
        };
        let (start, end) = info.data_offsets;
        let shape = info.shape.clone();
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64))?;
        // Within the file: its size was checked against the header.
        let mut bytes = vec![0; end - start];
        self.file.read_exact(&mut bytes)?;
        Ok(Tensor::from_raw_buffer(
            &bytes,
            dtype,
            &shape,
            &Device::Cpu,
        )?)
    }
}
