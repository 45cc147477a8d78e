//! What was lost, on either channel: the report, and the search for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::super::copyup;
use super::super::rescan::Rescan;
use super::super::root_changes::Became;
use super::{Clock, Engine, IDLE_LOSS_CHECK, LOSS_CHECK};
use crate::ending;
use crate::error::Error;
use crate::pipeline::correlate::Known;
use crate::source::mono_ns;
use crate::source::since::SearchOptions;
use hotr_events::LossReason;
use hotr_events::{Change, Channel};
use hotr_events::{ChannelState, Report};

/// Found by a search before it is reported: a search of many files must not hold them all.
const FOUND: usize = 512;
/// How long changes wait for a search.
const SEARCH_TURN: Duration = Duration::from_millis(2);

impl Engine {
    pub(super) fn check_losses(&mut self) -> Result<(), Error> {
        self.repair_inotify()?;
        let now = mono_ns();
        if self.loss_check.is_some_and(|at| at <= now) {
            // What was lost may have been the only change: looked for now and then when nothing was reported.
            self.loss_check = self.ebpf.as_ref().map(|_| now + IDLE_LOSS_CHECK);
            self.check_kernel(false);
        }
        Ok(())
    }

    /// Counts what the kernel side lost, and looks for it once the ring buffer has been read empty. `all`: see
    /// [`EbpfChannel::losses`](super::super::ebpf_channel::EbpfChannel::losses).
    pub(super) fn check_kernel(&mut self, all: bool) {
        let Some(ebpf) = &mut self.ebpf else { return };
        let now = SystemTime::now();
        let mut lost_now = false;
        let losses = ebpf.losses(all);
        for (reason, count) in losses.counts.into_iter().filter(|(_, count)| *count > 0) {
            lost_now = true;
            self.ledger.lose(reason, SystemTime::now());
            self.subscription.report(Report::Loss { channel: Channel::Ebpf, reason, count, path: None });
        }
        self.tell_unmatched(all);
        let goes_on = (self.more || lost_now) && !self.ledger.is_long(self.read_ns);
        if self.ledger.is_short() && (goes_on || self.search.is_some()) {
            // The storm goes on: look again.
            self.loss_check = Some(mono_ns() + LOSS_CHECK);
        } else if self.ledger.is_short() {
            self.rescan();
        } else if losses.is_complete && self.search.is_none() {
            self.ledger.clean(now);
        }
    }

