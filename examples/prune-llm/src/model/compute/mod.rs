//! What forward passes are built of.

mod attention;
mod elementwise;
mod rope;

pub use attention::KvCache;
pub(super) use attention::attend;
pub(super) use elementwise::SwiGlu;
pub use elementwise::{exp, max, sum_exp};
pub use rope::RopeScaling;
pub(super) use rope::{Llama3Scaling, Rope, RopeConfig};

use candle_core::{Result, Tensor};

/// `x weightᵀ`, all tokens of all sequences as the rows of one product.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (sequences, tokens, features) = x.dims3()?;
    x.reshape((sequences * tokens, features))?
        .matmul(&weight.t()?)?
        .reshape((sequences, tokens, weight.dim(0)?))
}
