//! The models whose logits Python's transformers computed: see `fixtures/models.py`, which draws
//! the same weights.

use super::Tensors;
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// A file beside the script.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn read(name: &str) -> Value {
    serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap()
}

/// A model, a text, and what transformers makes of it.
pub struct Reference {
    pub config: Value,
    pub weights: Tensors,
    pub tokens: Vec<u32>,
    pub logits: Vec<Vec<f32>>,
}

impl Reference {
    pub fn new(name: &str) -> Self {
        let value = read(&format!("models/{name}.json"));
        let shapes = value["tensors"].as_object().unwrap().iter();
        let weights = shapes.map(|(name, shape)| (name.clone(), floats(name, &sizes(shape))));
        Self {
            weights: weights.collect(),
            tokens: tokens(&value["tokens"]),
            logits: rows(&value["logits"]),
            config: value["config"].clone(),
        }
    }
}

fn sizes(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn tokens(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Splitmix64, started at the FNV-1a hash of the name.
pub fn bits(name: &str) -> impl Iterator<Item = u64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (1u64..).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Weights between -1/4 and 1/4, those of norms around 1.
pub fn floats(name: &str, shape: &[usize]) -> Tensor {
    let centre = if name.ends_with("norm.weight") {
        1.0
    } else {
        0.0
    };
    let data: Vec<f32> = bits(name)
        .take(shape.iter().product())
        .map(|bits| ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.25 + centre)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}
