//! The linear algebra of second-order pruning: a handful of operations, by whichever backend the
//! caller chooses. The files in this folder are the only ones that name a linear algebra crate.

mod backend;
mod damping;
mod factor;
mod faer;
#[cfg(feature = "lapack")]
mod lapack;
mod operations;
mod panel;
mod symmetric;

pub use backend::Backend;
pub use damping::Damping;

pub use factor::Factor;
pub(crate) use factor::{LowerTriangle, mean_of_live};
pub(crate) use operations::Store;
pub(crate) use panel::{Panel, PanelMut};
pub(crate) use symmetric::{Symmetric, add_product, add_to};
