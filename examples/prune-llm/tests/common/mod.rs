//! A tiny Llama with random weights, in the formats that real ones come in.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of this"
)]

pub mod gguf;
pub mod reference;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama as stock;
use clap::Parser;
use prune_llm::{
    Progress,
    cli::{Cli, Job, PruneArgs},
    job::{calibrate, compare, prune},
    model::{Block, Input, Location, Model, Unobserved, families::Llama},
    report::{Comparison, Report},
};
use rand_pcg::{Pcg64, rand_core::Rng};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel as Decoder,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
};

pub const HIDDEN: usize = 32;
pub const INTERMEDIATE: usize = 48;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const LAYERS: usize = 2;
/// Every byte, and one token that begins and ends texts.
pub const VOCABULARY: usize = 257;
pub const END: &str = "<end>";

pub type Tensors = BTreeMap<String, Tensor>;

pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": false,
        "bos_token_id": 256,
        "eos_token_id": 256,
    })
}

/// How many tokens a model knows, or a model should whose configuration does not tell.
pub fn vocabulary(config: &Value) -> usize {
    let size = config["vocab_size"].as_u64();
    size.map_or(VOCABULARY, |size| usize::try_from(size).unwrap())
}

/// The characters that stand for the 256 bytes, in a fixed order.
pub fn byte_tokens() -> Vec<String> {
    let mut tokens: Vec<String> = ByteLevel::alphabet()
        .into_iter()
        .map(String::from)
        .collect();
    tokens.sort_unstable();
    tokens
}

/// The tokenizer of `config()`.
pub fn tokenizer() -> Tokenizer {
    tokenizer_of(VOCABULARY)
}

/// A tokenizer of so many tokens: the first bytes, and the end. Others it leaves out.
fn tokenizer_of(vocabulary: usize) -> Tokenizer {
    let tokens = byte_tokens().into_iter().take(vocabulary - 1);
    let model = BPE::builder()
        .vocab_and_merges(tokens.zip(0..).collect::<Vocab>(), vec![])
        .build()
        .unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(Decoder::default()));
    tokenizer
        .add_special_tokens([AddedToken::from(END.to_owned(), true)])
        .unwrap();
    tokenizer
}

/// Random weights of the model that `config` describes.
pub fn tensors(dtype: DType) -> Tensors {
    deep_tensors(LAYERS, dtype)
}

