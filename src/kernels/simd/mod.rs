//! From many numbers at once to a bit for each, and back.
//!
//! That is the one thing compilers do not find by themselves. All other loops of the kernels are
//! plain ones, which they turn into vectors.
//!
//! Each file has one instruction set. [`Portable`] is plain Rust, and what the others are tested
//! against.

use num_traits::PrimInt;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// How many numbers are compared at once.
pub(crate) const WORD: usize = 64;

/// How many numbers are added at once.
pub(crate) const LANES: usize = 8;

/// An instruction set. Values exist only where the machine has it.
pub trait Simd:
    Compare<f32> + Compare<f64> + AddMarked + Clear<u16> + Clear<u32> + Clear<u64>
{
}

impl<S> Simd for S where
    S: Compare<f32> + Compare<f64> + AddMarked + Clear<u16> + Clear<u32> + Clear<u64>
{
}

/// Comparisons of 64 numbers. Bit `i` of a result is that of number `i`; a comparison with
/// not-a-number is false.
pub trait Compare<T>: Copy {
    /// `run[i] < bound`
    fn below(self, run: &[T; WORD], bound: T) -> u64;

    /// `run[i] > bound`
    fn above(self, run: &[T; WORD], bound: T) -> u64;

    /// `left[i] < right[i]`
    fn less(self, left: &[T; WORD], right: &[T; WORD]) -> u64;

    /// Copies the numbers whose bit is set, in order, to the front of `out`, which must have room
    /// for all 64, and returns how many they are. What comes after them in `out` may change too.
    #[inline(always)]
    fn gather(self, run: &[T; WORD], word: u64, out: &mut [T; WORD]) -> usize
    where
        T: Copy,
    {
        let mut rest = word;
        let mut len = 0;
        while rest != 0 {
            out[len % WORD] = run[rest.trailing_zeros() as usize];
            len += 1;
            rest &= rest - 1;
        }
        len
    }
}

/// Sums of some of many numbers.
pub trait AddMarked: Copy {
    /// `sums[i] += values[i]` where bit `i` of `marks` is set.
    #[inline(always)]
    fn add_marked(self, sums: &mut [f64; LANES], values: &[f64; LANES], marks: u8) {
        for (lane, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
            *sum += if marks & (1 << lane) == 0 {
                0.0
            } else {
                *value
            };
        }
    }
}

/// Zeros in the place of some of 64 numbers, which are given as their bits.
pub trait Clear<B: PrimInt>: Copy {
    /// Sets the numbers whose bit in `marks` is set to `+0.0`, and returns how many of all are
    /// zero then, of either sign.
    #[inline(always)]
    fn clear(self, run: &mut [B; WORD], marks: u64) -> usize {
        let mut zeros = B::zero();
        // As many at a time as there are bits in a number, so that each tests a bit of its own
        // size.
        let size = 8 * size_of::<B>();
        let low_bits = u64::MAX >> (WORD - size);
        for (i, run) in run.chunks_exact_mut(size).enumerate() {
            // Never fails: there are no more bits than asked for.
            let marks = B::from(marks >> (i * size) & low_bits).unwrap_or(B::zero());
            for (lane, number) in run.iter_mut().enumerate() {
                let kept = marks & (B::one() << lane) == B::zero();
                *number = if kept { *number } else { B::zero() };
                // Without the sign.
                let is_zero = *number << 1 == B::zero();
                zeros = zeros + if is_zero { B::one() } else { B::zero() };
            }
        }
        zeros.to_usize().unwrap_or(0)
    }
}

/// Bits of a number, which every instruction set clears.
pub trait Clearable: PrimInt {
    /// See [`Clear::clear`].
    fn clear(simd: impl Simd, run: &mut [Self; WORD], marks: u64) -> usize;
}

macro_rules! clearable {
    ($bits:ty) => {
        impl Clearable for $bits {
            #[inline(always)]
            fn clear(simd: impl Simd, run: &mut [Self; WORD], marks: u64) -> usize {
                simd.clear(run, marks)
            }
        }
    };
}

clearable!(u16);
clearable!(u32);
clearable!(u64);

