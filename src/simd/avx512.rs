//! AVX-512: vectors of 64 bytes. Comparisons give bits right away, and bits choose lanes.

use std::arch::x86_64::{
    _CMP_GT_OQ, _CMP_LT_OQ, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_cmp_pd_mask, _mm512_cmp_ps_mask, _mm512_cmplt_epi32_mask, _mm512_cmplt_epi64_mask,
    _mm512_cvtepi32_epi64, _mm512_loadu_epi32, _mm512_loadu_epi64, _mm512_loadu_pd,
    _mm512_loadu_ps, _mm512_mask_add_pd, _mm512_maskz_compress_pd, _mm512_maskz_compress_ps,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_epi64,
    _mm512_permutex2var_epi32, _mm512_permutex2var_epi64, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_set1_pd, _mm512_set1_ps, _mm512_storeu_epi16, _mm512_storeu_epi32,
    _mm512_storeu_epi64, _mm512_storeu_pd, _mm512_storeu_ps, _mm512_testn_epi16_mask,
    _mm512_testn_epi32_mask, _mm512_testn_epi64_mask, _pdep_u64,
};

use super::avx2::Avx2;
use super::instructions::{
    AddMarked, AddSquare, Clear, Compare, Deposit, LANES, Rotation, Simd, WORD,
};
use super::portable::Portable;

/// The proof that the machine has AVX-512 with its extensions for bytes and words, for double and
/// quad words, and for shorter vectors, and all that [`Avx2`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        Avx2::detect().filter(|_| avx512).map(|_| Self(()))
    }
}

/// A word from the bits of each vector of a run.
macro_rules! word {
    ($lanes:expr, |$($run:ident),+| $bits:expr) => {{
        let mut word = 0;
        for i in 0..WORD / $lanes {
            $(let $run = $run.as_chunks::<{ $lanes }>().0[i].as_ptr();)+
            // SAFETY: `self` proves that the machine has AVX-512, and every run fills a vector.
            word |= u64::from(unsafe { $bits }) << (i * $lanes);
        }
        word
    }};
}

macro_rules! compare {
    (
        $t:ty,
        $load:ident,
        $set:ident,
        $compare:ident,
        $compress:ident,
        $store:ident,
        $load_integers:ident,
        $load_lanes:expr,
        $permute:ident,
        $add:ident,
        $less:ident,
        $set_integers:ident
    ) => {
        impl Compare<$t> for Avx512 {
            #[inline(always)]
            fn below(self, run: &[$t; WORD], bound: $t) -> u64 {
                word!(64 / size_of::<$t>(), |run| {
                    $compare::<_CMP_LT_OQ>($load(run), $set(bound))
                })
            }

            #[inline(always)]
            fn above(self, run: &[$t; WORD], bound: $t) -> u64 {
                word!(64 / size_of::<$t>(), |run| {
                    $compare::<_CMP_GT_OQ>($load(run), $set(bound))
                })
            }

            #[inline(always)]
            fn below_each(self, run: &[$t; WORD], bounds: &[$t; WORD]) -> u64 {
                word!(64 / size_of::<$t>(), |run, bounds| {
                    $compare::<_CMP_LT_OQ>($load(run), $load(bounds))
                })
            }

            #[inline(always)]
            fn goes_before<const OF: usize>(
                self,
                run: &[$t; WORD],
                distance: usize,
                word: &mut [u8; WORD / 8],
            ) {
                const LANES: usize = 64 / size_of::<$t>();
                if OF > LANES {
                    return Portable.goes_before::<OF>(run, distance, word);
                }
                let to = &Rotation::<OF, LANES>::TO_ONE_OF_TWO[distance];
                let parts = word.as_chunks_mut::<{ LANES / 8 }>().0;
                for (run, part) in run.as_chunks::<LANES>().0.iter().zip(parts) {
                    // As integers, the bits of numbers that are not negative order like the
                    // numbers, and one less makes what is equal less: earlier numbers are taken
                    // from those.
                    // SAFETY: `self` proves that the machine has AVX-512, and both runs fill a
                    // vector.
                    let bits = unsafe {
                        let numbers = $load_integers(run.as_ptr().cast());
                        let less = $add(numbers, $set_integers(-1));
                        let other = $permute(numbers, $load_lanes(to.as_ptr().cast()), less);
                        $less(other, numbers)
                    };
                    *part = bits.to_le_bytes();
                }
            }

            #[inline(always)]
            fn survey(
                self,
                run: &[$t; WORD],
                low: $t,
                high: $t,
                out: &mut [$t; WORD],
            ) -> (u64, u64) {
                const LANES: usize = 64 / size_of::<$t>();
                let (mut below, mut within, mut len) = (0, 0, 0);
                for (i, run) in run.as_chunks::<LANES>().0.iter().enumerate() {
                    // So far no more vectors than were read are full, and there is room for all.
                    let Some(out) = out[len..].first_chunk_mut::<LANES>() else {
                        break;
                    };
                    // SAFETY: `self` proves that the machine has AVX-512, and both runs fill a
                    // vector.
                    let (lower, inside) = unsafe {
                        let numbers = $load(run.as_ptr());
                        let lower = $compare::<_CMP_LT_OQ>(numbers, $set(low));
                        let inside = !lower & !$compare::<_CMP_GT_OQ>(numbers, $set(high));
                        $store(out.as_mut_ptr(), $compress(inside, numbers));
                        (lower, inside)
                    };
                    below |= u64::from(lower) << (i * LANES);
                    within |= u64::from(inside) << (i * LANES);
                    len += inside.count_ones() as usize;
                }
                (below, within)
            }
        }
    };
}

