//! The linear algebra of second-order pruning: a handful of operations, by whichever backend the
//! caller chooses. The files in this folder are the only ones that name a linear algebra crate.

mod factor;
mod faer;
#[cfg(feature = "lapack")]
mod lapack;
mod panel;
mod symmetric;

pub(crate) use factor::{Factor, LowerTriangle, factorize, mean_of_live};
pub(crate) use panel::{Panel, PanelMut};
pub(crate) use symmetric::{Symmetric, add_product};

/// What computes matrix products and factorisations.
///
/// The backend is chosen by the value passed, never by which features happen to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The faer crate: pure Rust. The default where it is built in.
    Faer,
    /// LAPACK through ndarray-linalg, and BLAS for products where ndarray's feature `blas` is on,
    /// as it is with each feature that links a provider.
    #[cfg(feature = "lapack")]
    Lapack,
}

impl Default for Backend {
    fn default() -> Self {
        Self::Faer
    }
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// It replaces whatever was there.
    Replace,
    /// It is added to what was there.
    Add,
}

/// The operations, on the two types computed in. Sealed with [`Real`](crate::Real).
///
/// Matrices are row-major panels. Shapes have to fit; callers in this crate see to that.
#[allow(
    private_interfaces,
    reason = "the trait is sealed and its module private"
)]
pub trait Scalar: Sized {
    /// `a · b`
    fn product(
        backend: Backend,
        store: Store,
        out: PanelMut<'_, Self>,
        a: Panel<'_, Self>,
        b: Panel<'_, Self>,
    );

    /// `a · R`, where `reversed` is the panel of J R J that holds the same entries:
    /// R[k, i] is its entry (columns − 1 − i, rows − 1 − k) of the transposed, reversed panel.
    fn product_reversed(
        backend: Backend,
        store: Store,
        out: PanelMut<'_, Self>,
        a: Panel<'_, Self>,
        reversed: Panel<'_, Self>,
    );

    /// `a · bᵀ`
    fn product_with_transposed(
        backend: Backend,
        store: Store,
        out: PanelMut<'_, Self>,
        a: Panel<'_, Self>,
        b: Panel<'_, Self>,
    );

    /// Replaces the upper triangle of the symmetric matrix A by the C with A = Cᵀ · C.
    ///
    /// # Errors
    ///
    /// The index of the first pivot that is not positive.
    fn cholesky(backend: Backend, a: PanelMut<'_, Self>) -> Result<(), usize>;

    /// `out` = the inverse of the upper triangular matrix `a`, which is regular.
    fn invert_upper(backend: Backend, out: PanelMut<'_, Self>, a: Panel<'_, Self>);
}

macro_rules! scalar {
    ($real:ty) => {
        impl Scalar for $real {
            fn product(
                backend: Backend,
                store: Store,
                out: PanelMut<'_, Self>,
                a: Panel<'_, Self>,
                b: Panel<'_, Self>,
            ) {
                match backend {
                    Backend::Faer => faer::product(store, out, a, b),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::product(store, out, a, b),
                }
            }

            fn product_reversed(
                backend: Backend,
                store: Store,
                out: PanelMut<'_, Self>,
                a: Panel<'_, Self>,
                reversed: Panel<'_, Self>,
            ) {
                match backend {
                    Backend::Faer => faer::product_reversed(store, out, a, reversed),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::product_reversed(store, out, a, reversed),
                }
            }

            fn product_with_transposed(
                backend: Backend,
                store: Store,
                out: PanelMut<'_, Self>,
                a: Panel<'_, Self>,
                b: Panel<'_, Self>,
            ) {
                match backend {
                    Backend::Faer => faer::product_with_transposed(store, out, a, b),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::product_with_transposed(store, out, a, b),
                }
            }

            fn cholesky(backend: Backend, a: PanelMut<'_, Self>) -> Result<(), usize> {
                match backend {
                    Backend::Faer => faer::cholesky(a),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::cholesky(a),
                }
            }

            fn invert_upper(backend: Backend, out: PanelMut<'_, Self>, a: Panel<'_, Self>) {
                match backend {
                    Backend::Faer => faer::invert_upper(out, a),
                    #[cfg(feature = "lapack")]
                    Backend::Lapack => lapack::invert_upper(out, a),
                }
            }
        }
    };
}

scalar!(f32);
scalar!(f64);