/// The same with more or fewer blocks.
pub fn deep_tensors(layers: usize, dtype: DType) -> Tensors {
    let mut random = Pcg64::new(7, 1);
    let mut tensor = |shape: &[usize], centre: f32| {
        let count: usize = shape.iter().product();
        let data: Vec<f32> = (0..count)
            .map(|_| {
                let bits = random.next_u64() >> 40;
                centre + (bits as f32 / (1 << 23) as f32 - 1.0) * 0.3
            })
            .collect();
        Tensor::from_vec(data, shape, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap()
    };
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut tensors = Tensors::new();
    for layer in 0..layers {
        for (module, shape) in [
            ("self_attn.q_proj", [HIDDEN, HIDDEN]),
            ("self_attn.k_proj", [kv, HIDDEN]),
            ("self_attn.v_proj", [kv, HIDDEN]),
            ("self_attn.o_proj", [HIDDEN, HIDDEN]),
            ("mlp.gate_proj", [INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", [INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", [HIDDEN, INTERMEDIATE]),
        ] {
            let name = format!("model.layers.{layer}.{module}.weight");
            tensors.insert(name, tensor(&shape, 0.0));
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let name = format!("model.layers.{layer}.{norm}.weight");
            tensors.insert(name, tensor(&[HIDDEN], 1.0));
        }
    }
    let table = [VOCABULARY, HIDDEN];
    tensors.insert("model.embed_tokens.weight".into(), tensor(&table, 0.0));
    tensors.insert("lm_head.weight".into(), tensor(&table, 0.0));
    tensors.insert("model.norm.weight".into(), tensor(&[HIDDEN], 1.0));
    tensors
}

/// A temporary folder with a checkpoint in `model/` and a text in `text`.
pub struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub fn new(config: &Value, tensors: &Tensors) -> Self {
        let fixture = Self::empty();
        fs::create_dir(fixture.model()).unwrap();
        fs::write(fixture.model().join("config.json"), config.to_string()).unwrap();
        tokenizer_of(vocabulary(config))
            .save(fixture.model().join("tokenizer.json"), false)
            .unwrap();
        write_safetensors(tensors, &fixture.model().join("model.safetensors"));
        fixture
    }

    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = "A text to calibrate and to measure on, 0123456789. ".repeat(20);
        fs::write(folder.path().join("text"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    /// Runs the program on the model with the text, at a small size.
    pub fn run(&self, more: &[&str]) -> anyhow::Result<Report> {
        self.run_on(&self.model(), more)
    }

    pub fn run_on(&self, model: &Path, more: &[&str]) -> anyhow::Result<Report> {
        let output = self.path("pruned");
        let mut line = vec!["prune-llm".to_owned()];
        if !more.contains(&"--output") {
            line.extend(["--output", output.to_str().unwrap()].map(str::to_owned));
        }
        line.extend(self.inputs(model, more));
        prune(&prune_args(&line)?, Progress::Hidden)
    }

    /// Compares all methods on the model with the text, at a small size.
    pub fn compare(&self, more: &[&str]) -> anyhow::Result<Comparison> {
        let mut line = ["prune-llm", "compare"].map(str::to_owned).to_vec();
        line.extend(self.inputs(&self.model(), more));
        match Cli::try_parse_from(line)?.job() {
            Job::Compare(args) => compare(&args, Progress::Hidden),
            other @ (Job::Prune(_) | Job::Calibrate(_)) => panic!("{other:?}"),
        }
    }

    /// Writes the statistics of the model on the text, at a small size.
    pub fn calibrate(&self, name: &str, more: &[&str]) -> PathBuf {
        let mut line = vec!["prune-llm".to_owned()];
        line.extend(self.calibrate_line(name, more));
        match Cli::try_parse_from(line).unwrap().job() {
            Job::Calibrate(args) => calibrate(&args, Progress::Hidden).unwrap(),
            other => panic!("{other:?}"),
        }
        self.path(name)
    }

    /// The program itself, to be run on the model with the text, at a small size.
    pub fn command(&self, more: &[&str]) -> Command {
        program(self.inputs(&self.model(), more))
    }

    /// The same for writing statistics.
    pub fn calibrate_command(&self, name: &str, more: &[&str]) -> Command {
        program(self.calibrate_line(name, more))
    }

    fn calibrate_line(&self, name: &str, more: &[&str]) -> Vec<String> {
        let output = self.path(name);
        let mut line = ["calibrate", "--output", output.to_str().unwrap()]
            .map(str::to_owned)
            .to_vec();
        line.extend(self.calibration_inputs(&self.model(), more));
        line.extend(more.iter().map(|&word| word.to_owned()));
        line
    }

    /// Arguments that name the model and the text, as far as `more` does not, and `more`.
    fn inputs(&self, model: &Path, more: &[&str]) -> Vec<String> {
        let text = self.path("text");
        let mut line = self.calibration_inputs(model, more);
        line.extend(missing(
            &[
                ("--eval", text.to_str().unwrap()),
                ("--eval-windows", "3"),
                ("--eval-length", "32"),
            ],
            more,
        ));
        line.extend(more.iter().map(|&word| word.to_owned()));
        line
    }

    /// Arguments that name the model and the text to calibrate on, as far as `more` does not.
    fn calibration_inputs(&self, model: &Path, more: &[&str]) -> Vec<String> {
        let text = self.path("text");
        let mut line = missing(
            &[
                ("--model", model.to_str().unwrap()),
                ("--calibration-samples", "4"),
                ("--sequence-length", "40"),
            ],
            more,
        );
        if !more.contains(&"--statistics") {
            line.extend(missing(&[("--calibration", text.to_str().unwrap())], more));
        }
        line
    }

    /// The message of a run that has to fail.
    pub fn error(&self, more: &[&str]) -> String {
        format!("{:#}", self.run(more).unwrap_err())
    }

    /// The names of everything in the temporary folder.
    pub fn entries(&self) -> Vec<String> {
        names_in(self.folder.path())
    }
}

fn program(line: Vec<String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prune-llm"));
    command
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Those of the arguments that `more` does not have.
fn missing(arguments: &[(&str, &str)], more: &[&str]) -> Vec<String> {
    arguments
        .iter()
        .filter(|(flag, _)| !more.contains(flag))
        .flat_map(|&(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect()
}

/// The arguments of a line without subcommand.
pub fn prune_args<S: AsRef<str>>(line: &[S]) -> anyhow::Result<PruneArgs> {
    match Cli::try_parse_from(line.iter().map(AsRef::as_ref))?.job() {
        Job::Prune(args) => Ok(args),
        other @ (Job::Compare(_) | Job::Calibrate(_)) => panic!("{other:?}"),
    }
}

/// Fails unless a message has all of these parts.
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// The rows of a linear layer's weights.
pub fn rows(weights: &Tensor) -> Vec<Vec<f32>> {
    weights.to_dtype(DType::F32).unwrap().to_vec2().unwrap()
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

pub fn write_safetensors(tensors: &Tensors, path: &Path) {
    // As transformers writes it.
    let framework = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(framework), path).unwrap();
}

/// Writes a file whose tensors lie in the order of `names`, with metadata of its own.
pub fn write_in_order(names: &[String], tensors: &Tensors, path: &Path) {
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_owned(),
        json!({ "note": "kept", "format": "pt" }),
    );
    let mut data = Vec::new();
    for name in names {
        let tensor = &tensors[name];
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let info = json!({
            "dtype": "F32",
            "shape": tensor.dims(),
            "data_offsets": [start, data.len()],
        });
        header.insert(name.clone(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [length.as_slice(), &header, &data].concat()).unwrap();
}

/// The length and the header that a safetensors file begins with.
pub fn header(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes.truncate(8 + usize::try_from(length).unwrap());
    bytes
}

/// All tensors of a folder's safetensors files.
pub fn tensors_in(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = names_in(folder).into_iter();
    files
        .filter(|file| file.ends_with(".safetensors"))
        .flat_map(|file| candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap())
        .map(|(name, tensor)| {
            let tensor = tensor.to_dtype(DType::F32).unwrap();
            (name, tensor.flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect()
}

pub fn load(path: &Path) -> Input {
    Location::find(path.to_str(), Progress::Hidden)
        .unwrap()
        .open()
        .unwrap()
}

pub fn tokens(count: usize) -> Vec<u32> {
    (0..).map(|i: u32| i * i * 7 % 251).take(count).collect()
}

/// All transformer blocks, first to last.
pub fn blocks(model: &Model) -> impl Iterator<Item = Block> {
    (0..model.blocks()).map(|index| model.block(index).unwrap())
}

/// What the family of Llama knows of a model.
pub fn llama(model: &Model) -> &Llama {
    let family: &dyn Any = model.family();
    family.downcast_ref().unwrap()
}

/// The rows of all linear layers.
pub fn weights(model: &Model) -> Vec<Vec<Vec<f32>>> {
    let layers = 0..model.spec().layers.len();
    blocks(model)
        .flat_map(|block| layers.clone().map(move |layer| rows(block.weight(layer))))
        .collect()
}

/// Logits of every position from this program's forward pass.
pub fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let forward = model.forward_pass(tokens.len()).unwrap();
    let mut x = model.embedding().unwrap().embed(tokens, 1).unwrap();
    for block in blocks(model) {
        let block = block.widened().unwrap();
        x = block.forward(&x, &*forward, &mut Unobserved).unwrap();
    }
    let logits = model.output().unwrap().logits(&x).unwrap();
    logits.squeeze(0).unwrap().to_vec2().unwrap()
}

/// Logits of every position from the Llama of candle-transformers, in f32.
pub fn stock_logits(folder: &Path, tokens: &[u32]) -> Vec<Vec<f32>> {
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let config: stock::LlamaConfig = serde_json::from_str(&text).unwrap();
    let config = config.into_config(false);
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let weights = VarBuilder::from_buffered_safetensors(file, DType::F32, &Device::Cpu).unwrap();
    let llama = stock::Llama::load(weights, &config).unwrap();
    (1..=tokens.len())
        .map(|length| {
            let mut cache = stock::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            let ids = Tensor::new(&tokens[..length], &Device::Cpu).unwrap();
            let logits = llama
                .forward(&ids.unsqueeze(0).unwrap(), 0, &mut cache)
                .unwrap();
            assert_eq!(logits.dim(D::Minus1).unwrap(), VOCABULARY);
            logits.squeeze(0).unwrap().to_vec1().unwrap()
        })
        .collect()
}

/// Fails unless logits are within 1e-4, or, if some are larger than 1, within that part of the
/// largest.
pub fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    let bound = 1e-4
        * expected
            .iter()
            .flatten()
            .fold(1.0, |a: f32, x| a.max(x.abs()));
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() < bound,
                "position {position}: {a} where {b} is expected"
            );
        }
    }
}
