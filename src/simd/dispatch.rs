//! The same loop, compiled for every instruction set that is worth it.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::portable::Portable;

/// An instruction set that kernels are compiled for, and the proof that this machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// What every machine of the target has: on x86-64 SSE2, on aarch64 NEON.
    Baseline(Portable),
    /// AVX2 and what came with it, 256 bits a vector.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with what came with its first server processors, 512 bits a vector.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl InstructionSet {
    /// The best one of this machine.
    #[inline]
    pub(crate) fn detected() -> Self {
        #[cfg(test)]
        if let Some(forced) = tests::FORCED.get() {
            return forced;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx512) = Avx512::detect() {
                return Self::Avx512(avx512);
            }
            if let Some(avx2) = Avx2::detect() {
                return Self::Avx2(avx2);
            }
        }
        Self::Baseline(Portable)
    }
}

/// Defines a kernel whose body is compiled once for each instruction set; a call takes the best
/// one of the machine. The body's first argument is the instruction set, a `Simd`.
///
/// The body must not depend on how the compiler vectorises it. In safe Rust it does not: sums keep
/// the order they are written in, and no multiplication is fused with an addition unless that is
/// asked for, see [`AddSquare`](super::instructions::AddSquare).
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $(<$t:ident: $bound:ident>)?(
            $simd:ident; $($argument:ident: $type:ty),* $(,)?
        ) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$attribute])*
        #[allow(
            unsafe_code,
            reason = "what is compiled for an instruction set can only be called so"
        )]
        #[allow(
            clippy::too_many_arguments,
            reason = "the instruction set comes on top of what a kernel works on"
        )]
        $visibility fn $name $(<$t: $bound>)?($($argument: $type),*) $(-> $result)? {
            use $crate::simd::Simd;

            #[deny(unsafe_code)]
            #[inline(always)]
            fn body $(<$t: $bound>)?($simd: impl Simd, $($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            use $crate::simd::{Avx2, Avx512};

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2 $(<$t: $bound>)?(set: Avx2, $($argument: $type),*) $(-> $result)? {
                body(set, $($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,bmi1,bmi2,lzcnt,popcnt"
            )]
            fn avx512 $(<$t: $bound>)?(set: Avx512, $($argument: $type),*) $(-> $result)? {
                body(set, $($argument),*)
            }

            match $crate::simd::InstructionSet::detected() {
                $crate::simd::InstructionSet::Baseline(set) => body(set, $($argument),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `set` proves that the machine has AVX2 and what came with it.
                $crate::simd::InstructionSet::Avx2(set) => unsafe {
                    avx2(set, $($argument),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `set` proves that the machine has these parts of AVX-512 and what came
                // before.
                $crate::simd::InstructionSet::Avx512(set) => unsafe {
                    avx512(set, $($argument),*)
                },
            }
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
    }

    /// What `work` gives on each instruction set of this machine, the baseline first.
    pub(crate) fn on_each<R>(mut work: impl FnMut() -> R) -> Vec<(InstructionSet, R)> {
        let mut sets = vec![InstructionSet::Baseline(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(Avx2::detect().map(InstructionSet::Avx2));
            sets.extend(Avx512::detect().map(InstructionSet::Avx512));
        }
        let results = sets.into_iter().map(|set| {
            FORCED.set(Some(set));
            (set, work())
        });
        let results = results.collect();
        FORCED.set(None);
        results
    }
}
