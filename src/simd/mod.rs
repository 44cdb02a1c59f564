//! Instruction sets: what each has for many numbers at once, and the way to the best one.
//!
//! Each file but two has one of them. `portable` is plain Rust, and what the others are tested
//! against. `instructions` says what all of them do, and `dispatch` compiles a loop for each.
#![allow(
    unsafe_code,
    reason = "intrinsics, on machines that were found to have them"
)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set of the kernel"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod instructions;
mod portable;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(test)]
pub(crate) use dispatch::tests::on_each;
pub(crate) use dispatch::{InstructionSet, kernel};
pub(crate) use instructions::{Clearable, Comparable, LANES, Simd, WORD, starts};
