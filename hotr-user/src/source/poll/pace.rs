//! How much a scan may take of the machine: idle priority, and rests that keep it within a share of one core.
//!
//! In: a call for each file. Out: whether to continue; time spent asleep in between.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::ending;
use crate::sched;

/// Files between two looks at the clock.
const STRIDE: u32 = 64;
/// Work between two rests.
const SLICE: Duration = Duration::from_millis(5);
/// The longest sleep before the cancel flag is checked again.
const NAP: Duration = Duration::from_millis(50);

/// Processor time of a first scan before its threads become idle ones: until a tree is known, what a channel loses there is
/// not found, and on a busy machine an idle thread may wait for seconds.
pub(super) const HEAD_START: Duration = Duration::from_millis(20);

/// How far an audit is; may be read by another thread at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files and directories read in this round.
    pub done: AtomicU64,
    /// Files and directories that the round before knew; 0 in the first.
    pub of: AtomicU64,
}

/// One thread's pace.
pub(super) struct Pace<'a> {
    share: Option<f64>,
    cancel: &'a AtomicBool,
    progress: &'a Progress,
    since_look: u32,
    rested_at: Duration,
    /// At this processor time the thread becomes an idle one.
    idle_at: Option<Duration>,
    go_on: bool,
}

impl<'a> Pace<'a> {
    /// Of the calling thread; it becomes an idle one after this much processor time.
    pub(super) fn new(
        share: Option<f64>,
        idle_after: Option<Duration>,
        cancel: &'a AtomicBool,
        progress: &'a Progress,
    ) -> Self {
        let now = cpu_time();
        let idle_at = idle_after.map(|after| now + after);
        let mut pace = Self { share, cancel, progress, since_look: 0, rested_at: now, idle_at, go_on: true };
        pace.settle_down();
        pace
    }

    fn settle_down(&mut self) {
        if self.idle_at.is_some_and(|at| cpu_time() >= at) {
            self.idle_at = None;
            sched::run_idle();
        }
    }

    /// Counts a file, rests when it is time to; `false` when the scan was cancelled.
    pub(super) fn step(&mut self) -> bool {
        self.since_look += 1;
        if self.since_look >= STRIDE { self.look() } else { self.go_on }
    }

    /// As [`Self::step`], but looks in any case and counts nothing.
    pub(super) fn look(&mut self) -> bool {
        self.progress.done.fetch_add(u64::from(self.since_look), Ordering::Relaxed);
        self.since_look = 0;
        self.go_on = !self.is_over();
        self.settle_down();
        if let Some(share) = self.share {
            let worked = cpu_time().saturating_sub(self.rested_at);
            if worked >= SLICE {
                self.rest(rest_after(worked, share));
                self.rested_at = cpu_time();
            }
        }
        self.go_on
    }

    /// Cancelled, or a signal asks for the end.
    fn is_over(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || ending::is_asked()
    }

    fn rest(&mut self, mut left: Duration) {
        while self.go_on && !left.is_zero() {
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left = left.saturating_sub(nap);
            self.go_on = !self.is_over();
        }
    }
}

/// How long to rest after so much work, to take this share of one core. A share that is not a number, or none at all, is
/// the smallest: the scan rests for as long as there is.
fn rest_after(worked: Duration, share: f64) -> Duration {
    let seconds = worked.as_secs_f64() * (1.0 / share - 1.0).max(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or(crate::timer::FAR).min(crate::timer::FAR)
}

/// Processor time of the calling thread.
pub(super) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_budget_is_kept_and_cancelling_ends_a_rest() {
        let (cancel, progress) = (AtomicBool::new(false), Progress::default());
        let (begin, cpu) = (Instant::now(), cpu_time());
        let mut pace = Pace::new(Some(0.2), None, &cancel, &progress);
        while cpu_time() - cpu < Duration::from_millis(20) {
            assert!(pace.step());
        }
        let (worked, took) = (cpu_time() - cpu, begin.elapsed());
        assert!(worked.as_secs_f64() / took.as_secs_f64() < 0.3, "{worked:?} of {took:?}");
        let mut pace = Pace::new(Some(1e-9), None, &cancel, &progress);
        cancel.store(true, Ordering::Relaxed);
        while pace.step() {}
        assert!(progress.done.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn every_share_has_a_rest() {
        let worked = Duration::from_millis(5);
        assert_eq!(rest_after(worked, 1.0), Duration::ZERO);
        assert_eq!(rest_after(worked, 2.0), Duration::ZERO);
        assert_eq!(rest_after(worked, 0.1).as_millis(), 45);
        for share in [f64::MIN_POSITIVE, 1e-300, 0.0] {
            assert_eq!(rest_after(worked, share), crate::timer::FAR, "{share}");
        }
    }

    #[test]
    fn a_scanning_thread_is_idle_after_its_head_start() {
        let is_idle = || {
            // SAFETY: takes a number only; 0 names this thread.
            let class = unsafe { libc::sched_getscheduler(0) };
            // SAFETY: as above.
            let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            class == libc::SCHED_IDLE || nice == 19
        };
        for (idle_after, at_once, later) in
            [(None, false, false), (Some(Duration::ZERO), true, true), (Some(HEAD_START), false, true)]
        {
            let scan = move || {
                let (cancel, progress) = (AtomicBool::new(false), Progress::default());
                let mut pace = Pace::new(None, idle_after, &cancel, &progress);
                let begin = (is_idle(), cpu_time());
                while cpu_time() - begin.1 < HEAD_START {
                    pace.step();
                }
                pace.look();
                assert_eq!((begin.0, is_idle()), (at_once, later), "{idle_after:?}");
            };
            std::thread::spawn(scan).join().expect("the thread ends");
        }
    }
}
