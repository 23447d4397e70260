//! Wider vectors than every processor has, for plain loops that the compiler turns into vectors.
#![expect(unsafe_code, reason = "a call of a function for instructions that were detected")]

/// Runs `work` compiled for AVX2, where this processor has it. What `work` calls must be inlined.
///
/// Unmasking 1 MiB takes 11 us so, and 18 us with what every x86-64 has.
#[inline]
pub fn with_wide_vectors<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { wide(work) };
        }
    }
    work()
}
