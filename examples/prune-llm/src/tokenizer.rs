//! Tokenizers, from `tokenizer.json` or rebuilt from what a GGUF file says of one.

use crate::{
    json::pretty,
    model::{Config, gguf::Metadata},
};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use std::collections::BTreeMap;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// The files beside the weights in a Hugging Face folder, by name.
pub type Companions = BTreeMap<String, Vec<u8>>;

/// Reads the `tokenizer.json` of a Hugging Face folder.
///
/// # Errors
/// It is missing or damaged.
pub fn from_companions(companions: &Companions) -> Result<Tokenizer> {
    let bytes = companions.get("tokenizer.json").context(
        "the folder has no `tokenizer.json`; in Python, \
         `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` makes one",
    )?;
    Tokenizer::from_bytes(bytes).map_err(|error| anyhow!("cannot read `tokenizer.json`: {error}"))
}

/// The tokens of a text, with none added in front or at the end.
///
/// # Errors
/// The tokenizer cannot express the text.
pub fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    tokenizer
        .encode_fast(text, false)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|error| anyhow!("cannot tokenize the text: {error}"))
}

/// The text of tokens, special ones left out.
///
/// # Errors
/// The tokenizer's decoder fails.
pub fn text(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
    tokenizer
        .decode(tokens, true)
        .map_err(|error| anyhow!("cannot turn tokens into text: {error}"))
}

/// Rebuilds a byte-level BPE tokenizer.
///
/// # Errors
/// It is of another kind, or its parts do not fit together.
pub fn from_gguf(metadata: Metadata<'_>) -> Result<Tokenizer> {
    /// A word with the character before it, up to three digits, or punctuation with line breaks.
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    let kind = metadata.text("tokenizer.ggml.model")?;
    if kind != "gpt2" {
        bail!(
            "the tokenizer `{kind}` is not supported in GGUF files, only byte-level BPE (`gpt2`) \
             is; use the model's Hugging Face folder"
        );
    }
    let (pre_tokenizer, ignore_merges) = match metadata.optional_text("tokenizer.ggml.pre") {
        Some("smollm") => (
            sequence([Digits::new(true).into(), byte_level(true).into()]),
            false,
        ),
        None | Some("default" | "gpt-2" | "gpt2") => (byte_level(true).into(), false),
        Some("llama3" | "llama-v3" | "llama-bpe" | "smaug-bpe") => {
            let pattern = SplitPattern::Regex(LLAMA3.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|error| anyhow!("cannot build the tokenizer: {error}"))?;
            (sequence([split.into(), byte_level(false).into()]), true)
        }
        Some(other) => bail!(
            "the pre-tokenizer `{other}` is not supported in GGUF files; use the model's Hugging \
             Face folder"
        ),
    };

    let vocabulary = metadata.texts("tokenizer.ggml.tokens")?;
    let ids: Vocab = vocabulary
        .iter()
        .zip(0u32..)
        .map(|(token, id)| ((*token).to_owned(), id))
        .collect();
    let merges = metadata
        .texts("tokenizer.ggml.merges")?
        .into_iter()
        .map(|merge| {
            merge
                .split_once(' ')
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .with_context(|| format!("`{merge}` in `tokenizer.ggml.merges` is not a pair"))
        })
        .collect::<Result<_>>()?;
    let model = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|error| anyhow!("the tokenizer's vocabulary and merges do not match: {error}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(pre_tokenizer))
        .with_decoder(Some(ByteLevelDecoder::new(true, true, true)));
    add_special_tokens(&mut tokenizer, metadata, &vocabulary)?;
    Ok(tokenizer)
}

fn byte_level(split_words: bool) -> ByteLevel {
    ByteLevel::new(false, true, split_words)
}

fn sequence<const N: usize>(steps: [PreTokenizerWrapper; N]) -> PreTokenizerWrapper {
    Sequence::new(steps.into()).into()
}

/// Tokens that are matched whole in a text: control tokens and those the model's makers added.
fn add_special_tokens(
    tokenizer: &mut Tokenizer,
    metadata: Metadata<'_>,
    vocabulary: &[&str],
) -> Result<()> {
    const CONTROL: i64 = 3;
    const USER_DEFINED: i64 = 4;
    let of_type = |kind, special| -> Vec<AddedToken> {
        metadata
            .integers("tokenizer.ggml.token_type")
            .iter()
            .zip(vocabulary)
            .filter(|&(&found, _)| found == kind)
            .map(|(_, token)| AddedToken::from((*token).to_owned(), special))
            .collect()
    };
    tokenizer
        .add_special_tokens(of_type(CONTROL, true))
        .and_then(|_| tokenizer.add_tokens(of_type(USER_DEFINED, false)))
        .map(|_| ())
        .map_err(|error| anyhow!("cannot add the special tokens: {error}"))
}

/// The files beside the weights that the Hugging Face folder of a GGUF model needs.
///
/// # Errors
/// A token's number in the metadata is malformed.
pub fn companions(
    tokenizer: &Tokenizer,
    config: &Config,
    metadata: Metadata<'_>,
) -> Result<Companions> {
    let token = |key: &str| -> Result<Option<String>> {
        Ok(metadata
            .optional_token(&format!("tokenizer.ggml.{key}_token_id"))?
            .and_then(|id| tokenizer.id_to_token(id)))
    };
    let mut tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_position_embeddings,
        "add_bos_token": metadata.flag("tokenizer.ggml.add_bos_token"),
        "clean_up_tokenization_spaces": false,
    });
    for (field, key) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ] {
        if let Some(token) = token(key)? {
            tokenizer_config[field] = json!(token);
        }
    }
    if let Some(template) = metadata.optional_text("tokenizer.chat_template") {
        tokenizer_config["chat_template"] = json!(template);
    }
    let tokenizer = tokenizer
        .to_string(false)
        .map_err(|error| anyhow!("cannot write the tokenizer: {error}"))?;
    Ok(Companions::from([
        ("config.json".to_owned(), pretty(&config.to_json())?),
        ("tokenizer.json".to_owned(), tokenizer.into_bytes()),
        (
            "tokenizer_config.json".to_owned(),
            pretty(&tokenizer_config)?,
        ),
    ]))
}

/// Where the generation settings are kept.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// The generation settings every model has: where a text begins and ends.
///
/// # Errors
/// They cannot be serialized.
pub fn generation_config(config: &Config) -> Result<Vec<u8>> {
    pretty(&json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_json(),
    }))
}
