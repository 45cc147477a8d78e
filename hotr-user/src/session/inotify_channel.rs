//! The inotify half of a trace: what was received, as proof for eBPF's records or as the only channel.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use super::reported::Reported;
use super::root_changes::{Became, RootWatch};
use crate::ending;
use crate::error::Error;
use crate::options::TraceOptions;
use crate::pipeline::correlate::{Correlator, EventKind, Known, Reading, RecordedChanges};
use crate::pipeline::inotify_changes::{EventTranslator, ReceivedChange};
use crate::source::Clock;
use crate::source::difference::Difference;
use crate::source::inotify::{InotifyEvent, InotifyOptions, InotifySource, Lost, mask};
use crate::source::poll::{PollOptions, Poller, Progress};
use hotr_events::Raw;
use hotr_events::{Change, Channel, FileType, Op};

/// The running channel.
pub(super) struct InotifyChannel {
    pub(super) source: InotifySource,
    hearing: EventTranslator,
    events: Vec<InotifyEvent>,
    /// When the last reading began that found the queue empty, before that of those events.
    emptied_ns: u64,
    /// The same, of the readings since.
    next_emptied_ns: u64,
    correlator: Correlator<InotifyEvent>,
    /// The state to compare with after a loss; only where no other channel reports what was missed.
    baseline: Option<Poller>,
    /// What was reported since.
    reported: Reported,
    presence: RootWatch,
    /// Events were lost, and the watches are not rebuilt yet.
    pub(super) overflowed: bool,
    /// Events without a record, of files below directories that were renamed about then; not reported yet.
    unplaced: Counted,
    /// Events that nobody knows the records of, because more waited for theirs than there is room for; not reported yet.
    unmatched: Counted,
}

/// Events that are not reported one by one.
#[derive(Default)]
struct Counted {
    count: u64,
    told: Option<Instant>,
}

impl Counted {
    fn take(&mut self, is_end: bool) -> u64 {
        let is_soon = self.told.is_some_and(|told| told.elapsed() < UNPLACED_EVERY);
        if self.count == 0 || is_soon && !is_end {
            return 0;
        }
        self.told = Some(Instant::now());
        std::mem::take(&mut self.count)
    }
}

/// How often events whose path is not sure are reported: a busy tree has many.
const UNPLACED_EVERY: Duration = Duration::from_secs(10);

/// What a rebuild of the watches found.
pub(super) struct Repaired {
    /// Differences to the last known state.
    pub(super) found: Vec<Difference>,
    /// Why roots cannot be watched now; they are looked for.
    pub(super) absent: Vec<Error>,
}

impl InotifyChannel {
    /// Watches all paths.
    pub(super) fn start(options: &TraceOptions) -> Result<Self, Error> {
        let mut source = InotifySource::new(InotifyOptions {
            recursive: options.recursive,
            exclude: options.exclude.clone(),
            ..InotifyOptions::default()
        })?;
        for path in &options.paths {
            source.add_root(path)?;
        }
        Ok(Self {
            source,
            hearing: EventTranslator::new(),
            events: Vec::new(),
            emptied_ns: 0,
            next_emptied_ns: 0,
            correlator: Correlator::default(),
            baseline: None,
            reported: Reported::default(),
            presence: RootWatch::new(&options.paths, crate::source::mono_ns()),
            overflowed: false,
            unplaced: Counted::default(),
            unmatched: Counted::default(),
        })
    }

    /// Watches these paths from now on. Returns whether all watches were made again: what was queued of those is lost, and so
    /// is what happened meanwhile.
    ///
    /// # Errors
    /// When a new path cannot be watched; then the former ones are.
    pub(super) fn set_paths(&mut self, paths: &[PathBuf]) -> Result<bool, Error> {
        let new: Vec<&PathBuf> = paths.iter().filter(|path| !self.source.has_root(path)).collect();
        let mut rebuilt = false;
        for (at, path) in new.iter().enumerate() {
            rebuilt |= self.source.is_above_another(path);
            if let Err(error) = self.source.add_root(path) {
                new[..=at].iter().for_each(|path| self.source.remove_root(path));
                return Err(error);
            }
        }
        if let Some(baseline) = &mut self.baseline {
            baseline.set_roots(paths, &AtomicBool::new(false), &Progress::default()).map_err(scan_error)?;
        }
        for path in self.source.root_paths() {
            if !paths.contains(&path) {
                self.source.remove_root(&path);
            }
        }
        self.presence.set_roots(paths);
        if rebuilt {
            self.correlator.clear(crate::source::mono_ns());
            self.events.clear();
        }
        Ok(rebuilt)
    }

