//! The four element types, with what a test has to know about each.

use wanda::Element;
use wanda::half::{bf16, f16};

/// An element type under test.
pub(crate) trait TestElement: Element {
    /// Large, but small enough for its products with norms and other factors to stay finite.
    const LARGE: f64;
    /// The largest finite value.
    const LARGEST: f64;
    /// The least positive value, a subnormal.
    const LEAST: f64;

    /// Rounds to the type.
    fn round(value: f64) -> Self;

    /// The value; exact.
    fn exact(self) -> f64;

    /// All bits, the sign of a zero among them.
    fn bits(self) -> u64;

    /// The magnitude times a factor, both as numbers of the type to compute in: one rounding of
    /// the factor, one of the product.
    fn magnitude_times(self, factor: f64) -> f64;
}

#[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
fn f32_product(magnitude: f32, factor: f64) -> f64 {
    f64::from(magnitude * factor as f32)
}

impl TestElement for f32 {
    const LARGE: f64 = 1e30;
    const LARGEST: f64 = f32::MAX as f64;
    const LEAST: f64 = 1.401_298_464_324_817e-45;

    #[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
    fn round(value: f64) -> Self {
        value as f32
    }

    fn exact(self) -> f64 {
        f64::from(self)
    }

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    fn magnitude_times(self, factor: f64) -> f64 {
        f32_product(self.abs(), factor)
    }
}

impl TestElement for f64 {
    const LARGE: f64 = 1e100;
    const LARGEST: f64 = f64::MAX;
    const LEAST: f64 = 5e-324;

    fn round(value: f64) -> Self {
        value
    }

    fn exact(self) -> f64 {
        self
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }

    fn magnitude_times(self, factor: f64) -> f64 {
        self.abs() * factor
    }
}

macro_rules! half {
    ($half:ident, $large:literal, $largest:literal, $least:literal) => {
        impl TestElement for $half {
            const LARGE: f64 = $large;
            const LARGEST: f64 = $largest;
            const LEAST: f64 = $least;

            fn round(value: f64) -> Self {
                Self::from_f64(value)
            }

            fn exact(self) -> f64 {
                self.to_f64()
            }

            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }

            fn magnitude_times(self, factor: f64) -> f64 {
                f32_product(self.to_f32().abs(), factor)
            }
        }
    };
}

half!(f16, 6e4, 65504.0, 5.960_464_477_539_063e-8);
half!(
    bf16,
    1e30,
    3.389_531_389_251_535_5e38,
    9.183_549_615_799_121e-41
);
