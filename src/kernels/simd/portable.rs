//! Plain Rust, for any machine.

use super::{AddMarked, Clear, Compare, Deposit, WORD};

/// What every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

impl<T: PartialOrd + Copy> Compare<T> for Portable {
    #[inline(always)]
    fn below(self, run: &[T; WORD], bound: T) -> u64 {
        bits(|i| run[i] < bound)
    }

    #[inline(always)]
    fn above(self, run: &[T; WORD], bound: T) -> u64 {
        bits(|i| run[i] > bound)
    }

    #[inline(always)]
    fn less(self, left: &[T; WORD], right: &[T; WORD]) -> u64 {
        bits(|i| left[i] < right[i])
    }
}

impl AddMarked for Portable {}
impl Deposit for Portable {}
impl Clear<u16> for Portable {}
impl Clear<u32> for Portable {}
impl Clear<u64> for Portable {}

/// A word from its bits.
///
/// Vectors make bytes of comparisons; a multiplication then gathers the lowest bit of eight bytes
/// in the highest byte: byte `i` of the factors moves bit `8 i` to bit `56 + i`, and no two of the
/// moved bits meet.
#[inline(always)]
fn bits(bit: impl Fn(usize) -> bool) -> u64 {
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut bytes = [0_u8; WORD];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from(bit(i));
    }
    let eights = bytes.as_chunks::<8>().0.iter().enumerate();
    eights.fold(0, |word, (i, &eight)| {
        word | (u64::from_le_bytes(eight).wrapping_mul(GATHER) >> 56) << (8 * i)
    })
}
