//! GGUF files as llama.cpp writes them: the same model as the Hugging Face folder.

mod common;

use candle_core::{
    DType, Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use common::{
    END, Fixture, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, LAYERS, Tensors, assert_close,
    byte_tokens, config, load, logits, names_in, stock_logits, tensors, tokens,
};
use prune_llm::tokenizer;
use std::{collections::BTreeMap, fs, path::Path};

type Metadata = BTreeMap<&'static str, Value>;

fn metadata() -> Metadata {
    let number = |value: usize| Value::U32(u32::try_from(value).unwrap());
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let mut vocabulary = byte_tokens();
    let mut kinds = vec![Value::I32(1); vocabulary.len()];
    vocabulary.push(END.to_owned());
    kinds.push(Value::I32(3));
    Metadata::from([
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", number(LAYERS)),
        ("llama.context_length", number(512)),
        ("llama.embedding_length", number(HIDDEN)),
        ("llama.feed_forward_length", number(INTERMEDIATE)),
        ("llama.attention.head_count", number(HEADS)),
        ("llama.attention.head_count_kv", number(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", texts(vocabulary)),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", texts(Vec::new())),
        ("tokenizer.ggml.bos_token_id", number(256)),
        ("tokenizer.ggml.eos_token_id", number(256)),
    ])
}

/// llama.cpp's names and order of rows.
fn converted(weights: &Tensors) -> BTreeMap<String, QTensor> {
    weights
        .iter()
        .map(|(name, tensor)| {
            let name = [
                ("model.embed_tokens", "token_embd"),
                ("lm_head", "output"),
                ("model.norm", "output_norm"),
                ("model.layers", "blk"),
                ("self_attn.q_proj", "attn_q"),
                ("self_attn.k_proj", "attn_k"),
                ("self_attn.v_proj", "attn_v"),
                ("self_attn.o_proj", "attn_output"),
                ("post_attention_layernorm", "ffn_norm"),
                ("input_layernorm", "attn_norm"),
                ("mlp.gate_proj", "ffn_gate"),
                ("mlp.up_proj", "ffn_up"),
                ("mlp.down_proj", "ffn_down"),
            ]
            .iter()
            .fold(name.clone(), |name, (from, to)| name.replace(from, to));
            let tensor = if name.contains("attn_q.") {
                interleaved(tensor, HEADS)
            } else if name.contains("attn_k.") {
                interleaved(tensor, KV_HEADS)
            } else {
                tensor.clone()
            };
            (name, QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
        })
        .collect()
}

fn interleaved(weight: &Tensor, heads: usize) -> Tensor {
    let (rows, columns) = weight.dims2().unwrap();
    weight
        .reshape((heads, 2, rows / heads / 2, columns))
        .unwrap()
        .transpose(1, 2)
        .unwrap()
        .reshape((rows, columns))
        .unwrap()
}

fn write(path: &Path, metadata: &Metadata, tensors: &BTreeMap<String, QTensor>) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = fs::File::create(path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}

fn error(metadata: &Metadata, tensors: &BTreeMap<String, QTensor>) -> String {
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
    write(&file, &metadata(), &converted(&weights));
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
    let mut tensors = converted(&tensors(DType::F32));
    let mut metadata = metadata();
    metadata.insert("llama.rope.freq_base", Value::F32(500_000.0));
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
    let scaling = load(&file).model.config.rope_scaling.unwrap();
    assert!((scaling.factor - 8.0).abs() < 1e-9);

    tensors.insert("rope_freqs.weight".into(), factors(&[1.0, 2.0, 3.0, 8.0]));
    let message = error(&metadata, &tensors);
    assert!(message.contains("rope_freqs.weight"), "{message}");
}

#[test]
fn what_is_not_supported_is_named() {
    let good = converted(&tensors(DType::F32));
    for (key, value, part) in [
        ("general.architecture", "qwen3", "`qwen3` is not supported"),
        ("tokenizer.ggml.model", "llama", "tokenizer `llama`"),
        ("tokenizer.ggml.pre", "tekken", "pre-tokenizer `tekken`"),
        ("llama.rope.scaling.type", "yarn", "`yarn`"),
    ] {
        let mut metadata = metadata();
        metadata.insert(key, Value::String(value.into()));
        let message = error(&metadata, &good);
        assert!(message.contains(part), "{message}");
    }
    let mut experts = metadata();
    experts.insert("llama.expert_count", Value::U32(8));
    assert!(error(&experts, &good).contains("mixture of experts"));
    for key in ["llama.block_count", "tokenizer.ggml.tokens"] {
        let mut metadata = metadata();
        metadata.remove(key);
        let message = error(&metadata, &good);
        assert!(message.contains(&format!("lacks `{key}`")), "{message}");
    }
    let mut missing = converted(&tensors(DType::F32));
    missing.remove("blk.1.ffn_up.weight");
    let message = error(&metadata(), &missing);
    assert!(message.contains("model.layers.1.mlp.up_proj"), "{message}");
}

#[test]
fn damaged_files() {
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    write(&file, &metadata(), &converted(&tensors(DType::F32)));
    let whole = fs::read(&file).unwrap();
    for length in [0, 3, 20, 1000, whole.len() / 2, whole.len() - 100] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = format!("{:#}", fixture.run_on(&file, &[]).unwrap_err());
        assert!(error.contains("model.gguf"), "{error}");
    }
}
