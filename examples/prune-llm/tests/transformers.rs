//! Every architecture against Python's transformers, from Hugging Face folders and from GGUF
//! files. `fixtures/models.py` made the expected values.

mod common;

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml, gguf_file},
};
use common::{
    Fixture, assert_close, gguf, llama, load, logits,
    reference::{self, Reference},
};
use prune_llm::model::tokenizer;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// A text of the 63 bytes that a tokenizer of 64 tokens knows.
const TEXT: &str = "THE-BOATS-COME-HOME-WHEN-THE-LIGHT-IS-GONE;IN-1984-THERE-WERE-312.";

/// A folder with the model, pruned and not.
fn folder(reference: &Reference) -> Fixture {
    let fixture = Fixture::new(&reference.config, &reference.weights);
    fs::write(fixture.path("text"), TEXT.repeat(10)).unwrap();
    fixture
}

fn agrees_from_a_folder(name: &str) {
    let reference = Reference::new(name);
    let fixture = folder(&reference);
    let found = logits(&load(&fixture.model()).model, &reference.tokens);
    assert_close(&found, &reference.logits);
    fixture.run(&["--pattern", "2:4"]).unwrap();
    for (name, tensor) in read_weights(&fixture.path("pruned")) {
        let before = &reference.weights[&name];
        let difference = (tensor.ne(before).unwrap())
            .to_dtype(DType::F32)
            .and_then(|changed| changed.mean_all()?.to_scalar::<f32>())
            .unwrap();
        let expected = if name.ends_with("_proj.weight") {
            0.5
        } else {
            0.0
        };
        assert!((difference - expected).abs() < 1e-6, "{name}: {difference}");
    }
}

