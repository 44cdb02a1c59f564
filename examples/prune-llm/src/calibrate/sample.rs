//! Text from the model itself: calibration and evaluation data where there is none, and the
//! continuations that show what pruning does.

use crate::{
    model::{Block, Embedding, ForwardPass, KvCache, Model, Output, exp, max, sum_exp},
    util::{Progress, matrix},
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use rand_pcg::{Pcg64, rand_core::Rng};
use rayon::prelude::*;
use std::{ops::Range, slice};

/// What the keys and values of texts that are sampled together may take.
const CACHE_BYTES: usize = 1 << 30;
/// Texts sampled together at most; more rows make a step slower without making it cheaper a text.
const BATCH: usize = 64;
/// What blocks that stay in memory between two tokens of sampled texts may take. What is left of a
/// larger model is read again for every token.
const SAMPLING_BYTES: usize = 1 << 30;
/// The same for a continuation, which is short, and looked at while memory counts.
const CONTINUATION_BYTES: usize = 1 << 28;

/// Texts of `length` tokens, drawn from the model's own distribution.
///
/// Each text has its own random numbers, decided by `seed` and its place alone: asking for more
/// places gives the same texts there. It starts at the token that begins a text.
///
/// # Errors
/// `length` is more than the model allows.
pub fn texts(
    model: &Model,
    places: Range<usize>,
    length: usize,
    seed: u64,
    progress: Progress,
) -> Result<Vec<Vec<u32>>> {
    let config = model.config();
    let start = config
        .bos_token_id
        .or(config.eos_token_ids.first().copied())
        .unwrap_or(0);
    let bytes = model.family().cache_bytes_per_token() * model.blocks() * length;
    let batch = (CACHE_BYTES / bytes.max(1)).clamp(1, BATCH);
    let count = places.len();
    let bar = progress.bar("sampling", count.div_ceil(batch) * length);
    let mut texts: Vec<Vec<u32>> = Vec::new();
    while texts.len() < count {
        let first = places.start + texts.len();
        let sequences = batch.min(places.end - first);
        let mut generator = Generator::new(model, sequences, length, SAMPLING_BYTES)?;
        let mut random: Vec<Pcg64> = (first..first + sequences)
            .map(|text| Pcg64::new(u128::from(seed), text as u128))
            .collect();
        let mut last = vec![start; sequences];
        let mut drawn: Vec<Vec<u32>> = last.iter().map(|&token| vec![token]).collect();
        for _ in 1..length {
            let logits = generator.step(&last)?;
            last = matrix::with_rows(&logits, |logits| {
                Ok(logits
                    .outer_iter()
                    .into_par_iter()
                    .zip(&mut random)
                    .map(|(row, random)| draw(row.to_slice().unwrap_or_default(), random))
                    .collect())
            })?;
            for (text, &token) in drawn.iter_mut().zip(&last) {
                text.push(token);
            }
            bar.inc(1);
        }
        bar.inc(1);
        texts.append(&mut drawn);
    }
    Ok(texts)
}

/// The `length` most likely tokens after a prompt, one after another, up to the end of the text.
///
/// # Errors
/// The prompt has tokens that the model does not know.
pub fn continuation(model: &Model, prompt: &[u32], length: usize) -> Result<Vec<u32>> {
    let mut generator = Generator::new(model, 1, prompt.len() + length, CONTINUATION_BYTES)?;
    let mut tokens = Vec::new();
    while tokens.len() < length {
        let logits = generator.step(tokens.last().map_or(prompt, slice::from_ref))?;
        let token = matrix::with_rows(&logits, |rows| {
            let row = rows.outer_iter().next_back().context("an empty prompt")?;
            Ok(most_likely(row.to_slice().unwrap_or_default()))
        })?;
        if model.config().eos_token_ids.contains(&token) {
            break;
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Runs a model token by token.
struct Generator<'a> {
    model: &'a Model,
    embedding: Embedding,
    /// The first blocks, as many as may stay in memory.
    blocks: Vec<Block>,
    caches: Vec<KvCache>,
    output: Output,
    forward: Box<dyn ForwardPass>,
    sequences: usize,
}

impl<'a> Generator<'a> {
    fn new(model: &'a Model, sequences: usize, length: usize, block_bytes: usize) -> Result<Self> {
        let forward = model.forward_pass(length)?;
        let (embedding, output) = model.ends()?;
        let bytes_per_block = model.spec().weights() * size_of::<f32>();
        let kept = (block_bytes / bytes_per_block).min(model.blocks());
        Ok(Self {
            model,
            embedding,
            blocks: (0..kept)
                .map(|index| anyhow::Ok(model.block(index)?.widened()?))
                .collect::<Result<_>>()?,
            caches: (0..model.blocks()).map(|_| KvCache::new(length)).collect(),
            output,
            forward,
            sequences,
        })
    }

    /// Logits after the last of these tokens, one row a text. `tokens` holds the next ones of all
    /// texts, the same number of each.
    fn step(&mut self, tokens: &[u32]) -> Result<Tensor> {
        let mut x = self.embedding.embed(tokens, self.sequences)?;
        for (index, cache) in self.caches.iter_mut().enumerate() {
            x = if let Some(block) = self.blocks.get(index) {
                block.extend(&x, &*self.forward, cache)?
            } else {
                let block = self.model.block(index)?.widened()?;
                block.extend(&x, &*self.forward, cache)?
            };
        }
        let last = x.dim(1)? - 1;
        self.output.logits(&x.narrow(1, last, 1)?)
    }
}

/// Draws a token with the probability the model gives it.
fn draw(logits: &[f32], random: &mut Pcg64) -> u32 {
    let max = max(logits);
    // The upper 53 bits of the random number, as a fraction of 1.
    let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = uniform * sum_exp(logits, max);
    for (token, &logit) in (0..).zip(logits) {
        left -= f64::from(exp(logit - max));
        if left < 0.0 {
            return token;
        }
    }
    most_likely(logits)
}

fn most_likely(logits: &[f32]) -> u32 {
    (0..)
        .zip(logits)
        .fold((0, f32::NEG_INFINITY), |best, (token, &logit)| {
            if logit > best.1 { (token, logit) } else { best }
        })
        .0
}