compare!(
    f32,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_cmp_ps_mask,
    _mm512_maskz_compress_ps,
    _mm512_storeu_ps,
    _mm512_loadu_epi32,
    _mm512_loadu_epi32,
    _mm512_permutex2var_epi32,
    _mm512_add_epi32,
    _mm512_cmplt_epi32_mask,
    _mm512_set1_epi32
);
compare!(
    f64,
    _mm512_loadu_pd,
    _mm512_set1_pd,
    _mm512_cmp_pd_mask,
    _mm512_maskz_compress_pd,
    _mm512_storeu_pd,
    _mm512_loadu_epi64,
    |lanes| _mm512_cvtepi32_epi64(_mm256_loadu_si256(lanes)),
    _mm512_permutex2var_epi64,
    _mm512_add_epi64,
    _mm512_cmplt_epi64_mask,
    _mm512_set1_epi64
);

impl Deposit for Avx512 {
    #[inline(always)]
    fn deposit(self, bits: u64, places: u64) -> u64 {
        // SAFETY: `self` proves that the machine has what came before AVX-512.
        unsafe { _pdep_u64(bits, places) }
    }
}

impl AddSquare for Avx512 {
    #[inline(always)]
    fn add_exact_square(self, sum: f64, x: f64) -> f64 {
        x.mul_add(x, sum)
    }
}

impl Simd for Avx512 {}

impl AddMarked for Avx512 {
    #[inline(always)]
    fn add_marked(self, sums: &mut [f64; LANES], values: &[f64; LANES], marks: u8) {
        // SAFETY: `self` proves that the machine has AVX-512, and both runs fill a vector.
        unsafe {
            let old = _mm512_loadu_pd(sums.as_ptr());
            let new = _mm512_mask_add_pd(old, marks, old, _mm512_loadu_pd(values.as_ptr()));
            _mm512_storeu_pd(sums.as_mut_ptr(), new);
        }
    }
}

macro_rules! clear {
    (
        $t:ty, $signed:ty, $mask:ty,
        $load_kept:ident, $store:ident, $set:ident, $testn:ident
    ) => {
        impl Clear<$t> for Avx512 {
            #[inline(always)]
            fn clear(self, run: &mut [$t; WORD], marks: u64) -> usize {
                const LANES: usize = 64 / size_of::<$t>();
                let mut zeros = 0;
                for (i, run) in run.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    #[allow(clippy::cast_possible_truncation, reason = "the bits of a vector")]
                    let kept = !(marks >> (i * LANES)) as $mask;
                    // SAFETY: `self` proves that the machine has AVX-512, and `run` fills a
                    // vector.
                    let zero = unsafe {
                        let run = run.as_mut_ptr().cast();
                        let numbers = $load_kept(kept, run);
                        $store(run, numbers);
                        $testn(numbers, $set(<$signed>::MAX))
                    };
                    zeros += zero.count_ones() as usize;
                }
                zeros
            }
        }
    };
}

clear!(
    u16,
    i16,
    u32,
    _mm512_maskz_loadu_epi16,
    _mm512_storeu_epi16,
    _mm512_set1_epi16,
    _mm512_testn_epi16_mask
);
clear!(
    u32,
    i32,
    u16,
    _mm512_maskz_loadu_epi32,
    _mm512_storeu_epi32,
    _mm512_set1_epi32,
    _mm512_testn_epi32_mask
);
clear!(
    u64,
    i64,
    u8,
    _mm512_maskz_loadu_epi64,
    _mm512_storeu_epi64,
    _mm512_set1_epi64,
    _mm512_testn_epi64_mask
);
