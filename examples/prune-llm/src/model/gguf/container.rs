//! The GGUF container: metadata, the list of tensors, and their bytes.
//!
//! candle reads these files as well, but divides by whatever alignment a file states, trusts the
//! shapes and places of tensors, and lets lists grow to any length. Here a damaged file is an error
//! before anything of its size is allocated. The types of tensors, and turning them into floats,
//! are candle's.

use super::metadata::{Metadata, Number, Value};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{
    DType, Device, Shape, Tensor,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

/// Larger than any chat template.
const MAX_TEXT: u64 = 1 << 26;
/// Larger than any vocabulary.
const MAX_LIST: u64 = 1 << 22;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A file whose header was read and found to fit the file.
#[derive(Debug)]
pub(crate) struct Container {
    file: File,
    pub metadata: Metadata,
    tensors: HashMap<String, Stored>,
}

/// A tensor in the file.
#[derive(Debug)]
pub(crate) struct Stored {
    kind: GgmlDType,
    pub shape: Shape,
    position: u64,
    bytes: u64,
}

impl Stored {
    /// The type it is handed out in: its own if that is one of floats, else f32.
    pub(crate) fn dtype(&self) -> DType {
        match self.kind {
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            _ => DType::F32,
        }
    }
}

impl Container {
    /// Reads the header.
    ///
    /// # Errors
    /// The file is damaged, incomplete, or holds a type of tensor that is not supported.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut header = Header {
            reader: BufReader::new(file),
            left: size,
        };
        ensure!(
            header.bytes()? == *b"GGUF",
            "it does not begin as a GGUF file does"
        );
        let version = header.u32()?;
        ensure!(
            matches!(version, 2 | 3),
            "it is of version {version} of the format; versions 2 and 3 are supported"
        );
        let tensor_count = header.u64()?;
        let metadata_count = header.u64()?;
        let metadata = header.metadata(metadata_count)?;
        let alignment = match metadata.optional_size("general.alignment")? {
            None => DEFAULT_ALIGNMENT,
            Some(alignment) => alignment as u64,
        };
        ensure!(alignment > 0, "its alignment is 0");
        let tensors = header.tensors(tensor_count, alignment)?;
        let start = (size - header.left)
            .checked_next_multiple_of(alignment)
            .with_context(|| format!("its alignment is {alignment}"))?;
        let tensors = tensors
            .into_iter()
            .map(|(name, mut tensor)| {
                tensor.position = tensor.position.saturating_add(start);
                let end = tensor.position.saturating_add(tensor.bytes);
                ensure!(
                    end <= size,
                    "tensor `{name}` ends at byte {end} and the file has {size}: it is incomplete"
                );
                Ok((name, tensor))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            file: header.reader.into_inner(),
            metadata,
            tensors,
        })
    }

    /// What the file calls its model's architecture.
    pub(crate) fn architecture(&self) -> Result<&str> {
        self.metadata.text("general.architecture")
    }

    /// The full key of a property of the architecture.
    pub(crate) fn key(&self, property: &str) -> Result<String> {
        Ok(format!("{}.{property}", self.architecture()?))
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's type and shape, if there is such a tensor.
    pub(crate) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// Reads a tensor, in the type that [`Stored::dtype`] gives.
    pub(crate) fn read(&self, name: &str) -> Result<Tensor> {
        let tensor = self
            .get(name)
            .with_context(|| format!("the file has no tensor `{name}`"))?;
        self.read_stored(tensor)
            .with_context(|| format!("cannot read tensor `{name}`"))
    }

    fn read_stored(&self, tensor: &Stored) -> Result<Tensor> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(tensor.position))?;
        // Within the file: that was checked when it was opened.
        let mut bytes = vec![0; usize::try_from(tensor.bytes)?];
        file.read_exact(&mut bytes)?;
        let shape = tensor.shape.dims();
        Ok(match tensor.kind {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                Tensor::from_raw_buffer(&bytes, tensor.dtype(), shape, &Device::Cpu)?
            }
            quantized => qtensor_from_ggml(quantized, &bytes, shape.to_vec(), &Device::Cpu)?
                .dequantize(&Device::Cpu)?,
        })
    }
}

/// What is in front of the tensors.
struct Header {
    reader: BufReader<File>,
    /// Bytes of the file that were not read yet.
    left: u64,
}

