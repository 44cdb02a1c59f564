//! Importance matrices of llama.cpp as GGUF files: for each weight matrix the sums of squares of
//! its inputs and the number of tokens.

use crate::model::BlockSpec;
use anyhow::{Context, Result, bail, ensure};
use candle_core::quantized::{
    GgmlDType,
    gguf_file::{Content, Value},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};
use wanda::ColumnNorms;

/// Follows a matrix's name in the name of its sums of squares.
const SUMS: &str = ".in_sum2";
/// Follows it in the name of its number of tokens.
const COUNTS: &str = ".counts";

/// Reads the norms of a model's inputs, by the names of its layers. Matrices outside of blocks are
/// left out.
///
/// # Errors
/// The file is damaged, holds something else, or is of a model with other kinds of layers.
pub(super) fn read(path: &Path, spec: &BlockSpec) -> Result<BTreeMap<String, ColumnNorms>> {
    let mut reader = BufReader::new(File::open(path)?);
    let content = Content::read(&mut reader)?;
    let kind = content.metadata.get("general.type");
    ensure!(
        matches!(kind, Some(Value::String(kind)) if kind == "imatrix"),
        "it is a GGUF file of something else; llama.cpp's `llama-imatrix` makes those"
    );
    let mut layers = BTreeMap::new();
    for tensor in content.tensor_infos.keys() {
        let Some(matrix) = tensor.strip_suffix(SUMS) else {
            continue;
        };
        if let Some(layer) = layer_of(matrix, spec)? {
            let norms = norms(&content, &mut reader, matrix)
                .with_context(|| format!("the matrix `{matrix}`"))?;
            layers.insert(layer, norms);
        }
    }
    Ok(layers)
}

fn norms<R: Read + Seek>(content: &Content, reader: &mut R, matrix: &str) -> Result<ColumnNorms> {
    let sums = numbers(content, reader, &format!("{matrix}{SUMS}"))?;
    let counts = numbers(content, reader, &format!("{matrix}{COUNTS}"))?;
    let [count] = counts.as_slice() else {
        bail!(
            "it is {} matrices in one; experts are not supported",
            counts.len()
        );
    };
    ensure!(
        *count >= 1.0 && count.fract() == 0.0 && *count < 2f32.powi(63),
        "it saw {count} tokens"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 1 to 2^63"
    )]
    let tokens = *count as u64;
    let sums = sums.into_iter().map(f64::from).collect();
    Ok(ColumnNorms::from_sums_of_squares(sums, tokens)?)
}

/// The numbers of a tensor of f32.
fn numbers<R: Read + Seek>(content: &Content, reader: &mut R, name: &str) -> Result<Vec<f32>> {
    let info = content.tensor_infos.get(name);
    let info = info.with_context(|| format!("there is no tensor `{name}`"))?;
    let dims = info.shape.dims();
    ensure!(
        info.ggml_dtype == GgmlDType::F32,
        "tensor `{name}` is {:?} and not F32",
        info.ggml_dtype
    );
    let mut lengths = dims.iter().map(|&dim| dim as u64);
    let len = lengths.try_fold(size_of::<f32>() as u64, u64::checked_mul);
    let len = len.with_context(|| format!("tensor `{name}` has the shape {dims:?}"))?;
    // Not read by candle, which takes any bytes for numbers where they are.
    let start = content.tensor_data_offset.saturating_add(info.offset);
    reader.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    reader.take(len).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 == len,
        "tensor `{name}` of shape {dims:?} extends past the end of the file"
    );
    let (numbers, _) = bytes.as_chunks();
    Ok(numbers.iter().copied().map(f32::from_le_bytes).collect())
}

/// The layer that a matrix belongs to, by llama.cpp's name for it; `None` outside of blocks.
fn layer_of(matrix: &str, spec: &BlockSpec) -> Result<Option<String>> {
    let Some(rest) = matrix.strip_prefix("blk.") else {
        return Ok(None);
    };
    let parts = rest
        .strip_suffix(".weight")
        .and_then(|rest| rest.split_once('.'));
    let layer = parts.and_then(|(block, part)| {
        let layer = spec.layer_of_gguf(part)?;
        Some(layer.full_name(block.parse().ok()?))
    });
    let layer = layer.with_context(|| {
        format!("`{matrix}` is no layer of the models that this program can prune")
    })?;
    Ok(Some(layer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families;

    #[test]
    fn matrices_are_layers() {
        let llama = families::from_json(
            r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "vocab_size": 8,
                "num_hidden_layers": 12, "num_attention_heads": 2}"#,
        );
        let llama = llama.unwrap();
        let layer_of = |matrix| layer_of(matrix, llama.block());
        for (matrix, layer) in [
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj"),
            ("blk.3.attn_k.weight", "model.layers.3.self_attn.k_proj"),
            ("blk.3.attn_v.weight", "model.layers.3.self_attn.v_proj"),
            (
                "blk.11.attn_output.weight",
                "model.layers.11.self_attn.o_proj",
            ),
            ("blk.11.ffn_gate.weight", "model.layers.11.mlp.gate_proj"),
            ("blk.11.ffn_up.weight", "model.layers.11.mlp.up_proj"),
            ("blk.11.ffn_down.weight", "model.layers.11.mlp.down_proj"),
        ] {
            assert_eq!(layer_of(matrix).unwrap().as_deref(), Some(layer));
        }
        assert_eq!(layer_of("output.weight").unwrap(), None);
        for matrix in [
            "blk.0.attn_qkv.weight",
            "blk.0.ffn_up_exps.weight",
            "blk.x.attn_q.weight",
            "blk.",
        ] {
            assert!(layer_of(matrix).unwrap_err().to_string().contains(matrix));
        }
    }
}