    /// Discards what was received before the programs were attached: it was made before `ready`.
    pub(super) fn forget(&mut self) -> Result<(), Error> {
        while self.source.drain(&mut self.events)?.is_part {
            self.events.clear();
        }
        self.events.clear();
        Ok(())
    }

    /// Looks at all files, because no other channel will report what was missed.
    pub(super) fn keep_baseline(&mut self, options: &TraceOptions) -> Result<(), Error> {
        self.baseline = Some(scan(options)?);
        Ok(())
    }

    /// Reads everything that is queued now; `true`: only a part of it, and the next call goes on. With `raw`, each record is
    /// handed to it as it came.
    pub(super) fn drain(&mut self, clock: &Clock, mut raw: impl FnMut(Raw)) -> Result<bool, Error> {
        let before = self.events.len();
        let asked_ns = crate::source::mono_ns();
        if before == 0 {
            self.emptied_ns = self.next_emptied_ns;
        }
        let drained = self.source.drain(&mut self.events)?;
        if drained.emptied {
            self.next_emptied_ns = asked_ns;
        }
        for event in &self.events[before..] {
            if !event.synthetic {
                raw(Raw::Inotify {
                    time: clock.real(event.read_mono_ns),
                    path: event.path.clone(),
                    mask: event.mask,
                    cookie: event.cookie,
                    wd: event.wd,
                    name: event.name().map(|name| name.as_encoded_bytes().to_vec()),
                });
            }
        }
        Ok(drained.is_part)
    }

    /// Makes what was drained known to the correlation. Returns how many events that is.
    pub(super) fn remember(&mut self) -> usize {
        let count = self.events.len();
        for mut event in self.events.drain(..) {
            // For a directory, its parent receives the same.
            if !event.has_name && !event.of_root {
                continue;
            }
            if event.synthetic {
                let path = std::mem::take(&mut event.path);
                self.correlator.find(path, event.read_mono_ns, event);
                continue;
            }
            let told = if event.is(mask::CREATE) {
                EventKind::Create
            } else if event.is(mask::MODIFY) {
                EventKind::Modify
            } else if event.is(mask::ATTRIB) {
                EventKind::Attrib
            } else if event.is(mask::MOVED_FROM) || (event.of_root && event.is(mask::MOVE_SELF)) {
                EventKind::MovedFrom
            } else if event.is(mask::MOVED_TO) {
                EventKind::MovedTo
            } else if event.is(mask::DELETE) {
                EventKind::Delete
            } else {
                continue;
            };
            if event.is(mask::ISDIR) && matches!(told, EventKind::MovedFrom | EventKind::MovedTo) {
                self.correlator.moved(event.read_mono_ns);
            }
            let path = std::mem::take(&mut event.path);
            // 0 is of what was found without an event.
            let after_ns = self.emptied_ns.max(1);
            let reading = Reading { after_ns, read_ns: event.read_mono_ns };
            self.correlator.receive(path, told, reading, event);
        }
        count
    }

    /// Does the work on received events that can wait.
    pub(super) fn put_away(&mut self) {
        self.correlator.put_away();
    }

    /// Whether inotify received a change; for a rename out of the watched tree its old name counts.
    pub(super) fn was_received(&mut self, change: &Change, made: RecordedChanges) -> bool {
        let told = EventKind::of(change.op);
        let new = self.correlator.covers(&change.path, told, made);
        if change.op == Op::Rename {
            self.correlator.arrived(&change.path);
        }
        let Some(old_path) = &change.old_path else { return new };
        let is_exchange = change.detail.iter().any(|word| word == "exchange");
        // What a system call renamed may be gone before its type can be asked.
        if is_exchange || matches!(change.file_type, Some(FileType::Dir) | None) {
            self.correlator.renamed(made.last_ns, old_path, &change.path);
        }
        let old = self.correlator.covers(old_path, EventKind::MovedFrom, made);
        if is_exchange {
            // The kernel reports an exchange as two renames.
            self.correlator.covers(old_path, EventKind::MovedTo, made);
            self.correlator.covers(&change.path, EventKind::MovedFrom, made);
            self.correlator.arrived(old_path);
        }
        new || old
    }

    /// The change that was recorded at `made_ns` may queue one event more, after its record.
    pub(super) fn expect_again(&mut self, change: &Change, made_ns: u64) {
        self.correlator.may_come_again(&change.path, EventKind::of(change.op), made_ns);
    }

    /// Remembers what is reported, because it is not missed if a loss follows.
    pub(super) fn reported(&mut self, change: &Change, ctime_ns: Option<i64>) {
        let Some(baseline) = &mut self.baseline else { return };
        self.reported.report(change, ctime_ns);
        if self.reported.is_long(baseline.files()) {
            // Nothing was lost since; what is different was reported, or will be.
            baseline.renew(&AtomicBool::new(false), &Progress::default());
            self.reported.clear();
        }
    }

