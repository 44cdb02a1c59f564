//! Rebuilding a tokenizer from what a GGUF file says of it.

use super::metadata::Metadata;
use crate::{model::tokenizer::Companions, util::json::pretty};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use std::collections::HashSet;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    decoders::{
        byte_fallback::ByteFallback, byte_level::ByteLevel as ByteLevelDecoder, fuse::Fuse,
        sequence::Sequence as DecoderSequence, strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{
        prepend::Prepend, replace::Replace, unicode::NFC, utils::Sequence as NormalizerSequence,
    },
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
};

/// The kinds of tokens there are, as `tokenizer.ggml.token_type` numbers them.
mod token_type {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
}

/// The tokenizer of a file.
///
/// # Errors
/// It is of another kind, or its parts do not fit together.
pub(crate) fn tokenizer(metadata: &Metadata) -> Result<Tokenizer> {
    let tokens = Tokens::new(metadata)?;
    let mut tokenizer = match metadata.text("tokenizer.ggml.model")? {
        "gpt2" => byte_level_bpe(metadata, &tokens)?,
        "llama" => sentence_piece(metadata, &tokens)?,
        other => bail!(
            "the tokenizer `{other}` is not supported in GGUF files, only byte-level BPE (`gpt2`) \
             and SentencePiece's BPE (`llama`) are; use the model's Hugging Face folder"
        ),
    };
    // Tokens that are matched whole in a text.
    tokenizer
        .add_special_tokens(tokens.added(token_type::CONTROL, true))
        .and_then(|_| tokenizer.add_tokens(tokens.added(token_type::USER_DEFINED, false)))
        .map_err(|error| anyhow!("cannot add the special tokens: {error}"))?;
    add_beginning(&mut tokenizer, metadata)?;
    Ok(tokenizer)
}

/// The vocabulary, and the kind of every token.
struct Tokens<'a> {
    texts: &'a [String],
    kinds: Vec<i32>,
}

impl<'a> Tokens<'a> {
    fn new(metadata: &'a Metadata) -> Result<Self> {
        let texts = metadata.texts("tokenizer.ggml.tokens")?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "other numbers name no kind"
        )]
        let kinds = match metadata.numbers("tokenizer.ggml.token_type") {
            Some(kinds) => kinds.into_iter().map(|kind| kind as i32).collect(),
            None => vec![token_type::NORMAL; texts.len()],
        };
        ensure!(
            kinds.len() == texts.len(),
            "`tokenizer.ggml.token_type` has {} entries for {} tokens",
            kinds.len(),
            texts.len()
        );
        Ok(Self { texts, kinds })
    }

    fn ids(&self) -> Vocab {
        self.texts.iter().cloned().zip(0..).collect()
    }

    fn of_kind(&self, kind: i32) -> impl Iterator<Item = &'a String> {
        let kinds = self.kinds.iter();
        kinds
            .zip(self.texts)
            .filter(move |&(&found, _)| found == kind)
            .map(|(_, text)| text)
    }

    fn added(&self, kind: i32, special: bool) -> Vec<AddedToken> {
        self.of_kind(kind)
            .map(|text| AddedToken::from(text.clone(), special).normalized(false))
            .collect()
    }
}

/// How a byte-level tokenizer cuts a text into words before it merges within them.
struct Words {
    cut: PreTokenizerWrapper,
    /// Words that are in the vocabulary are taken whole.
    whole: bool,
    /// Characters are composed first: an `e` and an accent become an `é`.
    composed: bool,
}

impl Words {
    fn new(name: Option<&str>) -> Result<Self> {
        /// A word with the character before it, up to three digits, or punctuation with line
        /// breaks.
        const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        /// The same with single digits.
        const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        /// Words end where small letters are followed by capital ones.
        const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

        let (cut, whole, composed) = match name {
            None | Some("default" | "gpt-2" | "gpt2") => (byte_level(true).into(), false, false),
            Some("smollm") => {
                let steps = vec![Digits::new(true).into(), byte_level(true).into()];
                (Sequence::new(steps).into(), false, false)
            }
            Some("llama3" | "llama-v3" | "llama-bpe" | "smaug-bpe") => {
                (matches_of(LLAMA3)?, true, false)
            }
            Some("qwen2" | "deepseek-r1-qwen") => (matches_of(QWEN2)?, false, true),
            Some("tekken") => (matches_of(TEKKEN)?, true, false),
            Some(other) => bail!(
                "the pre-tokenizer `{other}` is not supported in GGUF files; use the model's \
                 Hugging Face folder"
            ),
        };
        Ok(Self {
            cut,
            whole,
            composed,
        })
    }
}

fn matches_of(pattern: &str) -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .map_err(|error| anyhow!("cannot build the tokenizer: {error}"))?;
    Ok(Sequence::new(vec![split.into(), byte_level(false).into()]).into())
}

fn byte_level(split_words: bool) -> ByteLevel {
    ByteLevel::new(false, true, split_words)
}