impl Header {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .context("the file ends within its header")?;
        self.left = self.left.saturating_sub(N as u64);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        ensure!(
            length <= MAX_TEXT.min(self.left),
            "a text of {length} bytes, where {} are left: the file is damaged or incomplete",
            self.left
        );
        let mut bytes = vec![0; usize::try_from(length)?];
        self.reader.read_exact(&mut bytes)?;
        self.left -= length;
        // Some vocabularies have tokens that are not whole characters.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn metadata(&mut self, count: u64) -> Result<Metadata> {
        let mut values = HashMap::new();
        for _ in 0..count {
            let key = self.text()?;
            let value = self.value().with_context(|| format!("at `{key}`"))?;
            if values.insert(key.clone(), value).is_some() {
                bail!("the metadata has `{key}` twice");
            }
        }
        Ok(Metadata(values))
    }

    fn value(&mut self) -> Result<Value> {
        const TEXT: u32 = 8;
        const LIST: u32 = 9;
        match self.u32()? {
            TEXT => Ok(Value::Text(self.text()?)),
            LIST => {
                let kind = self.u32()?;
                let length = self.u64()?;
                ensure!(
                    length <= MAX_LIST.min(self.left),
                    "a list of {length} elements, where {} bytes are left: the file is damaged or \
                     incomplete",
                    self.left
                );
                if kind == TEXT {
                    let texts = (0..length).map(|_| self.text());
                    return Ok(Value::Texts(texts.collect::<Result<_>>()?));
                }
                let numbers = (0..length).map(|_| self.number(kind));
                Ok(Value::Numbers(numbers.collect::<Result<_>>()?))
            }
            kind => Ok(Value::Number(self.number(kind)?)),
        }
    }

    fn number(&mut self, kind: u32) -> Result<Number> {
        let integer = match kind {
            0 => u8::from_le_bytes(self.bytes()?).into(),
            1 => i8::from_le_bytes(self.bytes()?).into(),
            2 => u16::from_le_bytes(self.bytes()?).into(),
            3 => i16::from_le_bytes(self.bytes()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.bytes()?).into(),
            6 => return Ok(Number::Float(f32::from_le_bytes(self.bytes()?).into())),
            // A flag.
            7 => (self.bytes()? != [0]).into(),
            10 => {
                let value = self.u64()?;
                return Ok(
                    i64::try_from(value).map_or(Number::Float(value as f64), Number::Integer)
                );
            }
            11 => i64::from_le_bytes(self.bytes()?),
            12 => return Ok(Number::Float(f64::from_le_bytes(self.bytes()?))),
            other => bail!("a value of the unknown type {other}"),
        };
        Ok(Number::Integer(integer))
    }

    /// The tensors, their positions counted from where the first one begins.
    fn tensors(&mut self, count: u64, alignment: u64) -> Result<HashMap<String, Stored>> {
        let mut tensors = HashMap::new();
        let mut end = 0u64;
        for _ in 0..count {
            let name = self.text()?;
            let tensor = self
                .tensor()
                .with_context(|| format!("at tensor `{name}`"))?;
            // They lie one behind the other. Else some would share bytes, or a size is wrong.
            ensure!(
                tensor.position == end,
                "tensor `{name}` is said to begin {} bytes into the weights, where {end} are \
                 expected: the header is damaged",
                tensor.position
            );
            end = end
                .checked_add(tensor.bytes)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .with_context(|| format!("tensor `{name}` has an impossible size"))?;
            if tensors.insert(name.clone(), tensor).is_some() {
                bail!("the file has two tensors `{name}`");
            }
        }
        Ok(tensors)
    }

    fn tensor(&mut self) -> Result<Stored> {
        let rank = self.u32()?;
        ensure!((1..=4).contains(&rank), "it has {rank} dimensions");
        let mut shape = (0..rank)
            .map(|_| Ok(usize::try_from(self.u64()?)?))
            .collect::<Result<Vec<_>>>()?;
        let kind = self.u32()?;
        let kind = tensor_type(kind)
            .with_context(|| format!("type {kind} is not supported, only {TENSOR_TYPES} are"))?;
        // Rows come first in the file.
        let columns = shape[0];
        shape.reverse();
        let elements = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        let bytes = elements
            .filter(|&elements| elements > 0 && columns.is_multiple_of(kind.block_size()))
            .and_then(|elements| (elements / kind.block_size()).checked_mul(kind.type_size()))
            .with_context(|| format!("the shape {shape:?} is impossible for {kind:?}"))?;
        Ok(Stored {
            kind,
            shape: shape.into(),
            position: self.u64()?,
            bytes: bytes as u64,
        })
    }
}

const TENSOR_TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K";

fn tensor_type(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
