//! JSON as files hold it.

use anyhow::Result;
use serde::Serialize;

/// Indented for people to read as well, with a line break at the end.
pub(crate) fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}