fn byte_level_bpe(metadata: &Metadata, tokens: &Tokens<'_>) -> Result<Tokenizer> {
    let words = Words::new(metadata.optional_text("tokenizer.ggml.pre"))?;
    let merges = metadata
        .texts("tokenizer.ggml.merges")?
        .iter()
        .map(|merge| {
            merge
                .split_once(' ')
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .with_context(|| format!("`{merge}` in `tokenizer.ggml.merges` is not a pair"))
        })
        .collect::<Result<_>>()?;
    let model = BPE::builder()
        .vocab_and_merges(tokens.ids(), merges)
        .ignore_merges(words.whole)
        .build()
        .map_err(|error| anyhow!("the tokenizer's vocabulary and merges do not match: {error}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(words.composed.then_some(NFC))
        .map_err(|error| anyhow!("cannot build the tokenizer: {error}"))?
        .with_pre_tokenizer(Some(words.cut))
        .with_decoder(Some(ByteLevelDecoder::new(true, true, true)));
    Ok(tokenizer)
}

/// SentencePiece's BPE with spaces as `▁`, and bytes for characters that have no token: the
/// tokenizer of Llama 1 and 2 and of Mistral.
fn sentence_piece(metadata: &Metadata, tokens: &Tokens<'_>) -> Result<Tokenizer> {
    const SPACE: &str = "▁";
    let failed = |error| anyhow!("cannot build the tokenizer: {error}");
    ensure!(
        !metadata.contains("tokenizer.ggml.precompiled_charsmap"),
        "the tokenizer rewrites texts (`tokenizer.ggml.precompiled_charsmap`), which is not \
         supported; use the model's Hugging Face folder"
    );
    let scores = metadata
        .numbers("tokenizer.ggml.scores")
        .context("the metadata lacks `tokenizer.ggml.scores`")?;
    ensure!(
        scores.len() == tokens.texts.len(),
        "`tokenizer.ggml.scores` has {} entries for {} tokens",
        scores.len(),
        tokens.texts.len()
    );
    let mut model = BPE::builder()
        .vocab_and_merges(tokens.ids(), merges(tokens, &scores))
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(unknown) = tokens.of_kind(token_type::UNKNOWN).next() {
        model = model.unk_token(unknown.clone());
    }
    let spaces = Replace::new(" ", SPACE).map_err(failed)?;
    let spaces_back = Replace::new(SPACE, " ").map_err(failed)?;
    let mut normalizers = vec![spaces.into()];
    let mut decoders = vec![
        spaces_back.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    let begins_with_space = metadata.optional_flag("tokenizer.ggml.add_space_prefix");
    if begins_with_space.unwrap_or(true) {
        normalizers.insert(0, Prepend::new(SPACE.to_owned()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    let mut tokenizer = Tokenizer::new(model.build().map_err(failed)?);
    tokenizer
        .with_normalizer(Some(NormalizerSequence::new(normalizers)))
        .map_err(failed)?
        .with_decoder(Some(DecoderSequence::new(decoders)));
    tokenizer
        .add_special_tokens(tokens.added(token_type::UNKNOWN, true))
        .map_err(failed)?;
    Ok(tokenizer)
}

/// SentencePiece merges whatever pair makes the token with the highest score. So every way to cut
/// a token into two others is a merge, and they are ranked by the scores of what they make.
fn merges(tokens: &Tokens<'_>, scores: &[f64]) -> Vec<(String, String)> {
    let normal: HashSet<&str> = tokens
        .of_kind(token_type::NORMAL)
        .map(String::as_str)
        .collect();
    let mut merges: Vec<(f64, &str, &str)> = tokens
        .texts
        .iter()
        .zip(scores)
        .filter(|(text, _)| normal.contains(text.as_str()))
        .flat_map(|(text, &score)| {
            text.char_indices().skip(1).map(move |(middle, _)| {
                let (left, right) = text.split_at(middle);
                (score, left, right)
            })
        })
        .filter(|(_, left, right)| normal.contains(left) && normal.contains(right))
        .collect();
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())));
    merges
        .into_iter()
        .map(|(_, left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

/// Where texts begin with a token of their own, whoever loads the written tokenizer gets it.
fn add_beginning(tokenizer: &mut Tokenizer, metadata: &Metadata) -> Result<()> {
    let of_llama = metadata.optional_text("tokenizer.ggml.model") == Some("llama")
        || matches!(
            metadata.optional_text("tokenizer.ggml.pre"),
            Some("llama3" | "llama-v3" | "llama-bpe")
        );
    let adds = metadata.optional_flag("tokenizer.ggml.add_bos_token");
    let id = metadata.optional_token("tokenizer.ggml.bos_token_id")?;
    let Some(id) = id.filter(|_| adds.unwrap_or(of_llama)) else {
        return Ok(());
    };
    let token = tokenizer
        .id_to_token(id)
        .with_context(|| format!("the vocabulary has no token {id} to begin texts with"))?;
    let template = TemplateProcessing::builder()
        .try_single(vec![token.as_str(), "$A"])
        .map_err(|error| anyhow!("the token `{token}` cannot begin texts: {error}"))?
        .special_tokens(vec![(token, id)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

/// The files of its tokenizer that the Hugging Face folder of a GGUF model needs, for texts of up
/// to `max_positions` tokens.
pub(crate) fn companions(
    tokenizer: &Tokenizer,
    max_positions: usize,
    metadata: &Metadata,
) -> Result<Companions> {
    let token = |key: &str| -> Result<Option<String>> {
        Ok(metadata
            .optional_token(&format!("tokenizer.ggml.{key}_token_id"))?
            .and_then(|id| tokenizer.id_to_token(id)))
    };
    let mut tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_positions,
        "add_bos_token": tokenizer.get_post_processor().is_some(),
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
        ("tokenizer.json".to_owned(), tokenizer.into_bytes()),
        (
            "tokenizer_config.json".to_owned(),
            pretty(&tokenizer_config)?,
        ),
    ]))
}
