//! Users bring metrics, patterns and updates of their own, through the public interface alone.

#[path = "../common/mod.rs"]
mod common;

mod metrics;
#[cfg(feature = "second-order")]
mod own_update;
mod patterns;
mod public_types;
mod scores;
mod statistics;
mod updates;

use wanda::Pattern;
use wanda::ndarray::{Array2, array};

const HALF: Pattern = Pattern::PerOutput(0.5);

fn weights() -> Array2<f32> {
    array![[4.0, -1.0, 0.5, 3.0], [0.1, 0.4, -0.3, 0.2]]
}
