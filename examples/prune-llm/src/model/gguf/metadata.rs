//! Typed access to the metadata of a GGUF file, with errors that name the key.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;

/// Everything a file says of its model.
#[derive(Debug)]
pub(crate) struct Metadata(pub(super) HashMap<String, Value>);

/// What a key stands for.
#[derive(Debug)]
pub(super) enum Value {
    Number(Number),
    Text(String),
    Numbers(Vec<Number>),
    Texts(Vec<String>),
}

/// Files differ in the types of their numbers, so only this much of a type is kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Flags too: 0 and 1.
    Integer(i64),
    Float(f64),
}

impl Metadata {
    /// Whether a key is there.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn required<T>(key: &str, value: Option<T>) -> Result<T> {
        value.with_context(|| format!("the metadata lacks `{key}`"))
    }

    /// A number of things.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let size = match self.0.get(key) {
            None => return Ok(None),
            Some(Value::Number(Number::Integer(size))) => usize::try_from(*size).ok(),
            Some(_) => None,
        };
        size.map(Some)
            .with_context(|| format!("`{key}` is not one size for all blocks"))
    }

    /// A number of things that must be there.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        Self::required(key, self.optional_size(key)?)
    }

    /// A token's number.
    pub(crate) fn optional_token(&self, key: &str) -> Result<Option<u32>> {
        self.optional_size(key)?
            .map(|id| u32::try_from(id).with_context(|| format!("`{key}` is {id}")))
            .transpose()
    }

    /// A number that need not be whole.
    pub(crate) fn optional_float(&self, key: &str) -> Result<Option<f64>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Number(Number::Float(value))) => Ok(Some(shortest(*value))),
            Some(_) => bail!("`{key}` is not a number with a decimal point"),
        }
    }

    /// A number that must be there and need not be whole.
    pub(crate) fn float(&self, key: &str) -> Result<f64> {
        Self::required(key, self.optional_float(key)?)
    }

    /// A text, if there is one.
    pub(crate) fn optional_text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        Self::required(key, self.optional_text(key))
    }

    /// A list of texts that must be there.
    pub(crate) fn texts(&self, key: &str) -> Result<&[String]> {
        match Self::required(key, self.0.get(key))? {
            Value::Texts(texts) => Ok(texts),
            // An empty list may be of any type.
            Value::Numbers(numbers) if numbers.is_empty() => Ok(&[]),
            _ => bail!("`{key}` is not a list of texts"),
        }
    }

    /// A list of numbers, if there is one.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        match self.0.get(key)? {
            Value::Numbers(numbers) => Some(numbers.iter().map(|number| number.value()).collect()),
            _ => None,
        }
    }

    /// Yes or no, if there is such a flag.
    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Number(Number::Integer(flag)) => Some(*flag != 0),
            _ => None,
        }
    }
}

impl Number {
    fn value(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// The decimal number that was meant, where it was stored as an f32: 1e-5 and not
/// 9.999999747378752e-6.
fn shortest(value: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "checked in the next line")]
    let single = value as f32;
    if f64::from(single).to_bits() == value.to_bits() {
        single.to_string().parse().unwrap_or(value)
    } else {
        value
    }
}
