//! AVX2: 8 numbers of `f32`, or 4 of `f64`, a vector.

use std::arch::x86_64::{
    __m256, __m256d, __m256i, _CMP_GT_OQ, _CMP_LT_OQ, _CMP_NGT_UQ, _mm256_add_epi32,
    _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8, _mm256_castpd_ps, _mm256_castps_pd,
    _mm256_castsi256_ps, _mm256_cmp_pd, _mm256_cmp_ps, _mm256_cmpeq_epi16, _mm256_cmpeq_epi32,
    _mm256_cmpeq_epi64, _mm256_cmpgt_epi32, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_movemask_pd, _mm256_movemask_ps, _mm256_permutevar8x32_epi32, _mm256_permutevar8x32_ps,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_pd, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_slli_epi64,
    _mm256_storeu_pd, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi16, _mm256_sub_epi32,
    _mm256_sub_epi64, _pdep_u64,
};

use num_traits::ToPrimitive;

use super::instructions::{AddMarked, AddSquare, Clear, Compare, Deposit, Rotation, Simd, WORD};

/// The proof that the machine has AVX2, and of the same generation fused multiplication and the
/// instructions on bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        let bits = has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt");
        (bits && has!("avx2") && has!("fma")).then_some(Self(()))
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
    (
        $t:ty,
        $load:ident,
        $set:ident,
        $compare:ident,
        $mask:ident,
        $store:ident,
        $compress:ident,
        { $($order:tt)* }
    ) => {
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
            fn below_each(self, run: &[$t; WORD], bounds: &[$t; WORD]) -> u64 {
                word!(32 / size_of::<$t>(), |run, bounds| {
                    $mask($compare::<_CMP_LT_OQ>($load(run), $load(bounds)))
                })
            }

            $($order)*

            #[inline(always)]
            fn survey(
                self,
                run: &[$t; WORD],
                low: $t,
                high: $t,
                out: &mut [$t; WORD],
            ) -> (u64, u64) {
                const LANES: usize = 32 / size_of::<$t>();
                let (mut below, mut within, mut len) = (0, 0, 0);
                for (i, run) in run.as_chunks::<LANES>().0.iter().enumerate() {
                    // So far no more vectors than were read are full, and there is room for all.
                    let Some(out) = out[len..].first_chunk_mut::<LANES>() else {
                        break;
                    };
                    // SAFETY: `self` proves that the machine has AVX2, and both runs fill a vector.
                    let (lower, inside) = unsafe {
                        let numbers = $load(run.as_ptr());
                        let lower = $mask($compare::<_CMP_LT_OQ>(numbers, $set(low)));
                        let up_to = $mask($compare::<_CMP_NGT_UQ>(numbers, $set(high)));
                        let inside = (up_to & !lower).cast_unsigned();
                        $store(out.as_mut_ptr(), $compress(numbers, inside as usize));
                        (lower.cast_unsigned(), inside)
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
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_cmp_ps,
    _mm256_movemask_ps,
    _mm256_storeu_ps,
    compress_ps,
    {
        #[inline(always)]
        fn goes_before<const OF: usize>(
            self,
            run: &[f32; WORD],
            distance: usize,
            word: &mut [u8; WORD / 8],
        ) {
            const LANES: usize = 8;
            let vectors = run.as_chunks::<LANES>().0;
            for (i, part) in word.iter_mut().enumerate() {
                // As integers, the bits of numbers that are not negative order like the numbers,
                // and one more makes what is equal less.
                // SAFETY: `self` proves that the machine has AVX2, and all runs fill a vector.
                let bits = unsafe {
                    let numbers = _mm256_loadu_si256(vectors[i].as_ptr().cast());
                    let to = &Rotation::<OF, LANES>::TO[distance];
                    let to = _mm256_loadu_si256(to.as_ptr().cast());
                    let mut other = _mm256_permutevar8x32_epi32(numbers, to);
                    let is_earlier = &Rotation::<OF, LANES>::IS_EARLIER[distance];
                    let mut is_earlier = _mm256_loadu_si256(is_earlier.as_ptr().cast());
                    if OF > LANES {
                        // Lanes beyond this vector are those of the other half of the group. They
                        // are earlier if that is the first half.
                        let half = _mm256_loadu_si256(vectors[i ^ 1].as_ptr().cast());
                        let half = _mm256_permutevar8x32_epi32(half, to);
                        let beyond = _mm256_cmpgt_epi32(to, _mm256_set1_epi32(7));
                        other = _mm256_blendv_epi8(other, half, beyond);
                        if i % 2 == 1 {
                            is_earlier = _mm256_sub_epi32(is_earlier, beyond);
                        }
                    }
                    let raised = _mm256_add_epi32(numbers, is_earlier);
                    _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(raised, other)))
                };
                [*part, ..] = bits.to_le_bytes();
            }
        }
    }
);
compare!(
    f64,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_cmp_pd,
    _mm256_movemask_pd,
    _mm256_storeu_pd,
    compress_pd,
    {}
);

/// For each set of lanes, the numbers of those lanes, then of others: what moves the lanes of the
/// set to the front. A lane is `SIZE` numbers of 32 bits wide.
const fn to_front<const SETS: usize, const SIZE: usize>() -> [[u32; 8]; SETS] {
    let mut table = [[0; 8]; SETS];
    let mut set = 0;
    while set < SETS {
        let (mut lane, mut len) = (0, 0);
        while lane < 8 / SIZE {
            if set >> lane & 1 == 1 {
                let mut part = 0;
                while part < SIZE {
                    #[allow(clippy::cast_possible_truncation, reason = "there are eight")]
                    let number = (lane * SIZE + part) as u32;
                    table[set][len] = number;
                    len += 1;
                    part += 1;
                }
            }
            lane += 1;
        }
        set += 1;
    }
    table
}

static TO_FRONT_PS: [[u32; 8]; 256] = to_front::<256, 1>();
static TO_FRONT_PD: [[u32; 8]; 16] = to_front::<16, 2>();

/// Moves the lanes whose bit is set to the front.
#[target_feature(enable = "avx2")]
#[inline]
fn compress_ps(numbers: __m256, lanes: usize) -> __m256 {
    let places = &TO_FRONT_PS[lanes % 256];
    // SAFETY: the places fill a vector.
    unsafe { _mm256_permutevar8x32_ps(numbers, _mm256_loadu_si256(places.as_ptr().cast())) }
}

/// Moves the lanes whose bit is set to the front.
#[target_feature(enable = "avx2")]
#[inline]
fn compress_pd(numbers: __m256d, lanes: usize) -> __m256d {
    let places = &TO_FRONT_PD[lanes % 16];
    // SAFETY: the places fill a vector.
    let places = unsafe { _mm256_loadu_si256(places.as_ptr().cast()) };
    _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(numbers), places))
}

