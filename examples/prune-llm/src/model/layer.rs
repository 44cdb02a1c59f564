//! The linear layers of a Llama block, and which of them read the same input.

use super::Config;

/// The linear layers inside a block: what is pruned. Embedding, norms and output head are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearKind {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl LinearKind {
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The module's name inside a block of a Hugging Face checkpoint.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Output and input features: the shape of the weight matrix.
    #[must_use]
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        match self {
            Self::Query => (queries, config.hidden_size),
            Self::Key | Self::Value => (keys, config.hidden_size),
            Self::Output => (config.hidden_size, queries),
            Self::Gate | Self::Up => (config.intermediate_size, config.hidden_size),
            Self::Down => (config.hidden_size, config.intermediate_size),
        }
    }
}

/// The four places of a block where an input can be seen. Layers that read the same input share
/// one place, so that its statistics are gathered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    AttentionInput,
    AttentionOutput,
    MlpInput,
    MlpHidden,
}

impl Tap {
    pub const ALL: [Self; 4] = [
        Self::AttentionInput,
        Self::AttentionOutput,
        Self::MlpInput,
        Self::MlpHidden,
    ];

    /// The layers that read what flows through here.
    #[must_use]
    pub fn layers(self) -> &'static [LinearKind] {
        match self {
            Self::AttentionInput => &[LinearKind::Query, LinearKind::Key, LinearKind::Value],
            Self::AttentionOutput => &[LinearKind::Output],
            Self::MlpInput => &[LinearKind::Gate, LinearKind::Up],
            Self::MlpHidden => &[LinearKind::Down],
        }
    }

    /// The names of the layers that read what flows through here, for messages.
    #[must_use]
    pub fn readers(self) -> String {
        let names: Vec<&str> = self.layers().iter().map(|layer| layer.module()).collect();
        names.join(", ")
    }

    /// The number of features that flow through here.
    #[must_use]
    pub fn features(self, config: &Config) -> usize {
        match self {
            Self::AttentionInput | Self::MlpInput => config.hidden_size,
            Self::AttentionOutput => config.num_attention_heads * config.head_dim,
            Self::MlpHidden => config.intermediate_size,
        }
    }
}
