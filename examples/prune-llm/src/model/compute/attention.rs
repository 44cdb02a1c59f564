//! Causal attention whose memory does not grow with the square of the sequence, and the cache of
//! keys and values that sampling needs.

use super::elementwise::CausalSoftmax;
use candle_core::{DType, Device, Result, Tensor};

/// Queries scored at a time. Keys after the last of them are never looked at, which also saves
/// most of the half of the work that causality makes void.
const QUERIES: usize = 128;
/// Scores held at a time, all sequences and heads together: 32 MiB of f32.
const SCORES: usize = 8 << 20;

/// Attention of `q` `[sequences, heads, tokens, head_dim]` over `k` and `v`
/// `[sequences, kv_heads, keys, head_dim]`; the first query is the token at `position`.
/// With a `window`, each token sees only that many, itself the last of them.
/// The result is `[sequences, tokens, heads * head_dim]`.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    position: usize,
    window: Option<usize>,
) -> Result<Tensor> {
    let window = window.unwrap_or(usize::MAX);
    let (sequences, heads, tokens, head_dim) = q.dims4()?;
    let per_sequence = heads * tokens.min(QUERIES) * (position + tokens);
    let group = (SCORES / per_sequence.max(1)).clamp(1, sequences);
    let mut outputs = Vec::with_capacity(sequences.div_ceil(group));
    for first in (0..sequences).step_by(group) {
        let count = group.min(sequences - first);
        let (q, k, v) = (
            q.narrow(0, first, count)?,
            k.narrow(0, first, count)?,
            v.narrow(0, first, count)?,
        );
        let chunks = (0..tokens)
            .step_by(QUERIES)
            .map(|start| attend_chunk(&q, &k, &v, position + start, start, window))
            .collect::<Result<Vec<_>>>()?;
        outputs.push(Tensor::cat(&chunks, 2)?);
    }
    Tensor::cat(&outputs, 0)?
        .transpose(1, 2)?
        .reshape((sequences, tokens, heads * head_dim))
}

/// The queries from `start` on, the first of them the token at `position`.
fn attend_chunk(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    position: usize,
    start: usize,
    window: usize,
) -> Result<Tensor> {
    let (sequences, heads, tokens, head_dim) = q.dims4()?;
    let kv_heads = k.dim(1)?;
    let queries = QUERIES.min(tokens - start);
    let first_key = (position + 1).saturating_sub(window);
    let keys = position + queries - first_key;
    // Query heads that share a key head become more rows of one product.
    let q = q.narrow(2, start, queries)?.contiguous()?.reshape((
        sequences,
        kv_heads,
        heads / kv_heads * queries,
        head_dim,
    ))?;
    let scores = q.matmul(&k.narrow(2, first_key, keys)?.t()?)?;
    #[expect(clippy::cast_possible_truncation, reason = "attention runs in f32")]
    let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
    scores.inplace_op1(&CausalSoftmax {
        queries,
        first_visible: position - first_key,
        window,
        scale,
    })?;
    scores
        .matmul(&v.narrow(2, first_key, keys)?)?
        .reshape((sequences, heads, queries, head_dim))
}

/// The keys and values of one block for the tokens seen so far.
#[derive(Debug)]
pub struct KvCache {
    capacity: usize,
    /// `[sequences, kv_heads, capacity, head_dim]`, once there are any.
    held: Option<(Tensor, Tensor)>,
    len: usize,
}

impl KvCache {
    /// Room for `capacity` tokens of each text.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            held: None,
            len: 0,
        }
    }

    /// Tokens held: the position of the next one.
    pub fn position(&self) -> usize {
        self.len
    }

    /// Appends `[sequences, kv_heads, tokens, head_dim]` and returns everything so far.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (sequences, kv_heads, tokens, head_dim) = keys.dims4()?;
        let (held_keys, held_values) = if let Some(held) = self.held.take() {
            held
        } else {
            let shape = (sequences, kv_heads, self.capacity, head_dim);
            let empty = || Tensor::zeros(shape, DType::F32, &Device::Cpu);
            (empty()?, empty()?)
        };
        held_keys.slice_set(keys, 2, self.len)?;
        held_values.slice_set(values, 2, self.len)?;
        self.len += tokens;
        // Handles, not copies; the caller narrows them to the tokens it sees.
        Ok(self.held.insert((held_keys, held_values)).clone())
    }
}
