//! From many numbers at once to a bit for each, and back.
//!
//! That compilers do not find by themselves, nor where a multiplication may be fused with an
//! addition. All other loops of the kernels are plain ones, which they turn into vectors.

use num_traits::PrimInt;

/// How many numbers are compared at once.
pub(crate) const WORD: usize = 64;

/// How many numbers are added at once.
pub(crate) const LANES: usize = 8;

/// An instruction set. Values exist only where the machine has it.
pub trait Simd:
    Compare<f32> + Compare<f64> + AddMarked + AddSquare + Clear<u16> + Clear<u32> + Clear<u64> + Deposit
{
}

/// Comparisons of 64 numbers. Bit `i` of a result is that of number `i`; a comparison with
/// not-a-number is false.
pub trait Compare<T>: Copy {
    /// `run[i] < bound`
    fn below(self, run: &[T; WORD], bound: T) -> u64;

    /// `run[i] > bound`
    fn above(self, run: &[T; WORD], bound: T) -> u64;

    /// `run[i] < bounds[i]`
    #[inline(always)]
    fn below_each(self, run: &[T; WORD], bounds: &[T; WORD]) -> u64
    where
        T: Copy + PartialOrd,
    {
        bits(|i| run[i] < bounds[i])
    }

    /// Whether the number `distance` places on goes before number `i` where groups of `OF` are
    /// sorted: is lower, or equal and earlier in the group. After the last of a group comes its
    /// first. Numbers are not negative, and a group has 16 at most.
    ///
    /// The bits are written to the bytes of a word, the lowest first: vectors give a few at a time,
    /// and it would take longer to bring them together than to read them from memory.
    #[inline(always)]
    fn goes_before<const OF: usize>(
        self,
        run: &[T; WORD],
        distance: usize,
        word: &mut [u8; WORD / 8],
    ) where
        T: Copy + PartialOrd,
    {
        // What stands after the last number is past the end of a group, and decides nothing.
        let mut longer = [run[0]; WORD + 16];
        longer[..WORD].copy_from_slice(run);
        let less = |distance: usize| bits(|i| longer[i + distance] < run[i]);
        // Past the end of the group it is the other way round: the one so many places on is before
        // this one, and goes before it unless this one is less.
        let back = OF - distance;
        let ahead_is_less = less(distance);
        let less_than_back = if back == distance {
            ahead_is_less
        } else {
            less(back)
        };
        let before_end = starts(OF, back);
        let before = ahead_is_less & before_end | !less_than_back << back & !before_end;
        *word = before.to_le_bytes();
    }

    /// Which numbers are below `low`, and which are neither that nor above `high`. The latter are
    /// copied, in order, to the front of `out`. What comes after them in `out` may change too.
    #[inline(always)]
    fn survey(self, run: &[T; WORD], low: T, high: T, out: &mut [T; WORD]) -> (u64, u64)
    where
        T: Copy,
    {
        let below = self.below(run, low);
        let within = !(below | self.above(run, high));
        let mut rest = within;
        for out in out.iter_mut().take(within.count_ones() as usize) {
            *out = run[rest.trailing_zeros() as usize % WORD];
            rest &= rest - 1;
        }
        (below, within)
    }
}

/// Bits in the places of other bits.
pub trait Deposit: Copy {
    /// The bits of `bits`, the lowest first, in the places where `places` has ones.
    #[inline(always)]
    fn deposit(self, bits: u64, places: u64) -> u64 {
        let (mut word, mut bits, mut rest) = (0, bits, places);
        while rest != 0 {
            let lowest = rest & rest.wrapping_neg();
            word |= if bits & 1 == 1 { lowest } else { 0 };
            bits >>= 1;
            rest &= rest - 1;
        }
        word
    }
}

/// Sums of some of many numbers.
pub trait AddMarked: Copy {
    /// `sums[i] += values[i]` where bit `i` of `marks` is set.
    #[inline(always)]
    fn add_marked(self, sums: &mut [f64; LANES], values: &[f64; LANES], marks: u8) {
        let halves = sums.as_chunks_mut::<4>().0.iter_mut();
        for (i, (sums, values)) in halves.zip(values.as_chunks::<4>().0).enumerate() {
            let lanes = u64::lanes_of(u64::from(marks) >> (4 * i));
            for (sum, (value, lane)) in sums.iter_mut().zip(values.iter().zip(lanes)) {
                *sum += f64::from_bits(value.to_bits() & lane);
            }
        }
    }
}

/// Sums of squares.
pub trait AddSquare: Copy {
    /// `sum + x²` where the square is a number of `f64`, as it is for an `x` of any narrower type.
    /// There is nothing to round before the sum, so it may be one instruction.
    #[inline(always)]
    fn add_exact_square(self, sum: f64, x: f64) -> f64 {
        sum + x * x
    }
}

/// Zeros in the place of some of 64 numbers, which are given as their bits.
pub trait Clear<B: Clearable>: Copy {
    /// Sets the numbers whose bit in `marks` is set to `+0.0`, and returns how many of all are
    /// zero then, of either sign.
    #[inline(always)]
    fn clear(self, run: &mut [B; WORD], marks: u64) -> usize {
        let mut zeros = [B::zero(); 4];
        for (i, run) in run.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let lanes = B::lanes_of(marks >> (4 * i));
            for ((number, lane), zeros) in run.iter_mut().zip(lanes).zip(&mut zeros) {
                *number = *number & !*lane;
                // Without the sign.
                let is_zero = *number << 1 == B::zero();
                *zeros = *zeros + if is_zero { B::one() } else { B::zero() };
            }
        }
        let zeros = zeros.iter().fold(B::zero(), |sum, &lane| sum + lane);
        zeros.to_usize().unwrap_or(0)
    }
}

