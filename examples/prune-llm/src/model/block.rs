//! One transformer block: its weights, its forward pass, and the places where it can be observed.

use super::{
    Attention, Config, KvCache, LinearKind, Rope, Tap, TensorSource, attention::attend,
    ops::SwiGlu, source,
};
use anyhow::Context;
use candle_core::{DType, Result, Tensor};

/// Is handed the input of every linear layer as a batch flows through a block.
pub trait Observer {
    /// `input` is contiguous f32, `[sequences, tokens, features]`; `tap.layers()` read it.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn input(&mut self, tap: Tap, input: &Tensor) -> anyhow::Result<()>;
}

/// The observer of passes that nobody watches.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn input(&mut self, _: Tap, _: &Tensor) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A block's weights in the type they are stored in.
#[derive(Debug, Clone)]
pub struct Block {
    linears: [Tensor; LinearKind::ALL.len()],
    biases: [Option<Tensor>; LinearKind::ALL.len()],
    attention_norm: Tensor,
    mlp_norm: Tensor,
    head_norms: Option<HeadNorms>,
    attention: Attention,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    eps: f32,
}

/// The norms of the heads of queries and of keys: one for all heads each.
#[derive(Debug, Clone)]
struct HeadNorms {
    query: Tensor,
    key: Tensor,
}

pub(super) const ATTENTION_NORM: &str = "input_layernorm";
pub(super) const MLP_NORM: &str = "post_attention_layernorm";
pub(super) const QUERY_NORM: &str = "self_attn.q_norm";
pub(super) const KEY_NORM: &str = "self_attn.k_norm";

/// The full name of a layer.
#[must_use]
pub fn layer_name(block: usize, layer: LinearKind) -> String {
    format!("model.layers.{block}.{}", layer.module())
}

/// The full name of a block's weights.
#[must_use]
pub fn tensor_name(block: usize, module: &str) -> String {
    format!("model.layers.{block}.{module}.weight")
}

/// The full name of a block's bias.
pub(super) fn bias_name(block: usize, module: &str) -> String {
    format!("model.layers.{block}.{module}.bias")
}

/// The names of all tensors of a block.
pub(super) fn tensor_names(block: usize, config: &Config) -> impl Iterator<Item = String> {
    let head_norms = [QUERY_NORM, KEY_NORM]
        .into_iter()
        .filter(|_| config.has_head_norms());
    let biases = LinearKind::ALL
        .into_iter()
        .filter(|&kind| config.has_bias(kind))
        .map(move |kind| bias_name(block, kind.module()));
    LinearKind::ALL
        .into_iter()
        .map(LinearKind::module)
        .chain([ATTENTION_NORM, MLP_NORM])
        .chain(head_norms)
        .map(move |module| tensor_name(block, module))
        .chain(biases)
}

impl Block {
    pub(super) fn load(
        index: usize,
        config: &Config,
        source: &mut dyn TensorSource,
    ) -> anyhow::Result<Self> {
        let mut linears = Vec::with_capacity(LinearKind::ALL.len());
        let mut biases = [const { None }; LinearKind::ALL.len()];
        for kind in LinearKind::ALL {
            let name = tensor_name(index, kind.module());
            let shape = kind.shape(config);
            linears.push(source::load(source, &name, shape)?);
            if config.has_bias(kind) {
                let name = bias_name(index, kind.module());
                biases[kind as usize] = Some(source::load(source, &name, shape.0)?);
            }
        }
        let mut norm =
            |module, features| source::load(source, &tensor_name(index, module), features);
        #[expect(clippy::cast_possible_truncation, reason = "the norms run in f32")]
        let eps = config.rms_norm_eps as f32;
        Ok(Self {
            attention_norm: norm(ATTENTION_NORM, config.hidden_size)?,
            mlp_norm: norm(MLP_NORM, config.hidden_size)?,
            head_norms: if config.has_head_norms() {
                Some(HeadNorms {
                    query: norm(QUERY_NORM, config.head_dim)?,
                    key: norm(KEY_NORM, config.head_dim)?,
                })
            } else {
                None
            },
            linears: linears
                .try_into()
                .map_err(|_| anyhow::anyhow!("a block has {} layers", LinearKind::ALL.len()))?,
            biases,
            attention: *config
                .attention
                .get(index)
                .with_context(|| format!("the configuration tells nothing of block {index}"))?,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            eps,
        })
    }

    /// A linear layer's weights, `[outputs, inputs]`.
    #[must_use]
    pub fn linear(&self, kind: LinearKind) -> &Tensor {
        &self.linears[kind as usize]
    }

