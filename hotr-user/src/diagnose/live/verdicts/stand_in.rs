//! Judging changes by stand-ins and by what the programs read: the part of the [`VerdictJoiner`] for kernels where no program sees
//! what is queued.
//!
//! In: changes, events of the stand-ins, and what was read. Out: [`Verdict`]s, all of them inferred.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hotr_common::delivery::Chunk;

use super::VerdictJoiner;
use crate::diagnose::live::event_matcher::{Claim, EventMatcher, Fate, Later};
use crate::diagnose::live::expected_events::Key;
use crate::diagnose::live::explain::{self, Why};
use crate::diagnose::live::instance::Instance;
use crate::diagnose::live::stand_in_instances::ReceivedEvent;
use crate::diagnose::live::target::Targets;
use crate::diagnose::live::verdict::{Outcome, ReportedChange, State, Verdict};
use crate::diagnose::view::bits;
use crate::source::mono_ns;
use hotr_events::Cause;
use hotr_events::FileType;

/// Kinds that come after the change that they tell of.
const AFTERWARDS: u32 = bits::CLOSE_WRITE | bits::DELETE_SELF;

/// See the module.
#[derive(Default)]
pub(super) struct StandIns {
    echoes: EventMatcher,
    /// The first change since the last settling that waits for a later event, which may have come already.
    look_from: Option<u64>,
    /// When the queues were seen empty, until what was read before has come.
    empty: Vec<(u32, u64)>,
}

impl StandIns {
    pub(super) fn has(&self, instance: &Instance, made: &ReportedChange) -> bool {
        self.echoes.has(instance, made)
    }

    /// A change that was made then waits for a later event.
    pub(super) fn look_from(&mut self, made_ns: u64) {
        self.look_from = Some(self.look_from.map_or(made_ns, |from| from.min(made_ns)));
    }

    pub(super) fn forget_before(&mut self, time: u64) {
        self.echoes.forget_before(time);
    }
}

/// A verdict that said why nothing was sent, and no longer does.
fn cleaned(mut verdict: Verdict, key: &Key) -> Verdict {
    verdict.target.wd = Some(key.wd);
    verdict.events = key.kinds & 0xfff;
    (verdict.cause, verdict.watched_ino, verdict.mask) = (None, None, None);
    verdict.evidence.clear();
    verdict
}

impl VerdictJoiner {
    /// An event of a stand-in.
    pub(in crate::diagnose::live) fn receive(&mut self, slot: u32, heard: ReceivedEvent) {
        if let Some(stand_ins) = &mut self.stand_ins {
            stand_ins.echoes.receive(slot, heard);
        }
    }

    /// A part of what a program read.
    pub(in crate::diagnose::live) fn take_read(&mut self, chunk: &Chunk) {
        if let Some(stand_ins) = &mut self.stand_ins {
            stand_ins.echoes.read(chunk);
        }
    }

    /// Judges a change for one instance. Whether it concerns it; `None` when nothing was sent, and there is to be a reason.
    pub(super) fn by_stand_in(
        &mut self,
        instance: &Instance,
        made: &ReportedChange,
        draft: &Verdict,
        gaps: bool,
    ) -> Option<bool> {
        let stand_ins = self.stand_ins.as_mut()?;
        let why = explain::why(made, instance);
        let is_odd = match &why {
            Why::Never(reason) => reason.is_known(),
            Why::Later { reason, .. } => reason.as_ref().is_some_and(|reason| reason.is_known()),
            Why::Replaced(..) => true,
            Why::NotConcerned | Why::Unasked => false,
        };
        let since = |key: &Key| {
            let watch =
                instance.watches.iter().rev().find(|watch| (watch.wd, watch.ino) == (key.wd, key.ino));
            watch?.doubled
        };
        let (key, is_sent) = match stand_ins.echoes.claim(instance, made, is_odd, since) {
            Claim::Sent(key) => (key, true),
            Claim::Perhaps(key) => (key, false),
            Claim::Nothing | Claim::NoKey => {
                return match why {
                    Why::Never(reason) if !reason.is_known() => {
                        self.end(draft.sent.judged, Outcome::Undecided);
                        Some(true)
                    }
                    _ if gaps && !matches!(why, Why::NotConcerned | Why::Unasked) => {
                        self.end(draft.sent.judged, Outcome::Undecided);
                        Some(true)
                    }
                    _ => None,
                };
            }
        };
        let mut verdict = draft.clone();
        verdict.target.wd = Some(key.wd);
        verdict.events = key.kinds & 0xfff;
        let id = made.change.id.filter(|_| made.change.file_type != Some(FileType::Dir));
        verdict.sent.file = id.and_then(|id| Some((u32::try_from(id.dev).ok()?, id.ino)));
        if is_sent
            && key.kinds & bits::APPEARED != 0
            && let Some(pending) =
                made.change.id.and_then(|id| self.pending.get_mut(&(instance.slot, id.ino)))
        {
            // What was written before arrives by this.
            for one in pending.extract_if(.., |one| one.by & key.kinds != 0) {
                stand_ins.echoes.wait_later(
                    instance.slot,
                    key.clone(),
                    one.made_ns,
                    cleaned(one.verdict, &key),
                );
            }
        }
        stand_ins.echoes.wait(instance.slot, key, made.made_ns, is_sent, vec![verdict]);
        Some(true)
    }