    /// What inotify knows of a change that was found by looking; it is not also reported as an inotify change.
    pub(super) fn found(&mut self, change: &Change) -> Known {
        self.correlator.found(&change.path)
    }

    /// Whether absence is proven for a change that was not received.
    pub(super) fn proves(&self, change: &Change, made: RecordedChanges) -> bool {
        self.correlator.proves(&change.path, EventKind::of(change.op), made)
    }

    /// Events that no record came for within the hold: what eBPF did not see. Those whose path is not certain are only
    /// counted.
    pub(super) fn orphans(&mut self, now_ns: u64, out: &mut Vec<ReceivedChange>) {
        let mut events = Vec::new();
        self.unplaced.count += self.correlator.expire(now_ns, |path, event| {
            events.push(InotifyEvent { path, ..event });
        });
        if !events.is_empty() {
            self.hearing.receive(events, out);
            self.hearing.due(u64::MAX, out);
        }
    }

    /// How many events were left out because their path is not sure; at most every [`UNPLACED_EVERY`], or at the end.
    pub(super) fn take_unplaced(&mut self, is_end: bool) -> u64 {
        self.unplaced.take(is_end)
    }

    /// How many events were forgotten before their records came, because there were too many; as often as those.
    pub(super) fn take_unmatched(&mut self, is_end: bool) -> u64 {
        self.unmatched.count += self.correlator.take_unmatched();
        self.unmatched.take(is_end)
    }

    /// Events as changes, where inotify is the only channel.
    pub(super) fn changes(&mut self, started_ns: u64, out: &mut Vec<ReceivedChange>) {
        self.hearing.receive(self.events.drain(..), out);
        self.hearing.due(started_ns, out);
    }

    /// What is still held at the end.
    pub(super) fn finish(&mut self) -> Vec<ReceivedChange> {
        self.hearing.finish()
    }

    /// When something will be due, `CLOCK_MONOTONIC`.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let look = Some(self.presence.next_deadline());
        [self.hearing.next_deadline(), self.correlator.next_deadline(), look].into_iter().flatten().min()
    }

    /// What became of a root that no event reports, if it is time to look.
    pub(super) fn look_at_roots(&mut self, now_ns: u64) -> Option<Became> {
        self.presence.look(now_ns)
    }

    /// No other channel runs.
    pub(super) fn is_alone(&mut self) {
        self.presence.look_at_mounts();
    }

    /// The other channel received news of a root: [`Self::look_at_roots`] looks at once.
    pub(super) fn look_now(&mut self) {
        self.presence.look_now();
    }

    /// What was lost, if anything; nothing can be proven until [`Self::repair`].
    pub(super) fn take_lost(&mut self) -> Option<Lost> {
        let lost = self.source.take_lost()?;
        self.overflowed = true;
        Some(lost)
    }

    /// Remembers that a root was renamed, and with it everything below it.
    pub(super) fn root_moved(&mut self, path: &Path) -> Change {
        let change = Change {
            detail: vec!["moved-out".into()],
            file_type: Some(FileType::Dir),
            seen_by: vec![Channel::Inotify],
            ..Change::new(Op::Remove, path.to_owned(), SystemTime::now())
        };
        self.reported.report(&change, None);
        change
    }

    /// Rebuilds the watches, and reports what the trees show was missed.
    pub(super) fn repair(&mut self) -> Result<Repaired, Error> {
        self.presence.renew();
        let absent = self.source.rebuild()?;
        self.correlator.clear(crate::source::mono_ns());
        self.events.clear();
        self.overflowed = false;
        let Some(baseline) = &mut self.baseline else { return Ok(Repaired { found: Vec::new(), absent }) };
        let audit = baseline.audit(&AtomicBool::new(false), &Progress::default()).map_err(scan_error)?;
        if !audit.is_complete {
            ending::cut(1);
        }
        let found = self.reported.missed(audit.differences);
        Ok(Repaired { found, absent })
    }
}

fn scan(options: &TraceOptions) -> Result<Poller, Error> {
    let scan = PollOptions {
        recursive: options.recursive,
        exclude: options.exclude.clone(),
        budget: None,
        idle: false,
        ..PollOptions::default()
    };
    Poller::new(&options.paths, scan).map_err(scan_error)
}

fn scan_error(source: std::io::Error) -> Error {
    Error::Os {
        operation: "read",
        object: "the watched trees".to_owned(),
        source,
        next: "watch fewer files, or use the eBPF channel",
    }
}
