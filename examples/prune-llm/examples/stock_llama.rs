//! The perplexity of a folder with a Llama, by the Llama of candle-transformers: what `prune-llm`
//! prints for the same text has to be the same.
//!
//! ```sh
//! prune-llm --eval README.md --eval-windows 8 --eval-length 256 --output pruned
//! cargo run --release -p prune-llm --example stock_llama -- pruned README.md 8 256
//! ```

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, ops::log_softmax};
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use prune_llm::{Progress, calibrate::Sequences, model::Location};
use std::{env, fs, path::Path};

fn main() -> Result<()> {
    let usage = "usage: stock_llama FOLDER TEXT WINDOWS LENGTH";
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, text, windows, length] = arguments.as_slice() else {
        anyhow::bail!(usage);
    };
    let input = Location::find(Some(folder), Progress::Hidden)?.open()?;
    let (windows, length) = (
        windows.parse().context(usage)?,
        length.parse().context(usage)?,
    );
    let windows = Sequences::from_file(text.as_ref(), &input.tokenizer, windows, length)?;
    println!("{:.4}", perplexity(folder.as_ref(), &windows)?);
    Ok(())
}

/// exp of the mean negative log likelihood of every token but the first of each window.
fn perplexity(folder: &Path, windows: &Sequences) -> Result<f64> {
    let config: LlamaConfig = serde_json::from_slice(&fs::read(folder.join("config.json"))?)?;
    let config = config.into_config(false);
    let file = fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(file, DType::F32, &Device::Cpu)?;
    let llama = Llama::load(weights, &config)?;
    let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu)?;

    // It tells the logits of the last token alone, so all windows go through it token by token.
    let tokens: Vec<&[u32]> = windows.iter().collect();
    let tokens = Tensor::new(tokens, &Device::Cpu)?;
    let predicted = windows.length() - 1;
    let mut loss = 0.0;
    for position in 0..predicted {
        let token = tokens.narrow(1, position, 1)?.contiguous()?;
        let next = tokens.narrow(1, position + 1, 1)?.contiguous()?;
        let logits = llama.forward(&token, position, &mut cache)?;
        let likelihoods = log_softmax(&logits, 1)?.gather(&next, 1)?;
        let likelihoods = likelihoods.to_dtype(DType::F64)?;
        loss -= likelihoods.sum_all()?.to_scalar::<f64>()?;
    }
    Ok((loss / (predicted * windows.count()) as f64).exp())
}
