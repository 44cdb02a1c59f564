//! A factor of the Gram matrix that several steps of a pruner use.

use std::sync::{Arc, Mutex, PoisonError};

use crate::element::Real;
use crate::error::Result;
use crate::linalg::{Backend, Damping, Factor};
use crate::stats::gram::Gram;
use crate::update::UpdateTask;

/// The last factor that was made of a layer's Gram matrix, for whoever damps alike.
pub(crate) struct Factors<T>(Mutex<Option<Made<T>>>);

struct Made<T> {
    backend: Backend,
    /// As it was asked for.
    damping: Damping,
    factor: Arc<Factor<T>>,
}

impl<T> Default for Factors<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Real> UpdateTask<'_, T> {
    /// A factor of the damped Gram matrix: one that an earlier step made with the same damping and
    /// backend, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Gram::factor`].
    pub fn factor(
        &self,
        gram: &Gram,
        backend: Backend,
        damping: impl Into<Damping>,
    ) -> Result<Arc<Factor<T>>> {
        let damping = damping.into();
        let mut made = self
            .factors
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && (made.backend, made.damping) == (backend, damping)
        {
            return Ok(Arc::clone(&made.factor));
        }
        // What is not asked for again need not be held beside the new one.
        *made = None;
        let factor = Arc::new(gram.factor::<T>(backend, damping)?);
        *made = Some(Made {
            backend,
            damping,
            factor: Arc::clone(&factor),
        });
        Ok(factor)
    }
}
