//! The clocks: monotonic (what eBPF stamps records with) and real (what inodes carry), and how to convert between them.

use std::time::{Duration, SystemTime};

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

/// `CLOCK_MONOTONIC` and the time of day at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    mono_ns: u64,
    real: SystemTime,
}

impl Clock {
    /// Now.
    pub(crate) fn now() -> Self {
        Self { mono_ns: mono_ns(), real: SystemTime::now() }
    }

    /// Its monotonic half.
    pub(crate) const fn mono_ns(&self) -> u64 {
        self.mono_ns
    }

    /// The time of day of a monotonic time, from an offset taken now: a step of the clock moves later records only.
    pub(crate) fn real(&self, mono_ns: u64) -> SystemTime {
        if mono_ns > self.mono_ns {
            return self.real + Duration::from_nanos(mono_ns - self.mono_ns);
        }
        self.real.checked_sub(Duration::from_nanos(self.mono_ns - mono_ns)).unwrap_or(self.real)
    }
}
