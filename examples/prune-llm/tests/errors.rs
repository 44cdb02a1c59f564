//! What goes wrong is said in words that help, and leaves nothing behind.

mod common;

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use common::{Fixture, assert_says, config, tensors, write_safetensors};
use prune_llm::cli::Cli;
use serde_json::{Value, json};
use std::fs;

fn fixture() -> Fixture {
    Fixture::new(&config(), &tensors(DType::F32))
}

fn fixture_with(key: &str, value: Value) -> Fixture {
    let mut config = config();
    config[key] = value;
    Fixture::new(&config, &tensors(DType::F32))
}

#[test]
fn other_architectures_by_name() {
    for name in ["gemma3", "mixtral", "qwen2_moe", "qwen3_moe"] {
        let error = fixture_with("model_type", json!(name)).error(&[]);
        assert_says(&error, &[name, "not supported", "LlamaForCausalLM"]);
    }
    let error = fixture_with("architectures", json!(["MixtralForCausalLM"])).error(&[]);
    assert_says(&error, &["MixtralForCausalLM", "not supported"]);
    let error = fixture_with("hidden_act", json!("gelu")).error(&[]);
    assert_says(&error, &["gelu", "silu"]);
    let error = fixture_with("rope_scaling", json!({"type": "yarn", "factor": 2})).error(&[]);
    assert_says(&error, &["yarn", "llama3"]);
}

/// A configuration that promises what the tensors do not keep, and the reverse.
#[test]
fn tensors_of_another_architecture() {
    let error = fixture_with("attention_bias", json!(true)).error(&[]);
    assert_says(&error, &["no tensor", "self_attn.q_proj.bias"]);
    let mut config = config();
    config["model_type"] = json!("qwen3");
    config["architectures"] = json!(["Qwen3ForCausalLM"]);
    config["head_dim"] = json!(8);
    let error = Fixture::new(&config, &tensors(DType::F32)).error(&[]);
    assert_says(&error, &["no tensor", "self_attn.q_norm"]);
    config["model_type"] = json!("smollm3");
    config["architectures"] = json!(["SmolLM3ForCausalLM"]);
    config["no_rope_layers"] = json!([1]);
    let error = Fixture::new(&config, &tensors(DType::F32)).error(&[]);
    assert_says(&error, &["no_rope_layers", "layer 1"]);
}

#[test]
fn impossible_configurations() {
    for (key, value, part) in [
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_hidden_layers", json!(100_000_000), "num_hidden_layers"),
        ("hidden_size", json!(1u64 << 60), "hidden_size"),
        ("num_key_value_heads", json!(3), "not a multiple"),
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("intermediate_size", json!(40), "shape"),
        ("vocab_size", json!("many"), "malformed"),
    ] {
        assert_says(&fixture_with(key, value).error(&[]), &[part]);
    }
}

#[test]
fn tensors_the_forward_pass_does_not_know() {
    let mut weights = tensors(DType::F32);
    let bias = Tensor::zeros(32, DType::F32, &Device::Cpu).unwrap();
    weights.insert("model.layers.0.self_attn.q_proj.bias".into(), bias);
    let error = Fixture::new(&config(), &weights).error(&[]);
    assert_says(&error, &["q_proj.bias", "knows nothing of"]);
}

#[test]
fn missing_files_and_models() {
    for (file, part) in [
        ("config.json", "needs `config.json`"),
        ("tokenizer.json", "no `tokenizer.json`"),
        ("model.safetensors", "no safetensors files"),
    ] {
        let fixture = fixture();
        fs::remove_file(fixture.model().join(file)).unwrap();
        assert_says(&fixture.error(&[]), &[part]);
        assert_eq!(fixture.entries(), ["model", "text"]);
    }
    let fixture = fixture();
    let error = fixture
        .run_on(&fixture.path("nowhere/at/all"), &[])
        .unwrap_err();
    assert_says(&format!("{error:#}"), &["no file or folder", "--model"]);
}

