//! AVX2: 8 numbers of `f32`, or 4 of `f64`, a vector.

use std::arch::x86_64::{
    _CMP_GT_OQ, _CMP_LT_OQ, _mm256_cmp_pd, _mm256_cmp_ps, _mm256_loadu_pd, _mm256_loadu_ps,
    _mm256_movemask_pd, _mm256_movemask_ps, _mm256_set1_pd, _mm256_set1_ps,
};

use super::{AddMarked, Clear, Compare, WORD};

/// The proof that the machine has AVX2, and the instructions on bits of the same generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        let bits = has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt");
        (bits && has!("avx2")).then_some(Self(()))
    }
}

/// A word from the bits of each vector of a run.
macro_rules! word {
    ($lanes:expr, |$($run:ident),+| $bits:expr) => {{
        let mut word = 0;
        for i in 0..WORD / $lanes {
            $(let $run = $run.as_chunks::<{ $lanes }>().0[i].as_ptr();)+
            // SAFETY: `self` proves that the machine has AVX2, and every run fills a vector.
            let bits = unsafe { $bits };
            word |= u64::from(bits.cast_unsigned()) << (i * $lanes);
        }
        word
    }};
}

macro_rules! compare {
    ($t:ty, $load:ident, $set:ident, $compare:ident, $mask:ident) => {
        impl Compare<$t> for Avx2 {
            #[inline(always)]
            fn below(self, run: &[$t; WORD], bound: $t) -> u64 {
                word!(32 / size_of::<$t>(), |run| {
                    $mask($compare::<_CMP_LT_OQ>($load(run), $set(bound)))
                })
            }

            #[inline(always)]
            fn above(self, run: &[$t; WORD], bound: $t) -> u64 {
                word!(32 / size_of::<$t>(), |run| {
                    $mask($compare::<_CMP_GT_OQ>($load(run), $set(bound)))
                })
            }

            #[inline(always)]
            fn less(self, left: &[$t; WORD], right: &[$t; WORD]) -> u64 {
                word!(32 / size_of::<$t>(), |left, right| {
                    $mask($compare::<_CMP_LT_OQ>($load(left), $load(right)))
                })
            }
        }
    };
}

compare!(
    f32,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_cmp_ps,
    _mm256_movemask_ps
);
compare!(
    f64,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_cmp_pd,
    _mm256_movemask_pd
);

impl AddMarked for Avx2 {}
impl Clear<u16> for Avx2 {}
impl Clear<u32> for Avx2 {}
impl Clear<u64> for Avx2 {}
