//! The number types weights are stored in, and the two that are computed with.

use std::fmt::{Debug, Display};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::ArrayView1;

use crate::number::{Number, RealNumber, widen_bf16, widen_bf16_run};

/// A type that weights and activations may be stored in: `f32`, `f64`, [`struct@f16`] or
/// [`struct@bf16`].
///
/// Half types are widened a row at a time while they are worked on. Second-order methods hold one
/// widened copy of a layer. The trait is sealed.
pub trait Element: Number + Copy + Debug + PartialEq + Send + Sync + 'static {
    /// The type to compute in: `f64` for `f64`, `f32` for all others.
    type Compute: Real;

    /// Positive zero, what a pruned weight becomes.
    const ZERO: Self;

    /// The same value in the type to compute in; exact.
    fn widen(self) -> Self::Compute;

    /// Widens a run of values. Values past the shorter of the two runs are left alone.
    fn widen_run(run: &[Self], out: &mut [Self::Compute]);

    /// The run itself, where it is stored in the type to compute in.
    fn as_compute(run: &[Self]) -> Option<&[Self::Compute]>;

    /// Rounds a value to this type.
    fn narrow(value: Self::Compute) -> Self;

    /// Rounds a run of values. Values past the shorter of the two runs are left alone.
    fn narrow_run(run: &[Self::Compute], out: &mut [Self]);

    /// Whether this is the zero whose sign bit is set.
    fn is_negative_zero(self) -> bool;
}

/// A type to compute in: `f32` or `f64`. The trait is sealed.
pub trait Real:
    Element<Compute = Self> + RealNumber + num_traits::Float + Display + Default
{
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;

    /// The same value as `f64`; exact.
    fn as_f64(self) -> f64;
}

macro_rules! real {
    ($real:ty) => {
        impl Element for $real {
            type Compute = Self;
            const ZERO: Self = 0.0;

            #[inline]
            fn widen(self) -> Self {
                self
            }

            fn widen_run(run: &[Self], out: &mut [Self]) {
                for (out, &x) in out.iter_mut().zip(run) {
                    *out = x;
                }
            }

            #[inline]
            fn as_compute(run: &[Self]) -> Option<&[Self]> {
                Some(run)
            }

            #[inline]
            fn narrow(value: Self) -> Self {
                value
            }

            fn narrow_run(run: &[Self], out: &mut [Self]) {
                Self::widen_run(run, out);
            }

            #[inline]
            fn is_negative_zero(self) -> bool {
                self == 0.0 && self.is_sign_negative()
            }
        }

        impl Real for $real {
            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                reason = "rounding is what is asked for"
            )]
            fn from_f64(value: f64) -> Self {
                value as Self
            }

            #[inline]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

real!(f32);
real!(f64);

macro_rules! half {
    ($half:ty, $widen:expr, $widen_run:expr) => {
        impl Element for $half {
            type Compute = f32;
            const ZERO: Self = <$half>::ZERO;

            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }

            fn widen_run(run: &[Self], out: &mut [f32]) {
                let len = run.len().min(out.len());
                $widen_run(&run[..len], &mut out[..len]);
            }

            #[inline]
            fn as_compute(_: &[Self]) -> Option<&[f32]> {
                None
            }

            #[inline]
            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }

            fn narrow_run(run: &[f32], out: &mut [Self]) {
                let len = run.len().min(out.len());
                out[..len].convert_from_f32_slice(&run[..len]);
            }

            #[inline]
            fn is_negative_zero(self) -> bool {
                self == Self::NEG_ZERO && self.is_sign_negative()
            }
        }
    };
}

half!(f16, f16::to_f32, HalfFloatSliceExt::convert_to_f32_slice);
half!(bf16, widen_bf16, widen_bf16_run);

/// A row as a run of values to compute with: the row itself where it is stored that way, else a
/// copy in `buffer`, which keeps its memory from row to row.
pub(crate) fn widened<'a, A: Element>(
    row: &ArrayView1<'a, A>,
    buffer: &'a mut Vec<A::Compute>,
) -> &'a [A::Compute] {
    if let Some(run) = row.to_slice() {
        return widened_run(run, buffer);
    }
    buffer.resize(row.len(), A::Compute::default());
    widen_row(row, buffer);
    buffer
}

/// The same of a run.
pub(crate) fn widened_run<'a, A: Element>(
    run: &'a [A],
    buffer: &'a mut Vec<A::Compute>,
) -> &'a [A::Compute] {
    A::as_compute(run).unwrap_or_else(|| {
        buffer.resize(run.len(), A::Compute::default());
        A::widen_run(run, buffer);
        buffer
    })
}

/// Widens a row that may be strided. `out` is as long as the row.
pub(crate) fn widen_row<A: Element>(row: &ArrayView1<'_, A>, out: &mut [A::Compute]) {
    if let Some(run) = row.as_slice() {
        A::widen_run(run, out);
    } else {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = x.widen();
        }
    }
}

/// The power of two that brings `x`, which is not negative, near 1; 1 for 0. Multiplying by it is
/// exact but for values that are tiny beside `x`.
pub(crate) fn inverse_power_of_two(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let exponent = x.log2().floor().clamp(-1022.0, 1022.0);
    (-exponent).exp2()
}