/// A type that every instruction set compares. Sealed with [`Real`](crate::Real).
pub trait Comparable: Sized {
    /// Whether each of 64 numbers is below a bound.
    fn below(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64;

    /// Whether each of 64 numbers is above a bound.
    fn above(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64;

    /// Whether each of 64 numbers is less than its partner.
    fn less(simd: impl Simd, left: &[Self; WORD], right: &[Self; WORD]) -> u64;

    /// Copies the numbers whose bit is set to the front of `out`; returns how many they are.
    fn gather(simd: impl Simd, run: &[Self; WORD], word: u64, out: &mut [Self; WORD]) -> usize;
}

macro_rules! comparable {
    ($t:ty) => {
        impl Comparable for $t {
            #[inline(always)]
            fn below(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64 {
                simd.below(run, bound)
            }

            #[inline(always)]
            fn above(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64 {
                simd.above(run, bound)
            }

            #[inline(always)]
            fn less(simd: impl Simd, left: &[Self; WORD], right: &[Self; WORD]) -> u64 {
                simd.less(left, right)
            }

            #[inline(always)]
            fn gather(
                simd: impl Simd,
                run: &[Self; WORD],
                word: u64,
                out: &mut [Self; WORD],
            ) -> usize {
                simd.gather(run, word, out)
            }
        }
    };
}

comparable!(f32);
comparable!(f64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers of which many are equal.
    fn numbers() -> impl Strategy<Value = [f64; WORD]> {
        let number = prop_oneof![
            (0..6_u8).prop_map(f64::from),
            -2.0..8.0_f64,
            Just(f64::INFINITY),
            Just(f64::NAN),
        ];
        prop::collection::vec(number, WORD)
            .prop_map(|numbers| numbers.try_into().expect("64 numbers"))
    }

    fn bits(bit: impl Fn(usize) -> bool) -> u64 {
        (0..WORD).fold(0, |word, i| word | u64::from(bit(i)) << i)
    }

    fn check_gather<T: Copy + PartialEq + std::fmt::Debug>(
        simd: impl Compare<T>,
        run: &[T; WORD],
        word: u64,
    ) {
        let mut out = *run;
        let len = simd.gather(run, word, &mut out);
        let expected: Vec<T> = (0..WORD)
            .filter(|i| word >> i & 1 == 1)
            .map(|i| run[i])
            .collect();
        assert_eq!(out[..len], expected);
    }

    fn check<S: Simd>(simd: S, left: &[f64; WORD], right: &[f64; WORD], bound: f64) {
        // Numbers that equal themselves, so that copies can be compared.
        let numbers: [f64; WORD] = std::array::from_fn(|i| i as f64);
        let word = simd.below(left, bound);
        check_gather(simd, &numbers, word);
        check_gather(simd, &std::array::from_fn(|i| i as f32), word);
        check_gather(simd, &numbers, u64::MAX);
        assert_eq!(simd.below(left, bound), bits(|i| left[i] < bound));
        assert_eq!(simd.above(left, bound), bits(|i| left[i] > bound));
        assert_eq!(simd.less(left, right), bits(|i| left[i] < right[i]));
        #[allow(clippy::cast_possible_truncation, reason = "any number will do")]
        let (left, right, bound) = (
            left.map(|x| x as f32),
            right.map(|x| x as f32),
            bound as f32,
        );
        assert_eq!(simd.below(&left, bound), bits(|i| left[i] < bound));
        assert_eq!(simd.above(&left, bound), bits(|i| left[i] > bound));
        assert_eq!(simd.less(&left, &right), bits(|i| left[i] < right[i]));
    }

    proptest! {
        #[test]
        fn every_instruction_set_compares_alike(
            left in numbers(),
            right in numbers(),
            bound in numbers().prop_map(|numbers| numbers[0]),
        ) {
            check(Portable, &left, &right, bound);
            #[cfg(target_arch = "x86_64")]
            {
                if let Some(avx2) = Avx2::detect() {
                    check(avx2, &left, &right, bound);
                }
                if let Some(avx512) = Avx512::detect() {
                    check(avx512, &left, &right, bound);
                }
            }
        }
    }
}
