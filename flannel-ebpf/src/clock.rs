//! The clock of the programs.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// Not zero if the kernel has the coarse clock, which is nearly free (`bpf_ktime_get_coarse_ns`, since 5.11). The
/// loader sets it, and the verifier removes the code that cannot run (`opt_remove_dead_code`).
#[unsafe(no_mangle)]
static COARSE_CLOCK: Global<u8> = Global::new(1);

/// Nanoseconds of `CLOCK_MONOTONIC`, or of `CLOCK_MONOTONIC_COARSE`, which lags up to 10 ms behind.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: both helpers take no arguments and can be called anywhere.
    unsafe { if COARSE_CLOCK.load() == 0 { bpf_ktime_get_ns() } else { bpf_ktime_get_coarse_ns() } }
}
