//! The instances of some processes while they run, and what becomes of each change there: what a live diagnosis and a trace
//! with the marks of another watcher have in common.
//!
//! In: changes, each after all that was made before its end. Out: [`Followed`], in the order in which it is to be passed on.
//! Changes are read first, then deliveries: that order is the proof.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hotr_common::delivery::ADDED;

use super::GAP_NS;
use super::arrival::{Arrival, AwaitedEvent};
use super::instance::{Instance, Watch};
use super::summary::Summary;
use super::target::Targets;
use super::uses::Use;
use super::verdict::{Decided, Judged, ReportedChange};
use super::verdicts::VerdictJoiner;
use crate::diagnose::finding::Finding;
use crate::diagnose::limits::Limits;
use crate::ending;
use crate::kernel::load::Tier;
use crate::source::ebpf::{DeliverySeen, DeliverySource};
use crate::source::mono_ns;
use hotr_events::LossReason;

/// How often instances and watches are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a delivery waits for the change that it belongs to. They come together; those of events that are no change
/// (opens, reads) belong to none.
const KEPT_NS: u64 = 10_000_000_000;

/// What is traced.
pub(super) enum Traced {
    /// Trees that the user named: every change in them matters.
    Trees(Vec<PathBuf>),
    /// What the processes watched at the start: what they watch later may lie elsewhere.
    OfWatches {
        paths: Vec<PathBuf>,
        /// With all that is below.
        recursive: bool,
    },
}

/// What there is to be said.
pub(super) enum Followed<'a> {
    /// A remark.
    Note(String),
    /// Records of deliveries were lost.
    Lost { reason: LossReason, count: u64 },
    /// A change was judged.
    Judged(ReportedChange, Judged),
    /// What became of one.
    Decided(Decided),
    /// A file was used after an event of it was read.
    Used(&'a Use),
}

/// Whoever takes it.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Followed<'_>) -> io::Result<()>;

/// See the module.
pub(super) struct Follower {
    source: DeliverySource,
    targets: Targets,
    book: VerdictJoiner,
    traced: Traced,
    looked: Instant,
    /// As the programs count, which they may have begun to before anything was followed.
    lost: u64,
    lost_records: u64,
    /// All processes have exited.
    is_alone: bool,
    /// When the changes were read the last time.
    read_until: Option<u64>,
    /// Changes up to then may lack a delivery whose record was lost.
    gap_until: u64,
    /// Verdicts are waited for no longer than that; without it, until the end.
    patience_ns: Option<u64>,
    /// A watch was set since the last look.
    is_changed: bool,
    /// Events that hotr makes now.
    awaited: Vec<AwaitedEvent>,
}

/// A watch of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchId {
    pub(super) pid: u32,
    pub(super) fd: i32,
    pub(super) wd: i32,
    pub(super) ino: u64,
}

/// What stands in for an instance that is offered an event.
#[derive(Clone, Copy, Default)]
struct StandIn {
    /// It has the watch, too.
    has_watch: bool,
    /// The queue of the instance itself is not full.
    has_room: bool,
}

/// Bytes of an event without a name: of no more bytes than this are there more events.
const EVENT_BYTES: u64 = 16;

impl Follower {
    /// Follows the instances from now on; changes are traced already.
    pub(super) fn start(mut source: DeliverySource, mut targets: Targets, traced: Traced) -> Self {
        if source.tier() == Tier::Tracepoint {
            // Nothing says what is queued: instances of hotr's own stand in for the targets'.
            targets.double();
            targets.look(&mut source);
        }
        targets.follow(&mut source);
        let trees = match &traced {
            Traced::Trees(trees) => trees.clone(),
            Traced::OfWatches { .. } => Vec::new(),
        };
        let book = VerdictJoiner::new(trees, targets.are_doubled());
        Self {
            lost: source.lost(),
            source,
            targets,
            book,
            traced,
            looked: Instant::now(),
            lost_records: 0,
            is_alone: false,
            read_until: None,
            gap_until: 0,
            patience_ns: None,
            is_changed: false,
            awaited: Vec::new(),
        }
    }

    /// From now on a verdict that takes longer is not waited for.
    pub(super) fn hurry(&mut self, patience: Duration) {
        self.patience_ns = u64::try_from(patience.as_nanos()).ok();
    }