    /// Begins to look for what was lost.
    pub(super) fn rescan(&mut self) {
        if self.search.is_some() {
            return;
        }
        let mut counted = Vec::new();
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.trailing_now(&mut counted);
            ebpf.waiting().for_each(|change| self.ledger.report(change));
        }
        self.tell_trailing(counted, &Clock::now());
        let options = &self.options;
        let scan = SearchOptions { recursive: options.recursive, exclude: options.exclude.clone() };
        self.search = self.ledger.search(&options.paths, scan);
        if self.search.is_none() {
            self.subscription.report(Report::Loss {
                channel: Channel::Ebpf,
                reason: LossReason::Unsearched,
                count: 1,
                path: None,
            });
        }
    }

    /// Whether what was lost is being looked for, or reported.
    pub(in crate::session) fn searches(&self) -> bool {
        self.search.is_some() || !self.found.is_empty()
    }

    /// Reports some more of what was lost, and looks at some more files for it.
    pub(in crate::session) fn search_on(&mut self) {
        let now = SystemTime::now();
        let found = self.found.drain(..self.found.len().min(FOUND));
        let found = found
            .map(|difference| difference.into_change(Channel::Poll, now))
            .map(|change| Change { id: change.id.filter(|id| id.ino != 0), ..change })
            .collect();
        if self.found.is_empty() {
            self.found = VecDeque::new();
        }
        self.report_found(found);
        if let Some(search) = self.search.take() {
            self.go_on(search);
        }
    }

    fn go_on(&mut self, mut search: Rescan) {
        let (begin, mut found, mut more) = (Instant::now(), Vec::new(), true);
        let roots = self.ebpf.as_ref().map(|ebpf| (ebpf.roots.call_roots(), &ebpf.roots.bases[..]));
        let (roots, bases) = roots.unwrap_or_default();
        while more && found.len() < FOUND && begin.elapsed() < SEARCH_TURN {
            more = search.step(&self.ledger, |file| copyup::lower(roots, bases, file), &mut found);
        }
        let inotify = &mut self.inotify;
        let found = found.into_iter().filter_map(|mut change| {
            match inotify.as_mut().map(|inotify| inotify.found(&change)) {
                Some(Known::Renamed) => return None,
                Some(Known::Changed) => change.seen_by.push(Channel::Inotify),
                Some(Known::Nothing) | None => {}
            }
            Some(change)
        });
        let found = found.collect();
        self.report_found(found);
        if more {
            self.search = Some(search);
            return;
        }
        self.ledger.found(&search);
        let before = std::mem::replace(&mut self.too_deep, search.too_deep());
        if self.too_deep > 0 && self.too_deep != before {
            let (channel, reason, count) = (Channel::Ebpf, LossReason::TooDeep, self.too_deep);
            self.subscription.report(Report::Loss { channel, reason, count, path: None });
        }
    }

    pub(super) fn report_found(&mut self, found: Vec<Change>) {
        for change in found {
            if change.id.is_some_and(|id| self.is_own((id.dev, id.ino))) {
                continue;
            }
            self.subscription.offer_found(change);
        }
    }

    /// Reports events of inotify that could not be placed. What they were of is reported by its record, unless eBPF missed it.
    pub(super) fn tell_unplaced(&mut self, count: u64) {
        if count > 0 {
            let (channel, reason) = (Channel::Inotify, LossReason::RenamedAbove);
            self.subscription.report(Report::Loss { channel, reason, count, path: None });
        }
    }

    /// Reports events that could not be kept until their records came. Where records were lost, hotr looks for what they were
    /// of: then it is found, and not lost.
    fn tell_unmatched(&mut self, is_end: bool) {
        let Some(inotify) = &mut self.inotify else { return };
        let is_looked_for = self.ledger.is_short() || self.search.is_some();
        let count = inotify.take_unmatched(is_end || is_looked_for);
        if count > 0 && !is_looked_for {
            let (channel, reason) = (Channel::Inotify, LossReason::Unmatched);
            self.subscription.report(Report::Loss { channel, reason, count, path: None });
        }
    }

    /// Says that directories are without a watch which the reader takes for covered, or that none is any more. While their
    /// number grows, each doubling is said.
    pub(super) fn tell_uncovered(&mut self) {
        // `hotr watch` asks for what the channels cannot see, and says it itself.
        let Some(inotify) = self.inotify.as_ref().filter(|_| !self.options.audited) else { return };
        let uncovered = inotify.source.uncovered();
        let (state, why) = match (uncovered.count, self.told_uncovered) {
            (now, told) if now == told => return,
            (0, _) => (ChannelState::Active, "every directory has a watch again".to_owned()),
            (now, told) if now < told => {
                self.told_uncovered = now;
                return;
            }
            (now, told) if now < told.saturating_mul(2) => return,
            (now, _) => {
                let example = uncovered.examples.last();
                let example = example.map(|(path, why)| format!(", {}: {why}", path.display()));
                let noun = if now == 1 { "directory has" } else { "directories have" };
                (ChannelState::Degraded, format!("{now} {noun} no watch{}", example.unwrap_or_default()))
            }
        };
        self.told_uncovered = uncovered.count;
        self.subscription.report(Report::Channel { channel: Channel::Inotify, state, why });
    }

    fn repair_inotify(&mut self) -> Result<(), Error> {
        let Some(inotify) = &mut self.inotify else { return Ok(()) };
        let mut moved = None;
        let why = if let Some(lost) = inotify.take_lost() {
            if lost.reason == LossReason::RootMoved && self.ebpf.is_none() {
                moved = lost.path.clone().filter(|path| path.symlink_metadata().is_err());
            }
            self.subscription.report(Report::Loss {
                channel: Channel::Inotify,
                reason: lost.reason,
                count: lost.count,
                path: lost.path,
            });
            if lost.reason == LossReason::QueueOverflow { " after a full queue" } else { "" }
        } else if std::mem::take(&mut self.watches_are_old) {
            " after a change of mounts"
        } else {
            let (reason, path) = match inotify.look_at_roots(mono_ns()) {
                None => return Ok(()),
                Some(Became::Back(_)) => (None, None),
                Some(Became::Gone(path)) => {
                    // The other channel received it from the kernel.
                    let reason = match self.told_gone.remove(&path) {
                        Some(LossReason::RootDeleted) => LossReason::RootDeleted,
                        Some(LossReason::RootMoved) => LossReason::RootMoved,
                        _ => LossReason::RootGone,
                    };
                    (Some(reason), Some(path))
                }
                Some(Became::Another(path)) => (Some(LossReason::RootMoved), Some(path)),
                Some(Became::MountedOver(path)) => (Some(LossReason::MountedOver), Some(path)),
            };
            if let Some(reason) = reason {
                self.subscription.report(Report::Loss { channel: Channel::Inotify, reason, count: 1, path });
            }
            ""
        };
        self.watches_are_old = false;
        let moved = moved.map(|path| inotify.root_moved(&path));
        if ending::is_asked() {
            // It would take long, and nobody waits for what it could find.
            ending::cut(1);
            return Ok(());
        }
        let repaired = inotify.repair()?;
        self.renewed = true;
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.listen_to(inotify);
        }
        let watches = inotify.source.watches();
        let (state, why) = match repaired.absent.first() {
            None => (ChannelState::Active, format!("watches rebuilt{why}: {watches} watches")),
            Some(error) => (ChannelState::Degraded, format!("{error}; hotr looks for it again every second")),
        };
        self.subscription.report(Report::Channel { channel: Channel::Inotify, state, why });
        self.found.extend(repaired.found);
        self.report_found(moved.into_iter().collect());
        Ok(())
    }
}
