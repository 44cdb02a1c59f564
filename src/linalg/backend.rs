//! The choice of what computes.

use ndarray::Array2;

use super::faer::Faer;
use super::operations::{Operations, Store};
use super::panel::{Panel, PanelMut};
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
    /// `out = a · b`, of shapes that fit.
    pub(crate) fn multiply<T: Real>(self, out: &mut Array2<T>, a: &Array2<T>, b: &Array2<T>) {
        let columns = b.ncols();
        let (Some(a), Some(b), inner) = (a.as_slice(), b.as_slice(), b.nrows()) else {
            return;
        };
        if let Some(out) = out.as_slice_mut() {
            let (a, b) = (Panel::new(a, inner), Panel::new(b, columns));
            let out = PanelMut::new(out, columns);
            self.operations::<T>().product(Store::Replace, out, a, b);
        }
    }

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