    /// Verdicts on changes up to then are not waited for any more.
    pub(super) fn give_up(&mut self, made_ns: u64) {
        self.book.decide(made_ns, &self.targets);
    }

    /// Kind of the programs that see deliveries.
    pub(super) fn tier(&self) -> Tier {
        self.source.tier()
    }

    /// Why it is not seen what the processes do with events that they have read.
    pub(super) fn blind(&self) -> Option<&str> {
        self.source.blind()
    }

    /// Instances that are followed, or were.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.targets.instances()
    }

    /// Whether all processes have exited.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Judges changes by the deliveries that were made for them.
    pub(super) fn turn(&mut self, made: Vec<ReportedChange>, tell: Tell<'_>) -> io::Result<()> {
        // All changes that were made before this have been handed over.
        let known = self.read_until.replace(mono_ns()).unwrap_or(0);
        let has_exited = self.targets.note_there();
        self.gather();
        let lost = self.source.lost();
        if lost != self.lost {
            let count = lost.saturating_sub(self.lost);
            tell(Followed::Lost { reason: LossReason::DeliveriesSkipped, count })?;
            (self.lost, self.gap_until) = (lost, mono_ns() + GAP_NS);
            self.lost_records += count;
        }
        let must_look = std::mem::take(&mut self.is_changed)
            || has_exited
            || self.looked.elapsed() >= LOOK_EVERY
            || self.book.lacks(&made, &self.targets);
        if must_look {
            self.look(tell)?;
        }
        let mut made = made.into_iter();
        while let Some(one) = made.next() {
            if self.patience_ns.is_some() && ending::is_over() {
                ending::cut(1 + made.len() as u64);
                break;
            }
            let judged = self.book.judge(&one, &self.targets, one.made_ns <= self.gap_until);
            tell(Followed::Judged(one, judged))?;
            self.hand_out(tell)?;
        }
        self.book.settle_echoes(known, &self.targets);
        self.hand_out(tell)
    }

    /// Reads what was delivered.
    fn gather(&mut self) {
        let Self { source, book, targets, is_changed, awaited, .. } = self;
        while let Some(record) = source.take_next() {
            match record.seen() {
                Some(DeliverySeen::Offer(offer, name)) => {
                    *is_changed |= offer.kind == ADDED;
                    awaited.iter_mut().for_each(|awaited| awaited.take(&offer, name));
                    book.take(&offer, name, targets);
                }
                Some(DeliverySeen::Chunk(chunk)) => book.take_read(&chunk),
                None => {}
            }
        }
        targets.receive(|slot, heard| {
            // Of a change at about the same time it would seem to be the event.
            let is_own = awaited.iter_mut().any(|awaited| awaited.receive(slot, &heard));
            if !is_own {
                book.receive(slot, heard);
            }
        });
        self.gap_until = self.gap_until.max(targets.gap_until());
    }

    /// Which of some watches an event of these kinds reaches while `make` makes it. Each watch comes with the name that the file
    /// has in a watched directory.
    pub(super) fn witness<R>(
        &mut self,
        watches: &[(WatchId, &[u8])],
        kinds: u32,
        make: impl FnOnce() -> R,
    ) -> (R, Vec<Arrival>) {
        // What stand-ins got before is not taken for it.
        self.gather();
        let (from, lost) = (mono_ns(), self.source.lost());
        let slots: Vec<_> = watches.iter().map(|(watch, _)| self.slot_of(*watch)).collect();
        let event = |(slot, (watch, name)): (&Option<u32>, &(WatchId, &[u8]))| {
            // No instance has this slot.
            AwaitedEvent::new(slot.unwrap_or(0), watch.wd, kinds, name, from)
        };
        self.awaited = slots.iter().zip(watches).map(event).collect();
        // A program may exit with the event.
        let stand_ins: Vec<_> =
            slots.iter().zip(watches).map(|(slot, one)| self.stand_in(*slot, one.0)).collect();
        let made = make();
        self.gather();
        let is_complete = self.source.lost() == lost;
        let awaited = std::mem::take(&mut self.awaited);
        let mut arrivals = Vec::with_capacity(awaited.len());
        for (at, awaited) in awaited.iter().enumerate() {
            arrivals.push(match slots[at] {
                Some(slot) if self.source.sees_offers() => {
                    awaited.by_offers(is_complete && self.slot_of(watches[at].0) == Some(slot))
                }
                Some(_) => {
                    let StandIn { has_watch, has_room } = stand_ins[at];
                    awaited.by_stand_in(has_watch && self.gap_until < from, has_room)
                }
                None => Arrival::default(),
            });
        }
        (made, arrivals)
    }

    /// What the stand-in of an instance can say about a watch from now on.
    fn stand_in(&self, slot: Option<u32>, watch: WatchId) -> StandIn {
        let Some(slot) = slot.filter(|_| !self.source.sees_offers()) else { return StandIn::default() };
        let has_watch = self.watch(watch).is_some_and(|watch| watch.doubled.is_some());
        let most = self.targets.unread(slot).map(|bytes| bytes / EVENT_BYTES);
        let has_room = most.zip(Limits::read().queued).is_some_and(|(most, limit)| most < limit);
        StandIn { has_watch, has_room }
    }

    /// A watch that is there.
    pub(super) fn watch(&self, watch: WatchId) -> Option<&Watch> {
        let instance = self.targets.of_slot(self.slot_of(watch)?)?;
        instance.watch(watch.wd).filter(|seen| seen.ino == watch.ino && seen.gone.is_none())
    }

    fn slot_of(&self, watch: WatchId) -> Option<u32> {
        let is_it =
            |one: &&Instance| one.slot != 0 && one.at() == (watch.pid, watch.fd) && one.closed.is_none();
        self.targets.instances().find(is_it).map(|one| one.slot)
    }

    fn hand_out(&mut self, tell: Tell<'_>) -> io::Result<()> {
        self.book.decided().into_iter().try_for_each(|decided| tell(Followed::Decided(decided)))
    }

    fn look(&mut self, tell: Tell<'_>) -> io::Result<()> {
        self.targets.look(&mut self.source);
        if let Traced::OfWatches { paths, recursive } = &self.traced {
            let is_traced =
                |dir: &Path| paths.iter().any(|path| path == dir || *recursive && dir.starts_with(path));
            for note in self.targets.untraced(is_traced) {
                tell(Followed::Note(note))?;
            }
        }
        if self.book.is_due() {
            self.settle(false);
        }
        if let Some(patience_ns) = self.patience_ns {
            self.book.decide(mono_ns().saturating_sub(patience_ns), &self.targets);
        }
        self.uses(tell)?;
        self.book.forget_before(mono_ns().saturating_sub(KEPT_NS));
        let (exited, is_alone) = self.targets.exited();
        self.is_alone |= is_alone;
        for note in exited {
            tell(Followed::Note(note))?;
        }
        if let Some(note) = self.targets.short() {
            tell(Followed::Note(note))?;
        }
        self.book.look_for_empty(&self.targets);
        self.looked = Instant::now();
        Ok(())
    }

    /// Reports which files were used meanwhile.
    fn uses(&mut self, tell: Tell<'_>) -> io::Result<()> {
        let Self { source, book, targets, .. } = self;
        let seen = book.uses.seen(mono_ns(), |dev, ino| targets.usage(source, dev, ino));
        seen.iter().try_for_each(|seen| tell(Followed::Used(seen)))
    }

    fn settle(&mut self, is_end: bool) {
        let Self { source, book, targets, .. } = self;
        book.settle(is_end, targets, |dev, ino| targets.usage(source, dev, ino));
    }

    /// The end: all changes were judged, and what is not known now never is.
    pub(super) fn finish(&mut self, tell: Tell<'_>) -> io::Result<()> {
        self.targets.look(&mut self.source);
        self.settle(true);
        self.book.finish(&self.targets);
        self.hand_out(tell)?;
        self.uses(tell)
    }

    /// What the programs did not do with what they read; call it after [`Self::finish`].
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        let Self { source, book, targets, .. } = self;
        book.findings(|dev, ino| targets.usage(source, dev, ino))
    }

    /// The whole run in numbers.
    pub(super) fn summary(&mut self) -> Summary {
        Summary { records_lost: self.lost_records, ..self.book.summary() }
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}
