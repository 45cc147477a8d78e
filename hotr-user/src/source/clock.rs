//! The two clocks: monotonic (what eBPF stamps records with) and real (what inodes carry).

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
pub(crate) fn mono_ns() -> u64 {
    u64::try_from(nanos(clock_gettime(ClockId::Monotonic))).unwrap_or(0)
}

/// Nanoseconds of `CLOCK_REALTIME_COARSE`, the clock of inode times: never later than the ctime of a change that
/// is made after this call.
pub(crate) fn inode_clock_ns() -> i64 {
    nanos(clock_gettime(ClockId::RealtimeCoarse))
}

fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
