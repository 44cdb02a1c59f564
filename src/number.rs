//! What kernels need of the types of numbers: their bits, and how these order and are widened.
//!
//! The traits are the hidden halves of [`Element`](crate::Element) and [`Real`](crate::Real).
//! Nobody else can name them, so they seal these as well.

use half::{bf16, f16};

use crate::simd::{Clearable, Comparable, kernel};

/// A type that numbers are stored in.
pub trait Number: Sized {
    /// An integer with as many bits as the type.
    type Bits: Clearable;

    /// Positive infinity.
    const INFINITY: Self;

    /// Whether widening is so quick that loops may do it for each number.
    const WIDENS_QUICKLY: bool;

    /// The bits without the sign: an integer that orders like the magnitude.
    fn magnitude_bits(self) -> Self::Bits;

    /// The value with these bits.
    fn from_bits(bits: Self::Bits) -> Self;
}

/// A type that is computed in.
pub trait RealNumber: Comparable + 'static {
    /// The bits, as an integer that orders like the value as long as it is not negative.
    fn key(self) -> u64;

    /// The value with these bits.
    fn from_key(key: u64) -> Self;

    /// The one of the two that belongs to this type.
    fn pick<F: Family>(of_f32: F::Of<f32>, of_f64: F::Of<f64>) -> F::Of<Self>;
}

/// Something that exists once for each type computed in.
pub trait Family {
    /// The one that belongs to `T`.
    type Of<T: 'static>;
}

macro_rules! number {
    ($number:ty, $bits:ty, widens_quickly: $quickly:literal) => {
        impl Number for $number {
            type Bits = $bits;
            const INFINITY: Self = <$number>::INFINITY;
            const WIDENS_QUICKLY: bool = $quickly;

            #[inline(always)]
            fn magnitude_bits(self) -> $bits {
                self.to_bits() & (<$bits>::MAX >> 1)
            }

            #[inline(always)]
            fn from_bits(bits: $bits) -> Self {
                <$number>::from_bits(bits)
            }
        }
    };
}

number!(f32, u32, widens_quickly: true);
number!(f64, u64, widens_quickly: true);
number!(f16, u16, widens_quickly: false);
number!(bf16, u16, widens_quickly: true);

macro_rules! real {
    ($real:ty, $bits:ty, |$of_f32:ident, $of_f64:ident| $own:ident) => {
        impl RealNumber for $real {
            #[inline]
            fn key(self) -> u64 {
                u64::from(self.to_bits())
            }

            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a key holds no more bits than the type"
            )]
            fn from_key(key: u64) -> Self {
                <$real>::from_bits(key as $bits)
            }

            #[inline]
            fn pick<F: Family>($of_f32: F::Of<f32>, $of_f64: F::Of<f64>) -> F::Of<Self> {
                $own
            }
        }
    };
}

real!(f32, u32, |of_f32, _of_f64| of_f32);
real!(f64, u64, |_of_f32, of_f64| of_f64);

/// A `bf16` is the upper half of an `f32`.
#[inline]
pub(crate) fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

kernel! {
    /// Widens a run of `bf16`.
    pub(crate) fn widen_bf16_run(_simd; run: &[bf16], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(run) {
            *out = widen_bf16(x);
        }
    }
}
