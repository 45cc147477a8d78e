//! What can wait until the reports of a turn are on their way: roots and mounts, totals of storms, what only inotify
//! received, losses, repeats that were held.

use std::time::{Instant, SystemTime};

use super::{Clock, EbpfChannel, Engine};
use crate::ending;
use crate::error::Error;
use crate::session::inotify_channel::InotifyChannel;
use crate::session::roots::Followed;
use crate::source::mono_ns;
use hotr_events::Channel;
use hotr_events::LossReason;
use hotr_events::Report;

/// How much later than due a chore may be done: the chores of many files are then done at one waking.
const SLACK: u64 = 10_000_000;
/// How long a turn counts as just done.
const FRESH: u64 = 1_000_000;
/// Turns that read what was there when the first began: a full ring buffer. More is a storm.
const TURNS: usize = 16;

/// How long news of roots wait for records to be read.
const ROOTS_WAIT_NS: u64 = 1_000_000_000;

impl Engine {
    /// When the next turn is due without an event, `CLOCK_MONOTONIC` nanoseconds.
    pub(in crate::session) fn next_deadline(&self) -> Option<u64> {
        let ebpf = self.ebpf.as_ref().and_then(EbpfChannel::next_deadline);
        let inotify = self.inotify.as_ref().and_then(InotifyChannel::next_deadline);
        [ebpf, inotify, self.subscription.next_deadline(), self.loss_check]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at + SLACK)
    }

    /// Puts in its place what the last turn remembers of its changes.
    pub(in crate::session) fn put_away(&mut self) {
        self.ledger.put_away();
        self.subscription.put_away();
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.put_away();
        }
        if let Some(inotify) = &mut self.inotify {
            inotify.put_away();
        }
    }

    /// Whether [`Self::catch_up`] has something to do now.
    pub(in crate::session) fn has_chores(&self) -> bool {
        self.roots_news.is_some()
            || self.ebpf.as_ref().is_some_and(EbpfChannel::lacks_roots)
            || self.inotify.as_ref().is_some_and(|inotify| inotify.source.has_lost())
            || self.next_deadline().is_some_and(|at| at <= mono_ns())
    }

    /// Everything that can wait until the reports of a turn are on their way, and a turn before it when the last one
    /// was long ago, because the reader of the reports may have been slow: events without a record, and the search
    /// after a loss, are judged by what was read.
    pub(in crate::session) fn catch_up(&mut self) -> Result<(), Error> {
        if mono_ns().saturating_sub(self.turned) > FRESH {
            self.turn(false)?;
        }
        self.chores()
    }

    /// Follows the roots to what their paths lead to now, and reports those that have disappeared.
    pub(super) fn follow_roots(&mut self, clock: &Clock) -> Result<(), Error> {
        let Some(ebpf) = &mut self.ebpf else { return Ok(()) };
        let Followed { any, gone, remounted, .. } = ebpf.follow_roots()?;
        self.watches_are_old |= !remounted.is_empty();
        self.remounted.extend(remounted);
        if any {
            self.ledger.lose(LossReason::RootMoved, SystemTime::now());
            self.loss_check = Some(clock.mono_ns());
        }
        if let Some(inotify) = self.inotify.as_mut().filter(|_| !gone.is_empty()) {
            inotify.look_now();
            self.told_gone = gone.iter().map(|gone| (gone.path.clone(), gone.reason)).collect();
        }
        for gone in gone {
            let (channel, reason, path) = (Channel::Ebpf, gone.reason, Some(gone.path));
            self.subscription.report(Report::Loss { channel, reason, count: 1, path });
        }
        Ok(())
    }

    fn chores(&mut self) -> Result<(), Error> {
        let clock = Clock::now();
        let mut trailing = Vec::new();
        if self.ebpf.is_some() {
            // When all records made before were read, or, where writers are faster than the reading, after a while.
            let is_overdue = |since: u64| clock.mono_ns().saturating_sub(since) > ROOTS_WAIT_NS;
            let is_due = self.roots_news.take_if(|since| !self.more || is_overdue(*since)).is_some();
            if is_due {
                self.follow_roots(&clock)?;
            }
        }
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.trailing(clock.mono_ns(), false, &mut trailing);
            ebpf.actors.refresh(Instant::now());
        } else {
            self.roots_news = None;
        }
        if !trailing.is_empty() {
            // The events of what was only counted are there by now, and are read before it is reported.
            self.listen(&clock)?;
            self.tell_trailing(trailing, &clock);
        }
        if self.ebpf.is_some() {
            self.hear_alone(&clock)?;
        }
        self.check_losses()?;
        self.tell_uncovered();
        self.subscription.due(clock.mono_ns());
        Ok(())
    }

    /// Turns until nothing more is there, and all chores.
    pub(in crate::session) fn whole_turn(&mut self) -> Result<(), Error> {
        for round in 0..TURNS {
            self.turn(round == 0)?;
            if !self.more || ending::is_over() {
                break;
            }
        }
        self.chores()
    }
}
