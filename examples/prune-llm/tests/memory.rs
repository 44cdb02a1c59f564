//! Memory does not grow with the number of blocks.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Fixture, config};
use prune_llm::report::Report;
use serde_json::json;
use std::{collections::BTreeMap, fs};

const WIDTH: usize = 512;

/// The most memory that the program takes for a model of so many wide blocks, in bytes.
fn peak(blocks: usize) -> u64 {
    let mut config = config();
    config["hidden_size"] = json!(WIDTH);
    config["intermediate_size"] = json!(WIDTH);
    config["num_key_value_heads"] = json!(4);
    config["num_hidden_layers"] = json!(blocks);
    let values: Vec<f32> = (0..WIDTH * WIDTH)
        .map(|i| ((i * 7919 % 1013) as f32 / 1013.0 - 0.5) * 0.1)
        .collect();
    let square = Tensor::from_vec(values, (WIDTH, WIDTH), &Device::Cpu).unwrap();
    let norm = Tensor::ones(WIDTH, DType::F32, &Device::Cpu).unwrap();
    let table = square.narrow(0, 0, common::VOCABULARY).unwrap();
    let mut tensors = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), table.clone()),
        ("lm_head.weight".to_owned(), table),
        ("model.norm.weight".to_owned(), norm.clone()),
    ]);
    for block in 0..blocks {
        for module in ["q", "k", "v", "o"].map(|name| format!("self_attn.{name}_proj")) {
            let name = format!("model.layers.{block}.{module}.weight");
            tensors.insert(name, square.clone());
        }
        for module in ["gate", "up", "down"] {
            let name = format!("model.layers.{block}.mlp.{module}_proj.weight");
            tensors.insert(name, square.clone());
        }
        for module in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(
                format!("model.layers.{block}.{module}.weight"),
                norm.clone(),
            );
        }
    }
    let fixture = Fixture::new(&config, &tensors);
    let output = fixture.path("pruned");
    let report = fixture.path("report.json");
    let result = fixture
        .command(&[
            "--calibration-samples",
            "2",
            "--sequence-length",
            "16",
            "--eval-windows",
            "1",
            "--eval-length",
            "8",
            "--continuation",
            "0",
            "--output",
            output.to_str().unwrap(),
            "--report",
            report.to_str().unwrap(),
        ])
        // What is freed goes back to the system at once. Otherwise what glibc keeps for later, in a
        // heap for every thread, differs by 4 MB from run to run.
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    assert!(result.status.success(), "{result:?}");
    let report: Report = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    report.peak_memory_bytes.unwrap()
}

/// Ten more blocks are 73 MB of weights.
#[cfg(target_os = "linux")]
#[test]
fn more_blocks_take_no_more_memory() {
    let (few, many) = (peak(2), peak(12));
    assert!(many <= few + few / 20, "{few} {many}");
}
