//! The rotary frequencies of a model in a GGUF file.

use super::container::Container;
use crate::model::compute::{Llama3Scaling, RopeConfig, RopeScaling};
use anyhow::{Result, bail, ensure};

/// Holds Llama 3.1's frequency divisors in place of the parameters they come from.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The frequencies for heads of `head_dim` features.
pub(crate) fn rope_config(file: &Container, head_dim: usize) -> Result<RopeConfig> {
    let metadata = &file.metadata;
    let theta = metadata.optional_float(&file.key("rope.freq_base")?)?;
    let mut config = RopeConfig {
        head_dim,
        theta: theta.unwrap_or(RopeConfig::DEFAULT_THETA),
        scaling: None,
    };
    config.scaling = match metadata.optional_text(&file.key("rope.scaling.type")?) {
        None | Some("none") if file.get(ROPE_FACTORS).is_none() => None,
        None | Some("none") => Some(RopeScaling::Llama3(llama3_scaling(file, config)?)),
        Some("linear") => {
            let factor = metadata.float(&file.key("rope.scaling.factor")?)?;
            Some(RopeScaling::Linear { factor })
        }
        Some(kind) => bail!("the rotary scaling `{kind}` is not supported in GGUF files"),
    };
    Ok(config)
}

/// The parameters behind the frequency divisors: what Llama 3.1 and later were released with, if
/// they give exactly the divisors in the file.
fn llama3_scaling(file: &Container, unscaled: RopeConfig) -> Result<Llama3Scaling> {
    let divisors = file.read(ROPE_FACTORS)?.flatten_all()?.to_vec1::<f32>()?;
    let scaling = Llama3Scaling {
        factor: f64::from(divisors.iter().copied().fold(1.0, f32::max)),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let scaled = RopeConfig {
        scaling: Some(RopeScaling::Llama3(scaling)),
        ..unscaled
    };
    // The numbers are compared first: the head dimension may be any that a damaged file tells.
    let explained = unscaled.head_dim / 2 == divisors.len()
        && unscaled
            .frequencies()
            .iter()
            .zip(&divisors)
            .all(|(&frequency, &divisor)| {
                let expected = scaled.divisor(f64::from(frequency));
                (f64::from(divisor) - expected).abs() <= 1e-3 * expected
            });
    ensure!(
        explained,
        "`{ROPE_FACTORS}` holds frequencies other than those of Llama 3.1 to 3.3; use the model's \
         Hugging Face folder"
    );
    Ok(scaling)
}