fn read_weights(folder: &Path) -> impl Iterator<Item = (String, Tensor)> {
    let file = folder.join("model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    tensors.into_iter()
}

fn agrees_from_a_file(name: &str) {
    let reference = Reference::new(name);
    let fixture = folder(&reference);
    let file = fixture.path("model.gguf");
    gguf::write(
        &file,
        &gguf::metadata(&reference.config),
        &gguf::tensors(&reference.config, &reference.weights),
    );
    let found = logits(&load(&file).model, &reference.tokens);
    assert_close(&found, &reference.logits);

    // What is written is the same model as from the folder.
    let pruned = |model: &Path| {
        fixture.run_on(model, &["--pattern", "2:4"]).unwrap();
        let input = load(&fixture.path("pruned"));
        let logits = logits(&input.model, &reference.tokens);
        (input.model, logits)
    };
    let (model, found) = pruned(&file);
    let (expected_model, expected) = pruned(&fixture.model());
    assert_close(&found, &expected);
    let (found, expected) = (llama(&model), llama(&expected_model));
    assert_eq!(found.variant, expected.variant);
    assert_eq!(found.attention, expected.attention);
    assert_eq!(found.rope.scaling, expected.rope.scaling);
}

macro_rules! models {
    ($check:ident: $($name:ident)*) => {
        mod $check {
            $(#[test]
            fn $name() {
                super::$check(&stringify!($name).replace('_', "-"));
            })*
        }
    };
}

models!(agrees_from_a_folder: llama2 llama3 llama_biases mistral qwen2 qwen2_window qwen3
    qwen3_biases smollm3 smollm3_window);
models!(agrees_from_a_file: llama2 llama_biases mistral qwen2 qwen3 qwen3_biases smollm3);

/// Bytes of a block, and the upper byte of each of its scales, by their places.
fn blocks(kind: &str) -> Option<(GgmlDType, &'static [(usize, u8)])> {
    Some(match kind {
        "Q4_0" => (GgmlDType::Q4_0, &[(0, 0x24)]),
        "Q4_1" => (GgmlDType::Q4_1, &[(0, 0x24), (2, 0xb0)]),
        "Q5_0" => (GgmlDType::Q5_0, &[(0, 0x20)]),
        "Q5_1" => (GgmlDType::Q5_1, &[(0, 0x20), (2, 0xb0)]),
        "Q8_0" => (GgmlDType::Q8_0, &[(0, 0x14)]),
        "Q2_K" => (GgmlDType::Q2K, &[(80, 0x20), (82, 0x20)]),
        "Q3_K" => (GgmlDType::Q3K, &[(108, 0x18)]),
        "Q4_K" => (GgmlDType::Q4K, &[(0, 0x10), (2, 0x1c)]),
        "Q5_K" => (GgmlDType::Q5K, &[(0, 0x0c), (2, 0x1c)]),
        "Q6_K" => (GgmlDType::Q6K, &[(208, 0x08)]),
        _ => return None,
    })
}

/// A matrix of a file, of random blocks or of random floats.
fn stored(name: &str, shape: &[usize], kind: &str) -> QTensor {
    if let (Some((dtype, scales)), [rows, columns]) = (blocks(kind), shape) {
        let count = rows * columns / dtype.block_size() * dtype.type_size();
        let mut bytes: Vec<u8> = reference::bits(name)
            .take(count.div_ceil(8))
            .flat_map(u64::to_le_bytes)
            .take(count)
            .collect();
        for block in bytes.chunks_mut(dtype.type_size()) {
            for (place, upper) in scales {
                block[place + 1] = *upper;
            }
        }
        return qtensor_from_ggml(dtype, &bytes, shape.to_vec(), &Device::Cpu).unwrap();
    }
    let dtype = match (kind, shape.len()) {
        ("F16", 2) => GgmlDType::F16,
        ("BF16", 2) => GgmlDType::BF16,
        _ => GgmlDType::F32,
    };
    QTensor::quantize(&reference::floats(name, shape), dtype).unwrap()
}

/// A Llama of one block and its file, all matrices of one type.
fn write_quantized(file: &Path, kind: &str) {
    const WIDTH: usize = 256;
    let config = json!({
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "vocab_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
    });
    let shapes: [(&str, &[usize]); 12] = [
        ("token_embd", &[64, WIDTH]),
        ("output", &[64, WIDTH]),
        ("output_norm", &[WIDTH]),
        ("blk.0.attn_norm", &[WIDTH]),
        ("blk.0.ffn_norm", &[WIDTH]),
        ("blk.0.attn_q", &[WIDTH, WIDTH]),
        ("blk.0.attn_k", &[WIDTH / 2, WIDTH]),
        ("blk.0.attn_v", &[WIDTH / 2, WIDTH]),
        ("blk.0.attn_output", &[WIDTH, WIDTH]),
        ("blk.0.ffn_gate", &[WIDTH, WIDTH]),
        ("blk.0.ffn_up", &[WIDTH, WIDTH]),
        ("blk.0.ffn_down", &[WIDTH, WIDTH]),
    ];
    let tensors = shapes.map(|(name, shape)| {
        let name = format!("{name}.weight");
        let tensor = stored(&name, shape, kind);
        (name, tensor)
    });
    gguf::write(file, &gguf::metadata(&config), &tensors.into());
}

#[test]
fn every_type_of_tensor_in_a_file() {
    let expected = reference::read("quantized.json");
    let tokens = reference::tokens(&expected["tokens"]);
    let kinds = expected["logits"].as_object().unwrap();
    assert_eq!(kinds.len(), 13);
    let fixture = Fixture::empty();
    fs::write(fixture.path("text"), TEXT.repeat(10)).unwrap();
    let file = fixture.path("model.gguf");
    for (kind, expected) in kinds {
        write_quantized(&file, kind);
        let found = logits(&load(&file).model, &tokens);
        println!("{kind}");
        assert_close(&found, &reference::rows(expected));

        // Floats of half the size stay what they are.
        let dtype = match kind.as_str() {
            "F16" => (DType::F16, "float16"),
            "BF16" => (DType::BF16, "bfloat16"),
            _ => (DType::F32, "float32"),
        };
        fixture.run_on(&file, &["--method", "magnitude"]).unwrap();
        let pruned = fixture.path("pruned");
        for (name, tensor) in read_weights(&pruned) {
            let norm = name.contains("norm");
            let expected = if norm { DType::F32 } else { dtype.0 };
            assert_eq!(tensor.dtype(), expected, "{name}");
        }
        let config: Value =
            serde_json::from_slice(&fs::read(pruned.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], dtype.1);
    }
}

/// Where words end is seen in the tokens: pairs of bytes merge across the ends of words, if let.
#[test]
fn byte_level_tokenizers() {
    let expected = reference::read("bytelevel.json");
    let texts = |list: &str| {
        let texts = expected[list].as_array().unwrap().iter();
        let texts = texts.map(|text| gguf_file::Value::String(text.as_str().unwrap().into()));
        gguf_file::Value::Array(texts.collect())
    };
    let mut config = common::config();
    config["vocab_size"] = json!(expected["tokens"].as_array().unwrap().len());
    let tensors = gguf::tensors(&config, &common::tensors(DType::F32));
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    for (name, ids) in expected["ids"].as_object().unwrap() {
        let mut metadata = gguf::metadata(&config);
        metadata.remove("tokenizer.ggml.token_type");
        metadata.insert("tokenizer.ggml.tokens".into(), texts("tokens"));
        metadata.insert("tokenizer.ggml.merges".into(), texts("merges"));
        let pre = gguf_file::Value::String(name.clone());
        metadata.insert("tokenizer.ggml.pre".into(), pre);
        gguf::write(&file, &metadata, &tensors);
        let text = expected["text"].as_str().unwrap();
        let found = tokenizer::tokens(&load(&file).tokenizer, text).unwrap();
        assert_eq!(found, reference::tokens(ids), "{name}");
    }
}

/// A file that llama.cpp's own Python package wrote.
#[test]
fn sentence_piece() {
    let expected = reference::read("sentencepiece.json");
    let file = reference::path("sentencepiece.gguf");
    let fixture = Fixture::empty();
    fixture.run_on(&file, &[]).unwrap();
    let pruned = load(&fixture.path("pruned"));
    let input = load(&file);
    for tokenizer in [&input.tokenizer, &pruned.tokenizer] {
        let texts = expected["texts"].as_array().unwrap();
        for (pair, decoded) in texts.iter().zip(expected["decoded"].as_array().unwrap()) {
            let text = pair[0].as_str().unwrap();
            let tokens = tokenizer::tokens(tokenizer, text).unwrap();
            assert_eq!(tokens, reference::tokens(&pair[1]), "{text}");
            let text = tokenizer.decode(&tokens, false).unwrap();
            assert_eq!(text, decoded.as_str().unwrap());
        }
        // Whoever asks for them gets the tokens around a text.
        assert_eq!(tokenizer.encode("A", true).unwrap().get_ids()[0], 1);
    }
    let tokens = reference::tokens(&expected["texts"][0][1]);
    assert_close(
        &logits(&input.model, &tokens),
        &reference::rows(&expected["logits"]),
    );
}
