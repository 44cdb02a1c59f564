//! Models as GGUF files, named and ordered as llama.cpp does it.

use super::{END, Tensors, byte_tokens};
use candle_core::{
    Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use std::{collections::BTreeMap, fs, path::Path};

pub type Metadata = BTreeMap<String, Value>;
pub type Stored = BTreeMap<String, QTensor>;

/// What a file says of the model with this `config.json`, its tokenizer being that of all bytes.
pub fn metadata(config: &serde_json::Value) -> Metadata {
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    let number = |value: u64| Value::U32(u32::try_from(value).unwrap());
    let mut vocabulary = byte_tokens();
    vocabulary.truncate(super::vocabulary(config) - 1);
    let mut kinds = vec![Value::I32(1); vocabulary.len()];
    vocabulary.push(END.to_owned());
    kinds.push(Value::I32(3));
    let end = number(kinds.len() as u64 - 1);
    let architecture = architecture(config);
    let mut metadata = Metadata::from(
        [
            ("general.architecture", Value::String(architecture.clone())),
            ("tokenizer.ggml.model", Value::String("gpt2".into())),
            ("tokenizer.ggml.pre", Value::String("smollm".into())),
            ("tokenizer.ggml.tokens", texts(vocabulary)),
            ("tokenizer.ggml.token_type", Value::Array(kinds)),
            ("tokenizer.ggml.merges", texts(Vec::new())),
            ("tokenizer.ggml.bos_token_id", end.clone()),
            ("tokenizer.ggml.eos_token_id", end),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut of_model = |key: &str, value| metadata.insert(format!("{architecture}.{key}"), value);
    for (key, field) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.value_length", "head_dim"),
        ("attention.sliding_window", "sliding_window"),
    ] {
        if let Some(value) = config[field].as_u64() {
            of_model(key, number(value));
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "stored as f32")]
    let float = |value: &serde_json::Value| value.as_f64().map(|value| Value::F32(value as f32));
    of_model(
        "attention.layer_norm_rms_epsilon",
        float(&config["rms_norm_eps"]).unwrap(),
    );
    let rope = &config["rope_parameters"];
    if let Some(theta) = float(&config["rope_theta"]).or(float(&rope["rope_theta"])) {
        of_model("rope.freq_base", theta);
    }
    if rope["rope_type"] == "linear" {
        of_model("rope.scaling.type", Value::String("linear".into()));
        of_model("rope.scaling.factor", float(&rope["factor"]).unwrap());
    }
    metadata
}

fn architecture(config: &serde_json::Value) -> String {
    match config["model_type"].as_str().unwrap() {
        "mistral" => "llama",
        other => other,
    }
    .to_owned()
}

/// The tensors under llama.cpp's names, in its order of rows.
pub fn tensors(config: &serde_json::Value, weights: &Tensors) -> Stored {
    let heads = |field: &str| usize::try_from(config[field].as_u64().unwrap()).unwrap();
    let interleaves = matches!(architecture(config).as_str(), "llama" | "smollm3");
    weights
        .iter()
        .map(|(name, tensor)| {
            let name = stored_name(name);
            let tensor = if interleaves && name.contains("attn_q.") {
                interleaved(tensor, heads("num_attention_heads"))
            } else if interleaves && name.contains("attn_k.") {
                interleaved(tensor, heads("num_key_value_heads"))
            } else {
                tensor.clone()
            };
            (name, QTensor::quantize(&tensor, GgmlDType::F32).unwrap())
        })
        .collect()
}

pub fn stored_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("self_attn.q_", "attn_q_"),
        ("self_attn.k_", "attn_k_"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("_proj", ""),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn interleaved(tensor: &Tensor, heads: usize) -> Tensor {
    let rows = tensor.dim(0).unwrap();
    let columns = tensor.elem_count() / rows;
    tensor
        .reshape((heads, 2, rows / heads / 2, columns))
        .unwrap()
        .transpose(1, 2)
        .unwrap()
        .reshape(tensor.shape())
        .unwrap()
}

pub fn write(path: &Path, metadata: &Metadata, tensors: &Stored) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = fs::File::create(path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}
