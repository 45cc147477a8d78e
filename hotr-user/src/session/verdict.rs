//! What became of an observed change in a watcher.
//!
//! In: an observation. Out: a [`Verdict`]. The watcher here is hotr's own inotify instance; those of other processes are judged
//! in the same words by `diagnose`, from the deliveries that its programs see.

use std::path::Path;

use hotr_events::Missed;

use super::inotify_channel::InotifyChannel;
use super::judge::{self, Context};
use super::observation::Observation;
use crate::source::Clock;

/// What became of it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The watcher received it.
    Delivered,
    /// It did not, and why.
    Missed(Missed),
    /// The kernel may still queue an event of it.
    Pending,
    /// Nothing can be said of it, or nothing needs to be.
    Unknown,
}

impl InotifyChannel {
    /// The verdict on an observation below the root `at`; its events count as explained by it.
    pub(super) fn verdict(
        &mut self,
        observed: &Observation,
        at: &Path,
        is_of_root: bool,
        is_mounted: impl FnOnce() -> bool,
        clock: &Clock,
    ) -> Verdict {
        let Observation { record, hook, change, count, is_gone, .. } = observed;
        let made = judge::made(change, record, *hook, *count, at);
        let was_received = self.was_received(change, made);
        let verdict = if *is_gone {
            // Its event is explained.
            Verdict::Unknown
        } else if was_received {
            Verdict::Delivered
        } else if made.is_before && clock.mono_ns() <= made.until_ns() {
            return Verdict::Pending;
        } else if !is_of_root && self.proves(change, made) {
            let dir = change.path.parent().unwrap_or(&change.path);
            let (coverage, overflowed) = (self.source.covers(dir), self.overflowed);
            let context = Context { coverage, overflowed, is_mounted: is_mounted() };
            Verdict::Missed(judge::missed(change, record, *hook, &context))
        } else {
            Verdict::Unknown
        };
        if judge::notifies_again(record, *hook) {
            self.expect_again(change, record.time);
        }
        verdict
    }
}
