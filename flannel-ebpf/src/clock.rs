//! The clock of the programs.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// Not zero where the kernel has the clock that costs next to nothing (`bpf_ktime_get_coarse_ns`, 5.11), which is
/// decided when the programs are loaded: the kernel leaves out of them what cannot run.
#[unsafe(no_mangle)]
static COARSE_CLOCK: Global<u8> = Global::new(1);

/// Nanoseconds of `CLOCK_MONOTONIC`, or of `CLOCK_MONOTONIC_COARSE`, which lags up to 10 ms behind.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: either clock can be read anywhere.
    unsafe { if COARSE_CLOCK.load() == 0 { bpf_ktime_get_ns() } else { bpf_ktime_get_coarse_ns() } }
}
