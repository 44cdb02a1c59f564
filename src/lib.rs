#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod element;
mod error;
mod kernels;
mod linalg;
mod mask;
mod matrix;
pub mod metric;
mod parallel;
pub mod pattern;
mod prune;
mod report;
pub mod stats;
pub mod update;

pub use half;
pub use ndarray;

pub use element::{Element, Real};
pub use error::{Error, Result};
pub use mask::{CsrIndices, Mask, MaskRow};
pub use matrix::Rows;
pub use metric::{ImportanceMetric, Magnitude, Scorer, Wanda};
pub use pattern::{Pattern, RowRule, SparsityPattern, validate};
pub use prune::{Pruner, prune_layer};
pub use update::{KeepWeights, UpdateTask, Updated, WeightUpdate};
pub use report::{ErrorBasis, LayerReport, RelativeError};
pub use stats::{ActivationStats, ColumnNorms, NoStats};

#[cfg(any(feature = "faer", feature = "lapack"))]
pub use {
    linalg::Backend, metric::Obs, prune::sparsegpt_layer, stats::Gram, update::ObsSweep,
};
