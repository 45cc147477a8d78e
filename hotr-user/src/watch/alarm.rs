//! When a batch is due, as exact as the kernel's timer.
//!
//! In: a moment. Out: the end of [`Alarm::wait`].

use std::future::poll_fn;

use tokio::time::{Instant, sleep_until};

use crate::source::mono_ns;
use crate::timer::Timer;

/// See the module.
#[derive(Debug)]
pub(super) struct Alarm {
    /// None where there are no descriptors left: then tokio's timer does.
    timer: Option<Timer>,
    set_for: Option<Instant>,
}

impl Alarm {
    /// Must be called inside the runtime.
    pub(super) fn new() -> Self {
        Self { timer: Timer::new().ok(), set_for: None }
    }

    /// Waits for `due`; may be dropped and called again, with another moment or the same.
    pub(super) async fn wait(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let Some(timer) = self.timer.as_ref() else { return sleep_until(due).await };
            let at_ns = mono_ns().saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
            if self.set_for != Some(due) && timer.set(at_ns).is_err() {
                return sleep_until(due).await;
            }
            self.set_for = Some(due);
            // An earlier moment may have come as well: the loop looks at the clock.
            if poll_fn(|context| timer.poll(context)).await.is_err() {
                return sleep_until(due).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
