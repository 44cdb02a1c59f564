//! Plain Rust, for any machine.

use super::instructions::{AddMarked, AddSquare, Clear, Compare, Deposit, Simd, WORD, bits};

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
}

impl Simd for Portable {}
impl AddMarked for Portable {}
impl AddSquare for Portable {}
impl Deposit for Portable {}
impl Clear<u16> for Portable {}
impl Clear<u32> for Portable {}
impl Clear<u64> for Portable {}
