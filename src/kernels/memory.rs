//! Where runs lie in memory, and when they are fetched.

use crate::element::Real;

/// Bytes that memory is moved in.
const LINE: usize = 64;

/// A run of `len` numbers in a buffer, which grows where it must. It begins where a line begins, so
/// that no vector lies across two lines.
pub(crate) fn aligned<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    let numbers = LINE / size_of::<T>();
    if buffer.len() < len + numbers {
        buffer.resize(len + numbers, T::default());
    }
    // Not to find the place would cost time and nothing else.
    let start = buffer.as_ptr().align_offset(LINE).min(numbers);
    &mut buffer[start..start + len]
}

/// Begins to bring memory to the caches: as many numbers as there are in `run`, which stand
/// `distance` numbers after them. Changes nothing but time; no matter what is there.
///
/// The processor does this by itself for a loop that reads on and on. It cannot know what is read
/// after a pause, in which something is computed from what was read.
#[inline(always)]
pub(crate) fn prefetch_after<A>(run: &[A], distance: usize) {
    for line in run.chunks(LINE / size_of::<A>().max(1)) {
        prefetch_line(line.as_ptr().wrapping_add(distance));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line<A>(place: *const A) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: every x86-64 processor has this instruction, and it never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line<A>(_: *const A) {}
