//! What became of an observed change in a watcher.
//!
//! In: an observation. Out: a [`Verdict`], and the marks that it makes on the change. For hotr's own inotify instance the verdict
//! is made here; for those of other processes, `diagnose` makes it, from the deliveries that its programs see.

use std::path::Path;

use hotr_events::{Change, Channel, Missed};

use super::inotify_channel::InotifyChannel;
use super::judge::{self, Context};
use super::observation::Observation;
use crate::source::Clock;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The watcher received it.
    Delivered,
    /// It did not, and why.
    Missed(Missed),
    /// The kernel may still queue an event of it.
    Pending,
    /// Nothing can be said of it, or nothing needs to be.
    Unknown,
}

/// Whose inotify instances a verdict is about: they are the channel `inotify` of the change.
#[derive(Debug)]
pub(crate) enum Watcher {
    /// hotr's own.
    Own,
    /// Those of another process; with all that is known of the change there.
    Foreign(Box<hotr_events::Watcher>),
}

impl Verdict {
    /// Puts it into the change: the one place where a change gets the marks of a watcher.
    pub(crate) fn mark(self, watcher: Watcher, change: &mut Change) {
        match self {
            Self::Delivered => change.seen_by.push(Channel::Inotify),
            Self::Missed(missed) => change.missed_by.push(missed),
            Self::Pending | Self::Unknown => {}
        }
        if let Watcher::Foreign(watcher) = watcher {
            change.watcher = Some(watcher);
        }
    }
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
