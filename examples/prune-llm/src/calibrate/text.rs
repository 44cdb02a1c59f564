//! Texts as sequences of tokens of equal length.

use crate::model::tokenizer;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};
use tokenizers::Tokenizer;

/// Tokens that go through a block at a time: enough rows for a matrix product at full speed, few
/// enough for the buffers to stay small.
const TOKENS_PER_BATCH: usize = 4096;

/// Sequences of tokens, all of one length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    tokens: Vec<u32>,
    length: usize,
}

impl Sequences {
    /// `count` sequences of `length` tokens of a file, read as one text: its first ones.
    ///
    /// All line ends become "\n", as where published perplexities come from.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or is too short.
    pub fn from_file(
        path: &Path,
        tokenizer: &Tokenizer,
        count: usize,
        length: usize,
    ) -> Result<Self> {
        let mut tokens = tokens_of(path, tokenizer, count, length)?;
        tokens.truncate(count * length);
        Ok(Self { tokens, length })
    }

    /// The same, spread evenly over the whole text.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn spread_over_file(
        path: &Path,
        tokenizer: &Tokenizer,
        count: usize,
        length: usize,
    ) -> Result<Self> {
        let text = tokens_of(path, tokenizer, count, length)?;
        let last = text.len() - length;
        let starts = (0..count).map(|place| place * last / (count - 1).max(1));
        let sequences = starts.flat_map(|start| &text[start..start + length]);
        Ok(Self {
            tokens: sequences.copied().collect(),
            length,
        })
    }

    /// Sequences of tokens, each cut to `length`.
    pub fn cut(sequences: &[Vec<u32>], length: usize) -> Self {
        Self {
            tokens: sequences
                .iter()
                .flat_map(|sequence| sequence.iter().take(length).copied())
                .collect(),
            length,
        }
    }

    /// Tokens in each sequence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many sequences there are.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// The sequences one by one.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.tokens.chunks(self.length)
    }

    /// The tokens of several sequences at a time.
    pub fn batches(&self) -> impl Iterator<Item = &[u32]> {
        self.tokens.chunks(self.tokens_per_batch())
    }

    /// The same sequences in groups of so many batches.
    pub fn groups(&self, batches: usize) -> impl Iterator<Item = Self> {
        let tokens = batches * self.tokens_per_batch();
        self.tokens.chunks(tokens).map(|tokens| Self {
            tokens: tokens.to_vec(),
            length: self.length,
        })
    }

    /// How many tokens a batch has, but for the last one.
    pub fn tokens_per_batch(&self) -> usize {
        (TOKENS_PER_BATCH / self.length).max(1) * self.length
    }
}

/// All tokens of a file, if there are enough for `count` sequences of `length`.
fn tokens_of(path: &Path, tokenizer: &Tokenizer, count: usize, length: usize) -> Result<Vec<u32>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the text `{}`", path.display()))?;
    let tokens = tokenizer::tokens(tokenizer, &universal_newlines(text))?;
    let needed = count.saturating_mul(length);
    ensure!(
        tokens.len() >= needed,
        "`{}` has {} tokens, and {count} sequences of {length} need {needed}; ask for fewer or \
         shorter ones, or give a longer text",
        path.display(),
        tokens.len()
    );
    Ok(tokens)
}

/// A text with "\n" for "\r\n" and for "\r" alone.
fn universal_newlines(text: String) -> String {
    if text.contains('\r') {
        text.replace("\r\n", "\n").replace('\r', "\n")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_line_ends_become_line_feeds() {
        for (text, expected) in [
            ("", ""),
            ("one\ntwo\n", "one\ntwo\n"),
            ("one\r\ntwo\r\n", "one\ntwo\n"),
            ("one\rtwo\r", "one\ntwo\n"),
            ("one\r\r\ntwo\n\r", "one\n\ntwo\n\n"),
        ] {
            assert_eq!(universal_newlines(text.to_owned()), expected, "{text:?}");
        }
    }
}
