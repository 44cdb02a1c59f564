//! Writes a checkpoint of Llama-2-7B's shapes with random weights in bf16, of as many blocks as
//! asked for, and a text to run it on: something to measure memory and time with.
//!
//! ```sh
//! cargo run --release -p prune-llm --example llama_7b -- 2 FOLDER
//! cargo run --release -p prune-llm --example speed -- --model FOLDER/model \
//!   --calibration FOLDER/text --calibration-samples 16 --sequence-length 512 \
//!   --eval FOLDER/text --eval-windows 2 --eval-length 128 --continuation 0 --output FOLDER/pruned
//! ```

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;
use prune_llm::model::{FileLayout, Writer, families, tensors};
use rand_pcg::{Pcg64, rand_core::Rng};
use serde_json::{Value, json};
use std::{env, fs, path::Path};
use tokenizers::{
    Tokenizer,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let usage = "usage: llama_7b BLOCKS FOLDER";
    let blocks = arguments.next().context(usage)?.parse().context(usage)?;
    let folder = arguments.next().context(usage)?;
    let model = Path::new(&folder).join("model");
    fs::create_dir_all(&model)?;

    let config = config(blocks).to_string();
    fs::write(model.join("config.json"), &config)?;
    let family = families::from_json(&config)?;
    let tokenizer = tokenizer(family.config().vocab_size)?;
    tokenizer
        .save(model.join("tokenizer.json"), false)
        .map_err(|error| anyhow!("{error}"))?;
    let tensors: Vec<_> = tensors(&*family)
        .map(|(name, shape)| (name, DType::BF16, Shape::from(shape)))
        .collect();
    let layout = FileLayout::new("model.safetensors", tensors.clone())?;
    let mut writer = Writer::open(&model, vec![layout])?;
    let mut random = Pcg64::new(7, 1);
    for (name, _, shape) in tensors {
        writer.write(&name, &random_tensor(&shape, &mut random)?)?;
    }
    writer.sync()?;
    // One token a character.
    let text: String = (0..40_000)
        .map(|_| char::from(b'a' + (random.next_u64() % 26) as u8))
        .collect();
    fs::write(Path::new(&folder).join("text"), text)?;
    Ok(())
}

fn config(blocks: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "num_hidden_layers": blocks,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    })
}

/// Every byte and as many more tokens as the model has.
fn tokenizer(size: usize) -> Result<Tokenizer> {
    let bytes = ByteLevel::alphabet().into_iter().map(String::from);
    let more = (0..).map(|number| format!("<{number}>"));
    let vocabulary: Vocab = bytes.chain(more).take(size).zip(0..).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, vec![])
        .build()
        .map_err(|error| anyhow!("{error}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    Ok(tokenizer)
}

/// Norms of 1, and matrices that leave the size of what flows through about as it is.
fn random_tensor(shape: &Shape, random: &mut Pcg64) -> Result<Tensor> {
    if shape.rank() == 1 {
        return Ok(Tensor::ones(shape, DType::BF16, &Device::Cpu)?);
    }
    let values: Vec<bf16> = (0..shape.elem_count())
        .map(|_| {
            let fraction = (random.next_u64() >> 40) as f32 / (1 << 24) as f32;
            bf16::from_f32((fraction - 0.5) * 0.06)
        })
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