impl AddSquare for Avx2 {
    #[inline(always)]
    fn add_exact_square(self, sum: f64, x: f64) -> f64 {
        x.mul_add(x, sum)
    }
}

impl Simd for Avx2 {}

impl AddMarked for Avx2 {}

impl Deposit for Avx2 {
    #[inline(always)]
    fn deposit(self, bits: u64, places: u64) -> u64 {
        // SAFETY: `self` proves that the machine has what came with AVX2.
        unsafe { _pdep_u64(bits, places) }
    }
}

macro_rules! clear {
    (
        $t:ty, $set:ident, $equal:ident, $shift:ident, $subtract:ident
    ) => {
        impl Clear<$t> for Avx2 {
            #[inline(always)]
            fn clear(self, run: &mut [$t; WORD], marks: u64) -> usize {
                const LANES: usize = 32 / size_of::<$t>();
                let bits: [$t; LANES] = std::array::from_fn(|lane| 1 << lane);
                let mut zeros = [0; LANES];
                // SAFETY: `self` proves that the machine has AVX2, and all runs fill a vector.
                unsafe {
                    let bits = _mm256_loadu_si256(bits.as_ptr().cast());
                    let mut count = _mm256_setzero_si256();
                    for (i, run) in run.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                        #[allow(clippy::cast_possible_truncation, reason = "the bits of a vector")]
                        let marks = $set(((marks >> (i * LANES)) as $t).cast_signed());
                        let marked = $equal(_mm256_and_si256(marks, bits), bits);
                        let run: *mut __m256i = run.as_mut_ptr().cast();
                        let numbers = _mm256_andnot_si256(marked, _mm256_loadu_si256(run));
                        _mm256_storeu_si256(run, numbers);
                        // Without the sign. Where that is zero, all bits are set: that is -1.
                        let zero = $equal($shift::<1>(numbers), _mm256_setzero_si256());
                        count = $subtract(count, zero);
                    }
                    _mm256_storeu_si256(zeros.as_mut_ptr().cast(), count);
                }
                zeros.iter().filter_map(<$t>::to_usize).sum()
            }
        }
    };
}

clear!(
    u16,
    _mm256_set1_epi16,
    _mm256_cmpeq_epi16,
    _mm256_slli_epi16,
    _mm256_sub_epi16
);
clear!(
    u32,
    _mm256_set1_epi32,
    _mm256_cmpeq_epi32,
    _mm256_slli_epi32,
    _mm256_sub_epi32
);
clear!(
    u64,
    _mm256_set1_epi64x,
    _mm256_cmpeq_epi64,
    _mm256_slli_epi64,
    _mm256_sub_epi64
);
