//! [design.md]: crate::docs::design
//! [methods.md]: crate::docs::methods
//! [interop.md]: crate::docs::interop
//! [performance.md]: crate::docs::performance
//! [pytorch.md]: crate::docs::pytorch
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod allocate;
mod element;
mod error;
mod kernels;
#[cfg(feature = "second-order")]
mod linalg;
mod mask;
mod matrix;
pub mod metric;
mod number;
mod parallel;
pub mod pattern;
mod prune;
mod report;
mod scores;
mod select;
mod simd;
pub mod stats;
pub mod update;

pub use half;
pub use ndarray;

pub use element::{Element, Real};
pub use error::{Error, FileError, Result};
pub use mask::{CsrIndices, Mask, MaskRow};
pub use matrix::Rows;
pub use metric::{Context, Factors, ImportanceMetric, Magnitude, Prepared, Ria, Scorer, Wanda};
pub use pattern::{ComparisonGroup, Pattern, SparsityPattern, validate};
pub use prune::{Pruner, prune_layer};
pub use report::{ErrorBasis, LayerReport, RelativeError, Solved};
pub use scores::{Scores, Scoring};
pub use stats::{ActivationStats, ColumnNorms, GatherStats, NoStats, OutputEnergy};
pub use update::{KeepWeights, UpdateTask, Updated, WeightUpdate};

#[cfg(feature = "second-order")]
pub use {
    linalg::{Backend, Damping, Factor},
    metric::obs::Obs,
    prune::sparsegpt::sparsegpt_layer,
    stats::gram::{CrossProducts, Gram, LayerStats},
    update::second_order::{Admm, ObsSweep, Refit, Retarget, Target},
};

/// The long documents of the repository. Their code is tested with that of the crate.
#[cfg(any(doc, doctest))]
pub mod docs {
    /// [methods.md]: crate::docs::methods
    /// [interop.md]: crate::docs::interop
    /// [performance.md]: crate::docs::performance
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}
    #[doc = include_str!("../docs/methods.md")]
    pub mod methods {}
    #[doc = include_str!("../docs/interop.md")]
    pub mod interop {}
    /// [methods.md]: crate::docs::methods
    #[doc = include_str!("../docs/performance.md")]
    pub mod performance {}
    /// [methods.md]: crate::docs::methods
    /// [interop.md]: crate::docs::interop
    #[doc = include_str!("../docs/pytorch.md")]
    pub mod pytorch {}
}
