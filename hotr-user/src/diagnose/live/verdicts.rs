//! Joins changes with the deliveries that were made for them.
//!
//! In: deliveries, in the order of the ring buffer, and changes, each after all deliveries that were made before its end.
//! Out: [`Verdict`]s, each once it is known.

mod stand_in;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use hotr_common::delivery::{ADDED, CLOSED, NO_MEMORY, OFFERED, Offer, REFUSED, TAKEN, Usage};
use hotr_common::uapi::inotify::IGNORED;

use super::application::Applications;
use super::explain::{self, Why};
use super::instance::Instance;
use super::offers::{Offered, Offers};
use super::queue::{Known, Queues};
use super::rewatch::Rewatches;
use super::summary::Summary;
use super::target::Targets;
use super::uses::Uses;
use super::verdict::{Decided, Judged, Outcome, ReportedChange, Sent, State, Verdict};
use crate::diagnose::finding::{Finding, Proof, Target};
use crate::diagnose::view::bits;
use crate::source::mono_ns;
use hotr_events::Cause;
use hotr_events::{Change, FileId, Op};
use stand_in::StandIns;

/// A verdict that waits for a later event of its file.
struct Pending {
    made_ns: u64,
    /// Kinds of event that settle it.
    by: u32,
    /// What it is at the end otherwise; nothing when that cannot be known.
    verdict: Verdict,
    otherwise: bool,
}

/// See the module.
pub(super) struct VerdictJoiner {
    trees: Vec<PathBuf>,
    offers: Offers,
    queues: Queues,
    /// By instance and inode.
    pending: HashMap<(u32, u64), Vec<Pending>>,
    /// Where no program sees what is queued.
    stand_ins: Option<StandIns>,
    applications: Applications,
    rewatches: Rewatches,
    /// Files whose use is waited for.
    pub(super) uses: Uses,
    /// Changes that were judged.
    judged: u64,
    out: Vec<Decided>,
    summary: Summary,
}

