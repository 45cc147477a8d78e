//! The yardstick of the benchmarks: what a program costs that does nothing. Built with the feature `bench` only.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;

/// Attached to whatever function the benchmark names.
#[fexit]
pub fn bench_empty(_ctx: FExitContext) -> u32 {
    0
}