/// Bits of a number, which every instruction set clears.
pub trait Clearable: PrimInt + 'static {
    /// All bits of those of four lanes whose bit is set in a set, whose other bits do not count.
    /// Compilers know no other quick way from bits to vectors on all machines.
    fn lanes_of(set: u64) -> &'static [Self; 4];

    /// See [`Clear::clear`].
    fn clear(simd: impl Simd, run: &mut [Self; WORD], marks: u64) -> usize;
}

macro_rules! clearable {
    ($bits:ty) => {
        impl Clearable for $bits {
            #[inline(always)]
            fn lanes_of(set: u64) -> &'static [Self; 4] {
                static LANES_OF: [[$bits; 4]; 16] = {
                    let mut table = [[0; 4]; 16];
                    let mut place = 0;
                    while place < 64 {
                        let (set, lane) = (place / 4, place % 4);
                        table[set][lane] = if set >> lane & 1 == 1 {
                            <$bits>::MAX
                        } else {
                            0
                        };
                        place += 1;
                    }
                    table
                };
                &LANES_OF[(set % 16) as usize]
            }

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

/// A word whose every run of `of` bits begins with `ones` ones.
#[inline(always)]
pub(crate) const fn starts(of: usize, ones: usize) -> u64 {
    let every = u64::MAX / (u64::MAX >> (64 - of));
    ((1 << ones) - 1) * every
}

/// A word from its bits, given by their number.
///
/// Vectors make all ones or zeros of comparisons. Four lanes at a time, each leaves the bit at its
/// place in the word, and in the end the four are brought together.
#[inline(always)]
pub(super) fn bits(bit: impl Fn(usize) -> bool) -> u64 {
    let mut word = 0;
    for half in 0..2 {
        let mut lanes = [0_u32; 4];
        for (four, places) in PLACES.iter().enumerate() {
            let mut set = [0; 4];
            for (lane, set) in set.iter_mut().enumerate() {
                *set = if bit(32 * half + 4 * four + lane) {
                    u32::MAX
                } else {
                    0
                };
            }
            for ((lane, set), place) in lanes.iter_mut().zip(set).zip(places) {
                *lane |= set & place;
            }
        }
        let [a, b, c, d] = lanes;
        word |= u64::from(a | b | c | d) << (32 * half);
    }
    word
}

/// A bit at each place of half a word, four side by side.
static PLACES: [[u32; 4]; 8] = {
    let mut places = [[0; 4]; 8];
    let mut place = 0;
    while place < 32 {
        places[place / 4][place % 4] = 1 << place;
        place += 1;
    }
    places
};

/// Where lanes look in groups of `OF` lanes, for each distance below `OF`.
#[cfg(target_arch = "x86_64")]
pub(super) struct Rotation<const OF: usize, const LANES: usize>;

#[cfg(target_arch = "x86_64")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "there are few lanes"
)]
impl<const OF: usize, const LANES: usize> Rotation<OF, LANES> {
    /// The lane so many places on, round the group.
    pub(super) const TO: [[i32; LANES]; OF] = Self::table(1, 0);
    /// 1 where that is earlier in the group, else 0.
    pub(super) const IS_EARLIER: [[i32; LANES]; OF] = Self::table(0, 1);
    /// The lane so many places on of two vectors: of the second where that is earlier.
    pub(super) const TO_ONE_OF_TWO: [[i32; LANES]; OF] = Self::table(1, LANES as i32);

    /// So many times the lane, and so much more where it is earlier in the group.
    const fn table(times: i32, earlier: i32) -> [[i32; LANES]; OF] {
        let mut table = [[0; LANES]; OF];
        let mut distance = 0;
        while distance < OF {
            let mut lane = 0;
            while lane < LANES {
                let to = lane - lane % OF + (lane % OF + distance) % OF;
                let more = if to < lane { earlier } else { 0 };
                table[distance][lane] = times * to as i32 + more;
                lane += 1;
            }
            distance += 1;
        }
        table
    }
}

/// A type that every instruction set compares.
pub trait Comparable: Sized {
    /// Whether each of 64 numbers is below a bound.
    fn below(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64;

    /// Whether each of 64 numbers is above a bound.
    fn above(simd: impl Simd, run: &[Self; WORD], bound: Self) -> u64;

    /// Whether each of 64 numbers is below its bound.
    fn below_each(simd: impl Simd, run: &[Self; WORD], bounds: &[Self; WORD]) -> u64;

    /// See [`Compare::goes_before`].
    fn goes_before<const OF: usize>(
        simd: impl Simd,
        run: &[Self; WORD],
        distance: usize,
        word: &mut [u8; WORD / 8],
    );

    /// See [`Compare::survey`].
    fn survey(
        simd: impl Simd,
        run: &[Self; WORD],
        low: Self,
        high: Self,
        out: &mut [Self; WORD],
    ) -> (u64, u64);
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
            fn below_each(simd: impl Simd, run: &[Self; WORD], bounds: &[Self; WORD]) -> u64 {
                simd.below_each(run, bounds)
            }

            #[inline(always)]
            fn goes_before<const OF: usize>(
                simd: impl Simd,
                run: &[Self; WORD],
                distance: usize,
                word: &mut [u8; WORD / 8],
            ) {
                simd.goes_before::<OF>(run, distance, word);
            }

            #[inline(always)]
            fn survey(
                simd: impl Simd,
                run: &[Self; WORD],
                low: Self,
                high: Self,
                out: &mut [Self; WORD],
            ) -> (u64, u64) {
                simd.survey(run, low, high, out)
            }
        }
    };
}

comparable!(f32);
comparable!(f64);
