//! The same loop, compiled for every instruction set that is worth it.

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// What every machine of the target has: on x86-64 SSE2, on aarch64 NEON.
    Baseline,
    /// AVX2, with 256 bits a vector.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with what came with its first server processors, 512 bits a vector.
    #[cfg(target_arch = "x86_64")]
    Avx512,
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
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                return Self::Avx512;
            }
            if has!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }
}

/// Defines a kernel whose body is compiled once for each instruction set; a call takes the best
/// one of the machine.
///
/// The body must not depend on how the compiler vectorises it. In safe Rust it does not: no
/// multiplication is fused with an addition, and sums keep the order they are written in.
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$t:ident: $bound:ident>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name<$t: $bound>($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body<$t: $bound>($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2<$t: $bound>($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512<$t: $bound>($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }

                match $crate::kernels::InstructionSet::detected() {
                    $crate::kernels::InstructionSet::Baseline => {}
                    $crate::kernels::InstructionSet::Avx2 => {
                        // SAFETY: the machine was found to have AVX2.
                        return unsafe { avx2($($argument),*) };
                    }
                    $crate::kernels::InstructionSet::Avx512 => {
                        // SAFETY: the machine was found to have these parts of AVX-512.
                        return unsafe { avx512($($argument),*) };
                    }
                }
            }
            body($($argument),*)
        }
    };
}
pub(super) use kernel;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::InstructionSet;

    thread_local! {
        pub(super) static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
    }

    /// What `work` gives on each instruction set of this machine, the baseline first.
    pub(crate) fn on_each<R>(mut work: impl FnMut() -> R) -> Vec<(InstructionSet, R)> {
        let best = InstructionSet::detected();
        let mut sets = vec![InstructionSet::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                sets.push(InstructionSet::Avx2);
            }
            if best == InstructionSet::Avx512 {
                sets.push(best);
            }
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