#[test]
fn damaged_weights() {
    let fixture = fixture();
    let path = fixture.model().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 8, 100, 5000, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_says(&fixture.error(&[]), &["model.safetensors"]);
    }
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &lying).unwrap();
    assert_says(&fixture.error(&[]), &["header claims"]);

    let mut weights = tensors(DType::F32);
    let name = "model.layers.1.mlp.up_proj.weight";
    let nan = Tensor::full(f32::NAN, (48, 32), &Device::Cpu).unwrap();
    weights.insert(name.into(), nan);
    write_safetensors(&weights, &path);
    assert_says(&fixture.error(&[]), &["block 1", "mlp.down_proj", "NaN"]);
    let error = fixture.error(&["--method", "magnitude", "--calibration-samples", "1"]);
    assert_says(&error, &["block 1", "NaN"]);

    let integers = Tensor::zeros((48, 32), DType::U8, &Device::Cpu).unwrap();
    weights.insert(name.into(), integers);
    write_safetensors(&weights, &path);
    assert_says(&fixture.error(&[]), &[name, "U8", "BF16"]);
    assert_eq!(fixture.entries(), ["model", "text"]);
}

#[test]
fn texts() {
    let fixture = fixture();
    let error = fixture.error(&["--calibration-samples", "30"]);
    assert_says(&error, &["has 1020 tokens", "30 sequences of 40 need 1200"]);
    let error = fixture.error(&["--eval-length", "700"]);
    assert_says(&error, &["3 sequences of 700 need 2100"]);
    let error = fixture.error(&["--sequence-length", "600", "--calibration-samples", "1"]);
    assert_says(&error, &["600 tokens", "512", "--sequence-length"]);
    let error = fixture.error(&["--eval", "nowhere"]);
    assert_says(&error, &["cannot read the text `nowhere`"]);
    fs::write(fixture.path("text"), [0xff, 0xfe, 0x00]).unwrap();
    assert_says(&fixture.error(&[]), &["UTF-8"]);
}

#[test]
fn output_that_is_not_ours() {
    let fixture = fixture();
    fs::create_dir(fixture.path("pruned")).unwrap();
    fixture.run(&[]).unwrap();
    // What this program wrote it may replace.
    fixture.run(&["--pattern", "2:4"]).unwrap();
    fs::write(fixture.path("pruned").join("notes.txt"), "mine").unwrap();
    let error = fixture.error(&[]);
    assert_says(&error, &["notes.txt", "did not write", "--output"]);
    let model = fixture.model();
    let error = fixture.error(&["--output", model.to_str().unwrap()]);
    assert_says(&error, &["--output"]);
    let text = fixture.path("text");
    let error = fixture.error(&["--output", text.to_str().unwrap()]);
    assert_says(&error, &["is a file"]);
    assert_eq!(fixture.entries(), ["model", "pruned", "text"]);
}

/// A file that was asked for does not take the place of a folder that is there.
#[test]
fn folders_where_files_are_to_go() {
    let fixture = fixture();
    let folder = fixture.path("notes");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine"), "kept").unwrap();
    let folder = folder.to_str().unwrap();
    assert_says(
        &fixture.error(&["--report", folder]),
        &["notes", "is a folder"],
    );
    for flag in ["--json", "--markdown"] {
        let error = fixture.compare(&[flag, folder]).unwrap_err();
        assert_says(&format!("{error:#}"), &["notes", "is a folder"]);
    }
    assert_eq!(fixture.entries(), ["model", "notes", "text"]);
    assert!(fixture.path("notes/mine").exists());
}

#[test]
fn arguments() {
    for (line, part) in [
        (["--calibration-samples", "0"], "at least 1"),
        (["--sequence-length", "0"], "at least 1"),
        (["--eval-windows", "0"], "at least 1"),
        (["--eval-length", "1"], "at least 2"),
        (["--calibration-samples", "1000000000000000000"], "at most"),
        (["--continuation", "18446744073709551615"], "at most"),
        (["--eval-length", "long"], "whole number"),
        (["--method", "guessing"], "possible values"),
        (["--update", "all"], "possible values"),
        (["--pattern", "1.5"], "--pattern"),
        (["--pattern", "4:2"], "--pattern"),
        (["--seed", "-1"], "--seed"),
    ] {
        let [flag, value] = line;
        let argument = format!("{flag}={value}");
        let error = Cli::try_parse_from(["prune-llm", &argument]).unwrap_err();
        assert_says(&error.to_string(), &[part]);
    }
}