    /// The block to compute with: in f32. Weights stored in f32 are shared, not copied.
    ///
    /// # Errors
    /// When candle cannot convert.
    pub fn widened(&self) -> Result<Self> {
        let mut block = self.clone();
        let head_norms = block.head_norms.iter_mut();
        for tensor in block
            .linears
            .iter_mut()
            .chain([&mut block.attention_norm, &mut block.mlp_norm])
            .chain(head_norms.flat_map(|norms| [&mut norms.query, &mut norms.key]))
            .chain(block.biases.iter_mut().flatten())
        {
            *tensor = tensor.to_dtype(DType::F32)?;
        }
        Ok(block)
    }

    /// Runs the block on `[sequences, tokens, hidden]` and shows `observer` the input of every
    /// linear layer.
    ///
    /// # Errors
    /// When candle cannot compute, or what the observer returns.
    pub fn forward(
        &self,
        x: &Tensor,
        rope: &Rope,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tensor> {
        self.run(x, rope, None, observer)
    }

    /// Runs the block on the tokens that follow those in the cache.
    ///
    /// # Errors
    /// When candle cannot compute, or the cache is full.
    pub fn extend(&self, x: &Tensor, rope: &Rope, cache: &mut KvCache) -> anyhow::Result<Tensor> {
        self.run(x, rope, Some(cache), &mut Unobserved)
    }

    /// Shows `observer` the same as [`forward`](Self::forward), without the output of the last
    /// layer, which nothing in the block reads.
    ///
    /// # Errors
    /// When candle cannot compute, or what the observer returns.
    pub fn observe(
        &self,
        x: &Tensor,
        rope: &Rope,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<()> {
        let x = self.attention(x, rope, None, observer)?;
        self.mlp_hidden(&x, observer)?;
        Ok(())
    }

    fn run(
        &self,
        x: &Tensor,
        rope: &Rope,
        cache: Option<&mut KvCache>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tensor> {
        let x = self.attention(x, rope, cache, observer)?;
        let hidden = self.mlp_hidden(&x, observer)?;
        Ok((x + self.apply(LinearKind::Down, &hidden)?)?)
    }

    /// `x` plus the attention over it.
    fn attention(
        &self,
        x: &Tensor,
        rope: &Rope,
        cache: Option<&mut KvCache>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tensor> {
        let input = candle_nn::ops::rms_norm(x, &self.attention_norm, self.eps)?;
        observer.input(Tap::AttentionInput, &input)?;
        let position = cache.as_ref().map_or(0, |cache| cache.position());
        let mut q = self.heads(LinearKind::Query, &input, self.num_attention_heads)?;
        let mut k = self.heads(LinearKind::Key, &input, self.num_key_value_heads)?;
        let v = self.heads(LinearKind::Value, &input, self.num_key_value_heads)?;
        if let Some(norms) = &self.head_norms {
            q = candle_nn::ops::rms_norm(&q, &norms.query, self.eps)?;
            k = candle_nn::ops::rms_norm(&k, &norms.key, self.eps)?;
        }
        if self.attention.rotary {
            q = rope.rotate(&q, position)?;
            k = rope.rotate(&k, position)?;
        }
        let q = q.transpose(1, 2)?;
        let k = k.transpose(1, 2)?.contiguous()?;
        let v = v.transpose(1, 2)?.contiguous()?;
        let (k, v) = match cache {
            Some(cache) => cache.append(&k, &v)?,
            None => (k, v),
        };
        let attended = attend(&q, &k, &v, position, self.attention.window)?;
        observer.input(Tap::AttentionOutput, &attended)?;
        Ok((x + self.apply(LinearKind::Output, &attended)?)?)
    }

    /// What the last layer of the MLP reads.
    fn mlp_hidden(&self, x: &Tensor, observer: &mut dyn Observer) -> anyhow::Result<Tensor> {
        let input = candle_nn::ops::rms_norm(x, &self.mlp_norm, self.eps)?;
        observer.input(Tap::MlpInput, &input)?;
        let hidden = self.apply(LinearKind::Gate, &input)?;
        hidden.inplace_op2(&self.apply(LinearKind::Up, &input)?, &SwiGlu)?;
        observer.input(Tap::MlpHidden, &hidden)?;
        Ok(hidden)
    }

    /// `[sequences, tokens, heads, head_dim]` of a projection.
    fn heads(&self, kind: LinearKind, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (sequences, tokens, _) = x.dims3()?;
        self.apply(kind, x)?
            .reshape((sequences, tokens, heads, self.head_dim))
    }

    fn apply(&self, kind: LinearKind, x: &Tensor) -> Result<Tensor> {
        let output = linear(x, self.linear(kind))?;
        match &self.biases[kind as usize] {
            Some(bias) => output.broadcast_add(bias),
            None => Ok(output),
        }
    }
}

/// `x weightᵀ`, all tokens of all sequences as the rows of one product.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (sequences, tokens, features) = x.dims3()?;
    x.reshape((sequences * tokens, features))?
        .matmul(&weight.t()?)?
        .reshape((sequences, tokens, weight.dim(0)?))
}
