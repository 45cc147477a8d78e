//! A timer as exact as the kernel's: tokio's rounds up to whole milliseconds, and a batch that is due waits for it.
//!
//! In: a moment. Out: the end of [`Alarm::wait`].

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// See the module.
#[derive(Debug)]
pub(super) struct Alarm {
    /// None where there are no descriptors left: then tokio's timer does.
    timer: Option<AsyncFd<OwnedFd>>,
    set_for: Option<Instant>,
}

impl Alarm {
    /// Has to be called inside the runtime.
    pub(super) fn new() -> Self {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok().and_then(|timer| {
            // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
            unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }.ok()
        });
        Self { timer, set_for: None }
    }

    /// Waits for `due`; may be dropped and called again, with another moment or the same.
    pub(super) async fn wait(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let Some(timer) = self.timer.as_ref() else { return sleep_until(due).await };
            if self.set_for != Some(due) && !set(timer.get_ref(), left) {
                return sleep_until(due).await;
            }
            self.set_for = Some(due);
            match timer.readable().await {
                // An earlier moment may have come as well: the loop looks at the clock.
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return sleep_until(due).await,
            }
        }
    }
}

fn set(timer: &OwnedFd, left: Duration) -> bool {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let Ok(left) = Timespec::try_from(left) else { return false };
    let value = Itimerspec { it_interval: zero, it_value: left };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_never_early_and_can_be_set_anew() {
        let mut alarm = Alarm::new();
        let begin = Instant::now();
        let (soon, later) = (begin + Duration::from_micros(300), begin + Duration::from_millis(20));
        // Dropped before its time, and then for a later one: what the first leaves behind does not end the second.
        tokio::select! {
            biased;
            () = alarm.wait(soon) => panic!("before its time"),
            () = std::future::ready(()) => {}
        }
        alarm.wait(later).await;
        assert!(Instant::now() >= later);
        alarm.wait(soon).await;
        alarm.wait(Instant::now() + Duration::from_micros(1)).await;
    }
}
