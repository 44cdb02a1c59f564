//! GGUF files as llama.cpp writes them: the same model as the Hugging Face folder.

mod common;

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file::Value},
};
use common::{
    Fixture, assert_close, config,
    gguf::{Metadata, Stored, write},
    llama, load, logits, names_in, stock_logits, tensors, tokens,
};
use prune_llm::model::{RopeScaling, tokenizer};
use std::fs;

fn metadata() -> Metadata {
    common::gguf::metadata(&config())
}

fn converted() -> Stored {
    common::gguf::tensors(&config(), &tensors(DType::F32))
}

fn error(metadata: &Metadata, tensors: &Stored) -> String {
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    write(&file, metadata, tensors);
    let error = fixture.run_on(&file, &[]).unwrap_err();
    assert_eq!(fixture.entries(), ["model.gguf", "text"]);
    format!("{error:#}")
}

#[test]
fn is_the_same_model_as_the_folder() {
    let weights = tensors(DType::F32);
    let folder = Fixture::new(&config(), &weights);
    let file = folder.path("model.gguf");
    write(&file, &metadata(), &converted());
    let text = tokens(20);
    let input = load(&file);
    assert_close(
        &logits(&input.model, &text),
        &logits(&load(&folder.model()).model, &text),
    );
    let words = "Digits 2024 and <end>.";
    assert_eq!(
        tokenizer::tokens(&input.tokenizer, words).unwrap(),
        tokenizer::tokens(&common::tokenizer(), words).unwrap()
    );

    // What is written is a folder that others read, with the same weights as from the folder.
    folder.run(&[]).unwrap();
    let model = folder.path("pruned").join("model.safetensors");
    let expected = fs::read(&model).unwrap();
    folder.run_on(&file, &[]).unwrap();
    assert!(fs::read(&model).unwrap() == expected);
    assert_eq!(
        names_in(&folder.path("pruned")),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "pruning.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_close(
        &logits(&load(&folder.path("pruned")).model, &text),
        &stock_logits(&folder.path("pruned"), &text),
    );
}

/// Llama 3.1's frequency divisors are turned back into the parameters they were made from.
#[test]
fn llama3_frequencies() {
    let mut tensors = converted();
    let mut metadata = metadata();
    metadata.insert("llama.rope.freq_base".into(), Value::F32(500_000.0));
    let factors = |values: &[f32]| {
        let tensor = Tensor::new(values, &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
    };
    // Waves of 2 pi * 500000^(pair / 4) positions: short, short, between, long.
    let waves = std::f64::consts::TAU * 500_000f64.sqrt();
    let smooth = (8192.0 / waves - 1.0) / 3.0;
    let between = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
    tensors.insert(
        "rope_freqs.weight".into(),
        #[expect(clippy::cast_possible_truncation, reason = "stored as f32")]
        factors(&[1.0, 1.0, between as f32, 8.0]),
    );
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    write(&file, &metadata, &tensors);
    let Some(RopeScaling::Llama3(scaling)) = llama(&load(&file).model).rope.scaling else {
        panic!("no scaling");
    };
    assert!((scaling.factor - 8.0).abs() < 1e-9);

    tensors.insert("rope_freqs.weight".into(), factors(&[1.0, 2.0, 3.0, 8.0]));
    let message = error(&metadata, &tensors);
    assert!(message.contains("rope_freqs.weight"), "{message}");
}

#[test]
fn what_is_not_supported_is_named() {
    let good = converted();
    for (key, value, part) in [
        (
            "general.architecture",
            "gemma3",
            "`gemma3` is not supported",
        ),
        (
            "general.architecture",
            "qwen3moe",
            "`qwen3moe` is not supported",
        ),
        ("tokenizer.ggml.model", "t5", "tokenizer `t5`"),
        ("tokenizer.ggml.pre", "gpt-4o", "pre-tokenizer `gpt-4o`"),
        ("llama.rope.scaling.type", "yarn", "`yarn`"),
    ] {
        let mut metadata = metadata();
        metadata.insert(key.into(), Value::String(value.into()));
        let message = error(&metadata, &good);
        assert!(message.contains(part), "{message}");
    }
    let mut experts = metadata();
    experts.insert("llama.expert_count".into(), Value::U32(8));
    assert!(error(&experts, &good).contains("mixture of experts (`llama.expert_count` is 8)"));
    for key in ["llama.block_count", "tokenizer.ggml.tokens"] {
        let mut metadata = metadata();
        metadata.remove(key);
        let message = error(&metadata, &good);
        assert!(message.contains(&format!("lacks `{key}`")), "{message}");
    }
    let mut missing = converted();
    missing.remove("blk.1.ffn_up.weight");
    let message = error(&metadata(), &missing);
    assert!(message.contains("model.layers.1.mlp.up_proj"), "{message}");
}

#[test]
fn damaged_files() {
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    write(&file, &metadata(), &converted());
    let whole = fs::read(&file).unwrap();
    for length in [0, 3, 20, 1000, whole.len() / 2, whole.len() - 100] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = format!("{:#}", fixture.run_on(&file, &[]).unwrap_err());
        assert!(error.contains("model.gguf"), "{error}");
    }
}
