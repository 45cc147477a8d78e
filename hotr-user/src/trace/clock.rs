//! Kernel times to times of day.

use std::time::{Duration, SystemTime};

use crate::source::mono_ns;

/// `CLOCK_MONOTONIC` and the time of day at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    mono_ns: u64,
    real: SystemTime,
}

impl Clock {
    /// Now.
    pub(super) fn now() -> Self {
        Self { mono_ns: mono_ns(), real: SystemTime::now() }
    }

    /// Its monotonic half.
    pub(super) const fn mono_ns(&self) -> u64 {
        self.mono_ns
    }

    /// The time of day of a monotonic time, from an offset taken now: a step of the clock moves later records only.
    pub(super) fn real(&self, mono_ns: u64) -> SystemTime {
        if mono_ns > self.mono_ns {
            return self.real + Duration::from_nanos(mono_ns - self.mono_ns);
        }
        self.real.checked_sub(Duration::from_nanos(self.mono_ns - mono_ns)).unwrap_or(self.real)
    }
}
