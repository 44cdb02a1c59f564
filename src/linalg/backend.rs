//! The choice of what computes.

use super::faer::Faer;
use super::operations::Operations;
use crate::element::Real;
use crate::number::Family;

/// What computes matrix products and factorisations.
///
/// The backend is chosen by the value passed, never by which features happen to be on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The faer crate: pure Rust. The default.
    #[default]
    Faer,
    /// LAPACK through ndarray-linalg, and BLAS for products where ndarray's feature `blas` is on,
    /// as it is with each feature that links a provider.
    #[cfg(feature = "lapack")]
    Lapack,
}

/// The operations of a backend, which exist for each type computed in.
struct EachOperations;

impl Family for EachOperations {
    type Of<T: 'static> = &'static dyn Operations<T>;
}

impl Backend {
    /// The operations of this backend.
    pub(crate) fn operations<T: Real>(self) -> &'static dyn Operations<T> {
        match self {
            Self::Faer => T::pick::<EachOperations>(&Faer, &Faer),
            #[cfg(feature = "lapack")]
            Self::Lapack => {
                T::pick::<EachOperations>(&super::lapack::Lapack, &super::lapack::Lapack)
            }
        }
    }
}