impl VerdictJoiner {
    pub(super) fn new(trees: Vec<PathBuf>, are_doubled: bool) -> Self {
        Self {
            trees,
            offers: Offers::default(),
            queues: Queues::default(),
            pending: HashMap::new(),
            stand_ins: are_doubled.then(StandIns::default),
            applications: Applications::default(),
            rewatches: Rewatches::default(),
            uses: Uses::default(),
            judged: 0,
            out: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Takes a record of the kernel programs; with the name, if an event was offered.
    pub(super) fn take(&mut self, record: &Offer, name: &[u8], targets: &mut Targets) {
        match record.kind {
            OFFERED => {
                if record.mask & IGNORED != 0 {
                    targets.ignored(record.slot, record.wd, record.time);
                }
                self.offered(record.slot, Offered::of(record, name));
            }
            REFUSED => {
                self.offers.refuse(record);
                let refused = Offered::of(record, name);
                for verdict in self.queues.refused(record.slot, record.event, record.time) {
                    self.by_offer(record.slot, &refused, verdict);
                }
            }
            TAKEN => {
                let Some((queued, waiting)) = self.queues.taken(record.slot, record.event, record.time)
                else {
                    return;
                };
                for verdict in waiting {
                    self.read(verdict, queued, record.time);
                }
            }
            ADDED => targets.added(record.slot, record.wd, record.time),
            CLOSED => targets.closed(record.slot, record.time),
            _ => {}
        }
    }

    fn offered(&mut self, slot: u32, offered: Offered) {
        if offered.result == 0 {
            self.queues.queued(slot, offered.event, offered.time);
        }
        if offered.mask & IGNORED != 0 {
            return;
        }
        let at = (slot, offered.ino);
        let mut is_taken = false;
        if let Some(pending) = self.pending.get_mut(&at) {
            let is_settled = |one: &mut Pending| one.by & offered.mask != 0 && one.made_ns <= offered.time;
            let settled: Vec<_> = pending.extract_if(.., is_settled).collect();
            if pending.is_empty() {
                self.pending.remove(&at);
            }
            for one in settled {
                is_taken |= offered.mask & bits::MODIFY != 0;
                self.by_offer(slot, &offered, one.verdict);
            }
        }
        if !is_taken {
            self.offers.add(slot, offered);
        }
    }

    fn read(&mut self, mut verdict: Verdict, queued: u64, taken: u64) {
        let micros = taken.saturating_sub(queued) / 1000;
        (verdict.state, verdict.read_us) = (State::Delivered, Some(micros));
        self.applications.read(&verdict, taken);
        self.uses.add(&verdict);
        self.summary.read_us.add(micros);
        self.close(verdict);
    }

    fn close(&mut self, mut verdict: Verdict) {
        if verdict.state == State::NeverSent {
            let what = match (&self.stand_ins, verdict.target.fd) {
                (None, Some(_)) => "inotify_handle_inode_event was not called for this instance",
                (None, None) => "inotify_handle_inode_event was not called for this process",
                (Some(_), Some(_)) => {
                    "a stand-in with the same watches got no event, and the program read none"
                }
                (Some(_), None) => "the program read no event of it",
            };
            verdict.evidence.insert(0, what.into());
        }
        if self.stand_ins.is_some() {
            verdict.proof = Proof::Inferred;
        }
        *self.summary.counts.entry(verdict.state).or_default() += 1;
        if !matches!(verdict.state, State::Delivered | State::Merged) {
            self.summary.count(verdict.state, verdict.cause, &verdict.path);
        }
        self.end(verdict.sent.judged, Outcome::Verdict(Box::new(verdict)));
    }

    /// The last that is said of a change in an instance.
    fn end(&mut self, judged: u64, outcome: Outcome) {
        match &outcome {
            Outcome::Verdict(_) => {}
            Outcome::Undecided => self.summary.undecided += 1,
            Outcome::Unasked => self.summary.unasked += 1,
            Outcome::Reread => self.summary.reread += 1,
        }
        self.out.push(Decided { judged, outcome });
    }

    /// The verdict on a change for which this was offered.
    fn by_offer(&mut self, slot: u32, offered: &Offered, mut verdict: Verdict) {
        verdict.events = offered.mask & 0xfff;
        verdict.queue = (offered.queue.1 != 0).then_some(offered.queue);
        verdict.target.wd = Some(offered.wd);
        let late = i128::from(offered.time) - i128::from(verdict.sent.made_ns);
        verdict.queued_us = i64::try_from(late / 1000).ok();
        verdict.proof = Proof::Proved;
        (verdict.cause, verdict.watched_ino, verdict.mask) = (None, None, None);
        verdict.evidence.clear();
        if offered.mask & bits::ISDIR == 0 && verdict.path_ino == Some(offered.ino) {
            verdict.sent.file = Some((offered.dev, offered.ino));
        }
        let (unread, limit) = offered.queue;
        match offered.result {
            NO_MEMORY => {
                verdict
                    .evidence
                    .push("inotify_handle_inode_event queued an overflow for lack of memory".into());
                (verdict.state, verdict.cause) = (State::Dropped, Some(Cause::NoMemory));
            }
            0 => {
                match self.queues.known(slot, offered.event, offered.time) {
                    Known::Read(taken) => self.read(verdict, offered.time, taken),
                    Known::Unread => self.queues.wait(slot, offered.event, offered.time, verdict),
                    Known::Nothing => self.end(verdict.sent.judged, Outcome::Undecided),
                }
                return;
            }
            1 => {
                verdict
                    .evidence
                    .push("fsnotify_insert_event returned 1: the last unread event is equal".into());
                (verdict.state, verdict.cause) = (State::Merged, Some(Cause::Merged));
                self.applications.read(&verdict, 0);
            }
            2 if limit != 0 && unread >= limit => {
                let text = format!("fsnotify_insert_event returned 2 with {unread} of {limit} events unread");
                verdict.evidence.push(text);
                (verdict.state, verdict.cause) = (State::Dropped, Some(Cause::QueueOverflow));
            }
            // The instance is being closed, or a program was skipped.
            _ => {
                self.end(verdict.sent.judged, Outcome::Undecided);
                return;
            }
        }
        self.close(verdict);
    }

    /// Whether something is to be explained, for which the watches are looked at as they are now.
    pub(super) fn lacks(&self, made: &[ReportedChange], targets: &Targets) -> bool {
        made.iter().any(|one| {
            let mut is_served = false;
            let lacking = targets.instances().filter(|instance| concerns(instance, one)).any(|instance| {
                let has = match &self.stand_ins {
                    Some(stand_ins) => stand_ins.has(instance, one),
                    None => self.offers.has(instance, one),
                };
                is_served |= has;
                !has && !matches!(explain::why(one, instance), Why::NotConcerned | Why::Unasked)
            });
            lacking || !is_served && self.is_in_tree(&one.change)
        })
    }

    /// Whether a change is one of those that matter although no watch has to do with it.
    fn is_in_tree(&self, change: &Change) -> bool {
        matches!(change.op, Op::Create | Op::Write | Op::Rename)
            && self.trees.iter().any(|tree| change.path.starts_with(tree))
    }

    /// Judges a change for every instance. With `gaps`, records were lost: what is not there may have been.
    pub(super) fn judge(&mut self, made: &ReportedChange, targets: &Targets, gaps: bool) -> Judged {
        self.judged += 1;
        let (number, judged) = (self.summary.changes + 1, self.judged);
        let (mut concerned, mut served, mut outcomes) = (false, HashSet::new(), 0);
        let mut is_followed = false;
        for instance in targets.instances().filter(|instance| concerns(instance, made)) {
            is_followed = true;
            let mut draft = draft(number, made, instance.target(None));
            draft.sent.judged = judged;
            if self.stand_ins.is_some()
                && let Some(is_concerned) = self.by_stand_in(instance, made, &draft, gaps)
            {
                concerned |= is_concerned;
                outcomes += 1;
                served.insert(instance.pid);
                continue;
            }
            let offers = self.offers.take(instance, made);
            // Of several events of one change the one that came furthest.
            let rank = |offered: &&Offered| if offered.result < 0 { 3 } else { offered.result };
            if let Some(best) = offers.iter().min_by_key(rank) {
                (concerned, _) = (true, served.insert(instance.pid));
                outcomes += 1;
                self.by_offer(instance.slot, best, draft);
                continue;
            }
            let why = explain::why(made, instance);
            match why {
                Why::NotConcerned => continue,
                Why::Unasked => self.end(judged, Outcome::Unasked),
                _ if gaps => self.end(judged, Outcome::Undecided),
                Why::Later { by, ino, reason } => {
                    concerned = true;
                    let otherwise = reason.is_some();
                    let verdict = reason.map_or(draft.clone(), |reason| explain::filled(draft, *reason));
                    self.later(instance.slot, ino, made.made_ns, by, verdict, otherwise);
                }
                Why::Replaced(file, reason) => {
                    concerned = true;
                    self.rewatches.hold(instance.slot, file, explain::filled(draft, *reason));
                }
                Why::Never(reason) => {
                    concerned = true;
                    self.close(explain::filled(draft, *reason));
                }
            }
            outcomes += 1;
            served.insert(instance.pid);
        }
        let (of_trees, is_concerning) = self.judge_trees(made, targets, gaps, &served, number);
        outcomes += of_trees;
        concerned |= is_concerning;
        self.summary.changes += u64::from(concerned);
        Judged { number: judged, is_concerning: concerned, is_followed, outcomes }
    }

    /// Of the trees that the user named, every change matters: also one that no instance of a process has a watch for. How
    /// many outcomes there are, and whether there is a verdict.
    fn judge_trees(
        &mut self,
        made: &ReportedChange,
        targets: &Targets,
        gaps: bool,
        served: &HashSet<u32>,
        number: u64,
    ) -> (usize, bool) {
        if !self.is_in_tree(&made.change) {
            return (0, false);
        }
        let (mut outcomes, mut concerned, mut told) = (0, false, served.clone());
        for instance in targets.instances().filter(|instance| concerns(instance, made)) {
            if !told.insert(instance.pid) {
                continue;
            }
            outcomes += 1;
            // A watch of an instance that was not followed yet may have got it.
            if gaps || targets.of_process(instance.pid).any(|one| explain::has_to_do(&made.change, one)) {
                self.end(self.judged, Outcome::Undecided);
                continue;
            }
            let target = Target { fd: None, ..instance.target(None) };
            let reason = explain::unwatched(made);
            let mut draft = draft(number, made, target);
            draft.sent.judged = self.judged;
            self.close(explain::filled(draft, reason));
            concerned = true;
        }
        (outcomes, concerned)
    }

    fn later(&mut self, slot: u32, ino: u64, made_ns: u64, by: u32, verdict: Verdict, otherwise: bool) {
        match self.offers.afterwards(slot, ino, by, made_ns) {
            Some(offered) => self.by_offer(slot, &offered, verdict),
            None => {
                if let Some(stand_ins) = &mut self.stand_ins {
                    stand_ins.look_from(made_ns);
                }
                let one = Pending { made_ns, by, verdict, otherwise };
                self.pending.entry((slot, ino)).or_default().push(one);
            }
        }
    }

    /// What is known since the last call.
    pub(super) fn decided(&mut self) -> Vec<Decided> {
        std::mem::take(&mut self.out)
    }

    /// Forgets deliveries that no change came for.
    pub(super) fn forget_before(&mut self, time: u64) {
        if let Some(stand_ins) = &mut self.stand_ins {
            stand_ins.forget_before(time);
        }
        self.offers.forget_before(time);
        self.queues.forget_before(time);
    }

    /// The end: what was not read is unread, and what did not come later never came.
    pub(super) fn finish(&mut self, targets: &Targets) {
        self.decide_pending(u64::MAX, targets);
        self.settle_echoes(u64::MAX, targets);
        self.decide_rest(u64::MAX, targets);
    }

    /// Waits no longer for what becomes of the changes up to then: the same is said of them as at the end.
    pub(super) fn decide(&mut self, until: u64, targets: &Targets) {
        self.decide_pending(until, targets);
        self.decide_rest(until, targets);
    }

    fn decide_pending(&mut self, until: u64, targets: &Targets) {
        let mut pending: Vec<_> = Vec::new();
        self.pending.retain(|at, waiting| {
            pending.extend(waiting.extract_if(.., |one| one.made_ns <= until).map(|one| (at.0, one)));
            !waiting.is_empty()
        });
        pending.sort_by_key(|(_, one)| one.verdict.change);
        for (slot, one) in pending {
            let is_open = targets.of_slot(slot).is_some_and(|instance| instance.closed.is_none());
            if one.otherwise && is_open {
                self.close(one.verdict);
            } else {
                self.end(one.verdict.sent.judged, Outcome::Undecided);
            }
        }
    }

    fn decide_rest(&mut self, until: u64, targets: &Targets) {
        self.decide_stand_ins(until, targets);
        for mut verdict in self.queues.unread(until) {
            (verdict.state, verdict.cause) = (State::Unread, Some(Cause::Unread));
            verdict.evidence.push("the event never left the queue".into());
            self.close(verdict);
        }
    }

    /// Whether verdicts have waited long enough for the program to set its watch again.
    pub(super) fn is_due(&self) -> bool {
        self.rewatches.is_due(mono_ns())
    }

    /// Settles them; the watches were looked at before.
    pub(super) fn settle(
        &mut self,
        is_end: bool,
        targets: &Targets,
        usage: impl Fn(u32, u64) -> Option<Usage>,
    ) {
        let usage = |file: FileId| usage(u32::try_from(file.dev).ok()?, file.ino);
        let settled = self.rewatches.settle(mono_ns(), is_end, targets, usage);
        settled.reread.into_iter().for_each(|judged| self.end(judged, Outcome::Reread));
        settled.undecided.into_iter().for_each(|judged| self.end(judged, Outcome::Undecided));
        settled.verdicts.into_iter().for_each(|verdict| self.close(verdict));
    }

    /// What the programs did not do with what they read; call it after [`Self::finish`].
    pub(super) fn findings(&mut self, usage: impl Fn(u32, u64) -> Option<Usage>) -> Vec<Finding> {
        let findings = self.applications.findings(mono_ns(), usage);
        for finding in &findings {
            let path = finding.path.as_deref().unwrap_or(Path::new(""));
            self.summary.count(State::Delivered, Some(finding.cause), path);
        }
        findings
    }

    pub(super) fn summary(&mut self) -> Summary {
        self.summary.rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        self.summary.clone()
    }
}

/// Whether the deliveries to an instance were seen when the change was made.
fn concerns(instance: &Instance, made: &ReportedChange) -> bool {
    instance.closed.is_none_or(|closed| closed > made.made_ns) && instance.since < made.made_ns
}

fn draft(change: u64, made: &ReportedChange, target: Target) -> Verdict {
    let Change { time, op, path, id, actor, .. } = &*made.change;
    let mut draft = Verdict::new(change, *time, *op, path.clone(), target, State::NeverSent);
    draft.path_ino = id.map(|id| id.ino);
    let by = actor.as_ref().map(|by| by.pid);
    draft.sent = Sent { judged: 0, file: None, made_ns: made.made_ns, by };
    draft
}
