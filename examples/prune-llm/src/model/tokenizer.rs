//! Tokenizers: reading one, and turning texts into tokens and back.

use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

/// The files beside the weights in a Hugging Face folder, by name.
pub type Companions = BTreeMap<String, Vec<u8>>;

/// Reads the `tokenizer.json` of a Hugging Face folder.
pub fn from_companions(companions: &Companions) -> Result<Tokenizer> {
    let bytes = companions.get("tokenizer.json").context(
        "the folder has no `tokenizer.json`; in Python, \
         `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` makes one",
    )?;
    Tokenizer::from_bytes(bytes).map_err(|error| anyhow!("cannot read `tokenizer.json`: {error}"))
}

/// The tokens of a text, with none added in front or at the end.
pub fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    tokenizer
        .encode_fast(text, false)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|error| anyhow!("cannot tokenize the text: {error}"))
}

/// The text of tokens, special ones left out.
pub fn text(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
    tokenizer
        .decode(tokens, true)
        .map_err(|error| anyhow!("cannot turn tokens into text: {error}"))
}
