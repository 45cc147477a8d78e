//! One timer of the kernel, as exact as it is: tokio's own round up to whole milliseconds, and wake the runtime whenever
//! one is made.
//!
//! In: a time. Out: a task is woken then.
//!
//! Also here: moments so far ahead that no clock has them ([`later`]).

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Nobody waits longer; later moments would overflow [`Instant`].
pub(crate) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A moment after now. More than 30 years from now is 30 years from now: a caller of the library may ask for
/// [`Duration::MAX`].
pub(crate) fn later(time: Duration) -> Instant {
    after(Instant::now(), time)
}

/// As [`later`], after another moment.
pub(crate) fn after(moment: Instant, time: Duration) -> Instant {
    moment + time.min(FAR)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// One that is not set. Must be called inside the runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor belongs to the registration and is closed with it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?))
    }

    /// Lets it go off at this time (`CLOCK_MONOTONIC` nanoseconds). Forgets an earlier time.
    pub(crate) fn set(&self, at_ns: u64) -> io::Result<()> {
        // Zero would stop the timer.
        let at_ns = at_ns.max(1);
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Timespec {
            tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at_ns % 1_000_000_000).cast_signed(),
        };
        let value = Itimerspec { it_interval: never, it_value: time };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &value)?;
        Ok(())
    }

    /// Whether it expired; if not, the task is woken when it does. An expiry that came before the last [`Self::set`]
    /// may be reported once. It is not read: setting the timer again discards it.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context).map_ok(|mut guard| guard.clear_ready())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_long_to_be_waited_for() {
        let now = Instant::now();
        for time in [Duration::MAX, Duration::from_secs(u64::MAX), FAR] {
            assert!(later(time) >= now + FAR);
            assert_eq!(after(now, time), now + FAR);
        }
        assert_eq!(after(now, Duration::from_millis(1)), now + Duration::from_millis(1));
    }
}