    /// What became of the events, as far as it is known. All changes up to `known` were judged.
    pub(in crate::diagnose::live) fn settle_echoes(&mut self, known: u64, targets: &Targets) {
        self.settle_afterwards(targets);
        let Some(stand_ins) = &mut self.stand_ins else { return };
        for (slot, time) in stand_ins.empty.extract_if(.., |(_, time)| *time < known) {
            stand_ins.echoes.empty(slot, time);
        }
        for (fate, made, verdicts) in stand_ins.echoes.settle(known) {
            verdicts.into_iter().for_each(|verdict| self.end_as(&fate, made, verdict));
        }
    }

    /// Verdicts that wait for a later event of their file.
    fn settle_afterwards(&mut self, targets: &Targets) {
        let Some(stand_ins) = &mut self.stand_ins else { return };
        let from = stand_ins.look_from.take().unwrap_or(u64::MAX);
        let events = stand_ins.echoes.later(AFTERWARDS, from);
        if self.pending.is_empty() || events.is_empty() {
            return;
        }
        let mut by_path: HashMap<(u32, PathBuf), Vec<u64>> = HashMap::new();
        for (&(slot, ino), pending) in &self.pending {
            for path in pending.iter().map(|one| &one.verdict.path) {
                let inodes = by_path.entry((slot, path.clone())).or_default();
                if inodes.last() != Some(&ino) {
                    inodes.push(ino);
                }
            }
        }
        for Later { slot, wd, mask, name, until } in events {
            let Some(watch) = targets.of_slot(slot).and_then(|instance| instance.watch(wd)) else { continue };
            let named = |dir: &PathBuf| by_path.get(&(slot, dir.join(OsStr::from_bytes(&name)))).cloned();
            let inodes = match &*name {
                [] => vec![watch.ino],
                _ => watch.path.as_ref().and_then(named).unwrap_or_default(),
            };
            let key = Key { wd, kinds: mask & 0xfff, name: name.clone(), ino: watch.ino };
            for ino in inodes {
                let Some(pending) = self.pending.get_mut(&(slot, ino)) else { continue };
                for one in pending.extract_if(.., |one| one.by & mask != 0 && one.made_ns <= until) {
                    stand_ins.echoes.wait_later(slot, key.clone(), one.made_ns, cleaned(one.verdict, &key));
                }
            }
        }
        self.pending.retain(|_, pending| !pending.is_empty());
    }

    fn end_as(&mut self, fate: &Fate, made: u64, mut verdict: Verdict) {
        match fate {
            Fate::Read(time, mask) => {
                verdict.events = mask & 0xfff;
                verdict.evidence.push("the program read this event from its instance".into());
                self.read(verdict, made, *time);
            }
            Fate::Merged => {
                let why =
                    "a stand-in got the event, and the program read one equal event and emptied its queue";
                verdict.evidence.push(why.into());
                (verdict.state, verdict.cause) = (State::Merged, Some(Cause::Merged));
                self.applications.read(&verdict, 0);
                self.close(verdict);
            }
            Fate::Dropped => {
                verdict
                    .evidence
                    .push("a stand-in got the event, and the program read IN_Q_OVERFLOW instead".into());
                (verdict.state, verdict.cause) = (State::Dropped, Some(Cause::QueueOverflow));
                self.close(verdict);
            }
            Fate::Unread => {
                verdict.evidence.push("a stand-in got the event, and the program has unread events".into());
                (verdict.state, verdict.cause) = (State::Unread, Some(Cause::Unread));
                self.close(verdict);
            }
            Fate::Unknown => self.end(verdict.sent.judged, Outcome::Undecided),
        }
    }

    /// Asks whether queues are empty whose events are awaited.
    pub(in crate::diagnose::live) fn look_for_empty(&mut self, targets: &Targets) {
        let Some(stand_ins) = &mut self.stand_ins else { return };
        for instance in targets.instances().filter(|instance| instance.closed.is_none()) {
            if !stand_ins.echoes.awaits(instance.slot) {
                continue;
            }
            let now = mono_ns();
            if targets.unread(instance.slot) == Some(0) {
                stand_ins.empty.push((instance.slot, now));
            }
        }
    }

    /// Of changes up to then: what is in a queue is unread, and of the rest nothing is known.
    pub(super) fn decide_stand_ins(&mut self, until: u64, targets: &Targets) {
        let Some(stand_ins) = &mut self.stand_ins else { return };
        let rest = stand_ins.echoes.rest(until, |slot| targets.unread(slot).is_some_and(|bytes| bytes > 0));
        for (fate, made, verdicts) in rest {
            verdicts.into_iter().for_each(|verdict| self.end_as(&fate, made, verdict));
        }
    }
}
