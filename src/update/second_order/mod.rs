//! Updates that keep the output of a layer near what it should be, as the Gram matrix tells it.

mod admm;
mod factors;
mod finish;
mod least_squares;
pub(crate) mod obs_sweep;
mod plain;
mod refit;
mod retarget;
mod zeroed;

pub use admm::Admm;
pub(crate) use factors::Factors;
pub use obs_sweep::ObsSweep;
pub use refit::Refit;
pub use retarget::{Retarget, Target};
