//! What can wait until the reports of a turn are on their way: roots and mounts, totals of storms, what inotify alone
//! heard, losses, repeats that were held.

use std::time::Instant;

use super::{Clock, Engine, KernelSide};
use crate::error::Error;
use crate::event::Channel;
use crate::report::Report;
use crate::source::mono_ns;
use crate::trace::ear::Ear;

/// How much later than due a chore may be done: the chores of many files are then done at one waking.
const SLACK: u64 = 10_000_000;
/// How long a turn counts as just done.
const FRESH: u64 = 1_000_000;
/// Turns that read what was there when the first began: a full ring buffer. More is a storm.
const TURNS: usize = 16;

impl Engine {
    /// When the next turn is due without an event, `CLOCK_MONOTONIC` nanoseconds.
    pub(in crate::trace) fn next_deadline(&self) -> Option<u64> {
        let kernel = self.kernel.as_ref().and_then(KernelSide::next_deadline);
        let ear = self.ear.as_ref().and_then(Ear::next_deadline);
        [kernel, ear, self.settler.next_deadline(), self.loss_check]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at + SLACK)
    }

    /// Puts in its place what the last turn remembers of its changes.
    pub(in crate::trace) fn put_away(&mut self) {
        self.ledger.put_away();
        self.settler.put_away();
        if let Some(kernel) = &mut self.kernel {
            kernel.put_away();
        }
        if let Some(ear) = &mut self.ear {
            ear.put_away();
        }
    }

    /// Whether [`Self::catch_up`] has something to do now.
    pub(in crate::trace) fn has_chores(&self) -> bool {
        self.roots_news
            || self.kernel.as_ref().is_some_and(KernelSide::lacks_roots)
            || self.ear.as_ref().is_some_and(|ear| ear.source.has_lost())
            || self.next_deadline().is_some_and(|at| at <= mono_ns())
    }

    /// Everything that can wait until the reports of a turn are on their way, and a turn before it when the last one was
    /// long ago, for the reader of the reports may have been slow: what was heard alone, and what is looked for after a
    /// loss, is judged by what was read.
    pub(in crate::trace) fn catch_up(&mut self) -> Result<(), Error> {
        if mono_ns().saturating_sub(self.turned) > FRESH {
            self.turn(false)?;
        }
        self.chores()
    }

    fn chores(&mut self) -> Result<(), Error> {
        let clock = Clock::now();
        let mut trailing = Vec::new();
        if let Some(kernel) = &mut self.kernel {
            if !self.more && (self.roots_news || kernel.lacks_roots()) {
                self.roots_news = false;
                let gone = kernel.follow_roots()?;
                if let Some(ear) = self.ear.as_mut().filter(|_| !gone.is_empty()) {
                    ear.look_now();
                }
                self.reports.extend(gone.into_iter().map(|gone| Report::Loss {
                    channel: Channel::Ebpf,
                    reason: gone.reason,
                    count: 1,
                    path: Some(gone.path),
                }));
            }
            kernel.trailing(clock.mono_ns(), false, &mut trailing);
            kernel.actors.refresh(Instant::now());
        } else {
            self.roots_news = false;
        }
        if !trailing.is_empty() {
            // The events of what was only counted are there by now, and are read before it is told.
            self.listen(&clock)?;
            self.tell_trailing(trailing, &clock);
        }
        if self.kernel.is_some() {
            self.hear_alone(&clock);
        }
        self.check_losses()?;
        let mut due = Vec::new();
        self.settler.due(clock.mono_ns(), &mut due);
        self.emit_all(due);
        Ok(())
    }

    /// Turns until nothing more is there, and all chores.
    pub(in crate::trace) fn whole_turn(&mut self) -> Result<(), Error> {
        for round in 0..TURNS {
            self.turn(round == 0)?;
            if !self.more {
                break;
            }
        }
        self.chores()
    }
}
