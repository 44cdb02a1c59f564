//! What whole models take, estimated from the measured rates.

use serde_json::{Value, json};

use crate::first_order;
use crate::measure::Table;
use crate::second_order::{self, FACTOR, GRAM, N, SPARSEGPT};

/// Tokens of the published calibration set: 128 sequences of 2048.
const TOKENS: usize = 128 * 2048;

/// What pruning a model costs, beside the forward passes of calibration.
pub(crate) struct Estimate {
    model: &'static str,
    /// Weights of the layers that are pruned.
    weights: usize,
    /// Metric and mask by Wanda, half of every row.
    wanda_seconds: f64,
    /// Gram matrices, factors and sweeps of SparseGPT.
    sparsegpt_seconds: f64,
}

/// The shape of a Llama.
struct Model {
    name: &'static str,
    blocks: usize,
    hidden: usize,
    intermediate: usize,
    /// Outputs of the keys' and of the values' projection.
    keys: usize,
}

const MODELS: [Model; 3] = [
    Model {
        name: "Llama-2-7B",
        blocks: 32,
        hidden: 4096,
        intermediate: 11008,
        keys: 4096,
    },
    Model {
        name: "Llama-2-13B",
        blocks: 40,
        hidden: 5120,
        intermediate: 13824,
        keys: 5120,
    },
    Model {
        name: "Llama-2-70B",
        blocks: 80,
        hidden: 8192,
        intermediate: 28672,
        keys: 1024,
    },
];

impl Model {
    /// The inputs that a block sees, and the outputs of all layers that read each.
    fn inputs(&self) -> [(usize, Vec<usize>); 4] {
        [
            (self.hidden, vec![self.hidden, self.keys, self.keys]),
            (self.hidden, vec![self.hidden]),
            (self.hidden, vec![self.intermediate; 2]),
            (self.intermediate, vec![self.hidden]),
        ]
    }
}

/// Estimates from the rows they need; none if one was not measured.
pub(crate) fn estimate(table: &Table) -> Vec<Estimate> {
    MODELS
        .iter()
        .filter_map(|model| estimate_model(table, model))
        .collect()
}

fn estimate_model(table: &Table, model: &Model) -> Option<Estimate> {
    let per_weight = table.seconds(first_order::WANDA)? / (4096.0 * 11008.0);
    let (gram, factor) = (table.seconds(GRAM)?, table.seconds(FACTOR)?);
    let sweep = table.seconds(SPARSEGPT)? - factor;
    let tokens = TOKENS as f64 / second_order::TOKENS as f64;
    let mut weights = 0;
    let mut sparsegpt = 0.0;
    for (inputs, layers) in model.inputs() {
        let size = inputs as f64 / N as f64;
        sparsegpt += gram * tokens * size.powi(2);
        for outputs in layers {
            weights += inputs * outputs;
            sparsegpt += factor * size.powi(3) + sweep * (outputs as f64 / N as f64) * size.powi(2);
        }
    }
    Some(Estimate {
        model: model.name,
        weights: weights * model.blocks,
        wanda_seconds: per_weight * (weights * model.blocks) as f64,
        sparsegpt_seconds: sparsegpt * model.blocks as f64,
    })
}

impl Estimate {
    /// The estimate, to be written.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "model": self.model,
            "weights": self.weights,
            "wanda_seconds": self.wanda_seconds,
            "sparsegpt_seconds": self.sparsegpt_seconds,
        })
    }
}

pub(crate) fn print(models: &[Estimate]) {
    if models.is_empty() {
        return;
    }
    println!("\nwhole models at these rates, without the forward passes of calibration");
    println!("{:<56} {:>10}  SparseGPT, 128 x 2048 tokens", "", "Wanda");
    for model in models {
        println!(
            "{:<56} {:>8.1} s  {:.0} s",
            format!(
                "{}: {:.1}e9 weights",
                model.model,
                model.weights as f64 / 1e9
            ),
            model.wanda_seconds,
            model.sparsegpt_seconds,
        );
    }
}
