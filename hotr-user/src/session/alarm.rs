//! When to look without an event: one timer for a whole run, set again only when something is due earlier than it would
//! expire, so that a change does not cost a system call for it.

use std::io;
use std::task::{Context, Poll};

use crate::timer::Timer;

/// See the module.
pub(super) struct Alarm {
    timer: Timer,
    /// When it goes off, `CLOCK_MONOTONIC` nanoseconds.
    set_to: Option<u64>,
}

impl Alarm {
    /// One that is not set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new()?, set_to: None })
    }

    /// Lets it go off at this time (`CLOCK_MONOTONIC` nanoseconds) at the latest.
    pub(super) fn set(&mut self, at: Option<u64>) -> io::Result<()> {
        let Some(at) = at.filter(|at| self.set_to.is_none_or(|set| *at < set)) else { return Ok(()) };
        self.timer.set(at)?;
        self.set_to = Some(at);
        Ok(())
    }

    /// Whether it expired since it was set; if not, the task is woken when it does.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Poll::Ready(Ok(())) = self.timer.poll(context) else { return false };
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
