//! When to look without being told: one timer for a whole run.
//!
//! The runtime's own timers wake the runtime whenever one is made, which would cost every change two system calls. This
//! one is set anew only when something is due earlier than it would go off.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    /// When it goes off, `CLOCK_MONOTONIC` nanoseconds.
    set_to: Option<u64>,
}

impl Alarm {
    /// One that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor belongs to the registration and is closed with it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer, set_to: None })
    }

    /// Lets it go off at this time (`CLOCK_MONOTONIC` nanoseconds) at the latest.
    pub(super) fn set(&mut self, at: Option<u64>) -> io::Result<()> {
        let Some(at) = at.filter(|at| self.set_to.is_none_or(|set| *at < set)) else { return Ok(()) };
        // Zero would stop the timer.
        let at = at.max(1);
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Timespec {
            tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at % 1_000_000_000).cast_signed(),
        };
        let value = Itimerspec { it_interval: never, it_value: time };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &value)?;
        self.set_to = Some(at);
        Ok(())
    }

    /// Whether it went off since it was set; if not, the task is woken when it does. Setting it anew forgets the
    /// expiry, so it is not read.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Poll::Ready(Ok(mut guard)) = self.timer.poll_read_ready(context) else { return false };
        guard.clear_ready();
        self.set_to = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::source::mono_ns;

    async fn goes_off(alarm: &mut Alarm) {
        poll_fn(|context| if alarm.poll(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn it_goes_off_at_the_earliest_time_it_was_set_to_and_again() {
        let mut alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let soon = mono_ns() + 1_000_000;
            alarm.set(None).unwrap();
            alarm.set(Some(soon + 3_600_000_000_000)).unwrap();
            alarm.set(Some(soon)).unwrap();
            alarm.set(Some(soon + 7_200_000_000_000)).unwrap();
            goes_off(&mut alarm).await;
            assert!(mono_ns() >= soon);
        }
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_now() {
        let mut alarm = Alarm::new().unwrap();
        alarm.set(Some(0)).unwrap();
        goes_off(&mut alarm).await;
    }
}
