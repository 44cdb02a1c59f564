//! The architectures this program can run: what they are called, and what transformers takes for
//! the fields that their `config.json` leaves out.

use serde_json::{Value, json};

/// What this program can run, for the messages that say what it cannot.
pub const SUPPORTED: &str = "prune-llm supports the dense models of the types `llama` \
     (`LlamaForCausalLM`: Llama 1 to 3, SmolLM and SmolLM2, TinyLlama and the like), `mistral`, \
     `qwen2` (also Qwen2.5), `qwen3` and `smollm3`";

/// Llama and its close relatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    /// Llama whose tokens see only so many tokens back.
    Mistral,
    /// Llama with biases on queries, keys and values. Qwen2.5 too.
    Qwen2,
    /// Llama with norms on queries and keys.
    Qwen3,
    /// Llama of which some blocks know nothing of positions.
    SmolLm3,
}

impl Architecture {
    pub const ALL: [Self; 5] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
    ];

    /// `model_type` in `config.json`, and the architecture in GGUF files.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
        }
    }

    /// The class in `architectures`.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    /// What transformers takes for the fields that `config.json` leaves out. Sizes are not among
    /// them: every file states those.
    pub(super) fn defaults(self) -> Value {
        match self {
            Self::Llama => json!({ "max_position_embeddings": 2048 }),
            Self::Mistral => json!({
                "max_position_embeddings": 131_072,
                "num_key_value_heads": 8,
                "sliding_window": 4096,
            }),
            Self::Qwen2 => json!({
                "max_position_embeddings": 32_768,
                "sliding_window": 4096,
                "max_window_layers": 28,
            }),
            Self::Qwen3 => json!({
                "max_position_embeddings": 32_768,
                "head_dim": 128,
                "sliding_window": 4096,
                "max_window_layers": 28,
            }),
            Self::SmolLm3 => json!({
                "max_position_embeddings": 32_768,
                "num_key_value_heads": 4,
                "rope_theta": 2e6,
                "tie_word_embeddings": true,
                "no_rope_layer_interval": Self::SMOLLM3_NO_ROPE_INTERVAL,
            }),
        }
    }

    /// Every fourth block of SmolLM3 does without rotary embeddings, unless its configuration says
    /// otherwise.
    pub(super) const SMOLLM3_NO_ROPE_INTERVAL: usize = 4;
}
