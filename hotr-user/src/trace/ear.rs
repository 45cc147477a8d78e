//! The inotify half of a trace: what was heard, for proof beside eBPF or as the only channel.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::clock::Clock;
use super::presence::{Became, Presence};
use crate::error::Error;
use crate::event::{Change, Channel};
use crate::options::TraceOptions;
use crate::pipeline::correlate::{Correlator, Told};
use crate::pipeline::heard::{Heard, Hearing};
use crate::report::Raw;
use crate::source::inotify::{InotifyEvent, InotifyOptions, InotifySource, Lost, mask};
use crate::source::poll::{PollOptions, Poller, Progress};

/// The running channel.
pub(super) struct Ear {
    pub(super) source: InotifySource,
    hearing: Hearing,
    events: Vec<InotifyEvent>,
    /// When the reading of those began.
    asked_ns: u64,
    correlator: Correlator<InotifyEvent>,
    /// The state to compare with after a loss; only where no other channel tells what was missed.
    baseline: Option<Poller>,
    presence: Presence,
    /// Events were lost, and the watches are not rebuilt yet.
    pub(super) overflowed: bool,
}

/// What a rebuild of the watches found.
pub(super) struct Repaired {
    /// Differences to the last known state.
    pub(super) found: Vec<Change>,
    /// Why roots cannot be watched now; they are looked for.
    pub(super) absent: Vec<Error>,
}

impl Ear {
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
            hearing: Hearing::new(),
            events: Vec::new(),
            asked_ns: 0,
            correlator: Correlator::default(),
            baseline: None,
            presence: Presence::new(&options.paths, crate::source::mono_ns()),
            overflowed: false,
        })
    }

    /// Forgets what was heard before the programs were attached: it was made before `ready`.
    pub(super) fn forget(&mut self) -> Result<(), Error> {
        self.source.drain(&mut self.events)?;
        self.events.clear();
        Ok(())
    }

    /// Looks at all files, for no other channel will tell what was missed.
    pub(super) fn keep_baseline(&mut self, options: &TraceOptions) -> Result<(), Error> {
        self.baseline = Some(scan(options)?);
        Ok(())
    }

    /// Reads everything that is queued now. With `raw`, each record is handed to it as it came.
    pub(super) fn drain(&mut self, clock: &Clock, mut raw: impl FnMut(Raw)) -> Result<(), Error> {
        let before = self.events.len();
        if before == 0 {
            self.asked_ns = crate::source::mono_ns();
        }
        self.source.drain(&mut self.events)?;
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
        Ok(())
    }

    /// Makes what was drained known to the correlation.
    pub(super) fn remember(&mut self) {
        for event in self.events.drain(..) {
            // Self events of a directory are told by its parent as well.
            let told = if event.is(mask::CREATE) {
                Told::Create
            } else if event.is(mask::MODIFY) {
                Told::Modify
            } else if event.is(mask::ATTRIB) {
                Told::Attrib
            } else if event.is(mask::MOVED_FROM) {
                Told::MovedFrom
            } else if event.is(mask::MOVED_TO) {
                Told::MovedTo
            } else if event.is(mask::DELETE) {
                Told::Delete
            } else {
                continue;
            };
            let path: PathBuf = event.path.clone();
            self.correlator.hear(&path, told, (self.asked_ns, event.read_mono_ns), event);
        }
    }

    /// Does the work on what was heard that can wait.
    pub(super) fn put_away(&mut self) {
        self.correlator.put_away();
    }

    /// Whether inotify heard a change made at `made_ns`; for a rename out of the watched tree its old name counts.
    pub(super) fn heard(&mut self, change: &Change, made_ns: u64) -> bool {
        let told = Told::of(change.op);
        let new = self.correlator.covers(&change.path, told, made_ns);
        let old = match &change.old_path {
            Some(old) => self.correlator.covers(old, Told::MovedFrom, made_ns),
            None => false,
        };
        if change.detail.iter().any(|word| word == "exchange") {
            // The kernel tells an exchange as two renames.
            if let Some(old) = &change.old_path {
                self.correlator.covers(old, Told::MovedTo, made_ns);
                self.correlator.covers(&change.path, Told::MovedFrom, made_ns);
            }
        }
        new || old
    }

    /// Events that no record came for within the hold: what eBPF did not see.
    pub(super) fn orphans(&mut self, now_ns: u64, out: &mut Vec<Heard>) {
        let mut events = Vec::new();
        self.correlator.expire(now_ns, |event| events.push(event));
        if !events.is_empty() {
            self.hearing.hear(events, out);
            self.hearing.due(u64::MAX, out);
        }
    }

    /// Events as changes, where inotify is the only channel.
    pub(super) fn changes(&mut self, started_ns: u64, out: &mut Vec<Heard>) {
        self.hearing.hear(self.events.drain(..), out);
        self.hearing.due(started_ns, out);
    }

    /// What is still held at the end.
    pub(super) fn finish(&mut self) -> Vec<Heard> {
        self.hearing.finish()
    }

    /// When something will be due, `CLOCK_MONOTONIC`.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let look = Some(self.presence.next_deadline());
        [self.hearing.next_deadline(), self.correlator.next_deadline(), look].into_iter().flatten().min()
    }

    /// What became of a root that no event tells, if it is time to look.
    pub(super) fn look_at_roots(&mut self, now_ns: u64) -> Option<Became> {
        self.presence.look(now_ns)
    }

    /// The other channel was told of a root: [`Self::look_at_roots`] looks at once.
    pub(super) fn look_now(&mut self) {
        self.presence.look_now();
    }

    /// What was lost, if anything; nothing can be proven until [`Self::repair`].
    pub(super) fn take_lost(&mut self) -> Option<Lost> {
        let lost = self.source.take_lost()?;
        self.overflowed = true;
        Some(lost)
    }

    /// Rebuilds the watches, and tells what the trees say was missed.
    pub(super) fn repair(&mut self) -> Result<Repaired, Error> {
        self.presence.renew();
        let absent = self.source.rebuild()?;
        self.correlator.clear();
        self.events.clear();
        self.overflowed = false;
        let Some(baseline) = &mut self.baseline else { return Ok(Repaired { found: Vec::new(), absent }) };
        let audit = baseline.audit(&AtomicBool::new(false), &Progress::default()).map_err(scan_error)?;
        let now = SystemTime::now();
        let found = audit
            .differences
            .into_iter()
            .map(|difference| difference.into_change(Channel::Poll, now))
            .collect();
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
