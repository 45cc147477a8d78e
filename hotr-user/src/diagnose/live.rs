//! What becomes of each change while it runs: the live part of `hotr diagnose`.
//!
//! In: processes that the user names. Out: for each change that concerns one of their inotify instances a
//! [`Verdict`]: delivered and read, merged, dropped, never sent, or unread. Changes are those of a trace of its own;
//! deliveries those that the kernel makes to the very instances. A delivery is made before the end of the change, so once
//! the change was read, all deliveries that were made for it can be read: what is not there was not made.

mod application;
mod event_matcher;
mod expected_events;
mod explain;
mod histogram;
mod instance;
mod machine;
mod offers;
mod queue;
mod rewatch;
mod roots;
mod scan;
mod stand_in_instances;
mod summary;
mod target;
mod uses;
mod verdict;
mod verdicts;

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hotr_common::delivery::ADDED;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::finding::{Finding, Target};
use super::select::{self, Choice};
use crate::ending;
use crate::kernel::load::Tier;
use crate::options::{Channels, TierChoice, TraceOptions};
use crate::session::Session;
use crate::source::ebpf::{DeliverySeen, DeliverySource};
use crate::source::mono_ns;
pub use histogram::Histogram;
use hotr_events::Change;
use hotr_events::LossReason;
use hotr_events::{Raw, Report};
pub use machine::{Machine, Mounted};
use roots::roots;
pub use summary::{Row, Summary};
use target::Targets;
pub use uses::Use;
use verdict::ReportedChange;
pub use verdict::{State, Verdict};
use verdicts::VerdictJoiner;

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processes.
    pub choices: Vec<Choice>,
    /// Trees of which every change matters; empty for what the processes watch.
    pub paths: Vec<PathBuf>,
    /// Kind of programs.
    pub tier: TierChoice,
    /// When it ends by itself.
    pub duration: Option<Duration>,
}

/// Why there is no live diagnosis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processes cannot be looked at.
    #[error(transparent)]
    Select(#[from] select::Error),
    /// Nothing is watched.
    #[error("diagnose live: {who} watches nothing with inotify; name a PATH, or leave out --live")]
    NoWatch {
        /// The processes.
        who: String,
    },
    /// The kernel runs no program where events are queued.
    #[error(
        "diagnose live: the kernel refuses its programs: {cause}; leave out --live for what can be seen without"
    )]
    NoPrograms {
        /// The kernel's answers.
        cause: String,
    },
    /// The changes cannot be traced.
    #[error(transparent)]
    Trace(#[from] crate::error::Error),
}

/// What a live diagnosis reports while it runs.
#[derive(Debug)]
pub enum LiveReport<'a> {
    /// From now on nothing is missed.
    Ready {
        /// Kind of the programs that see deliveries.
        tier: Tier,
        /// The instances, each with the number of its watches.
        instances: Vec<(Target, usize)>,
        /// Directories whose changes are judged.
        paths: Vec<PathBuf>,
    },
    /// A remark.
    Note(String),
    /// Something was not seen.
    Lost {
        /// [`LossReason::DeliveriesSkipped`]: a change that lacks a delivery is not judged for a second. Or why the trace lost
        /// changes: those are not judged.
        reason: LossReason,
        /// How many records, or 1 when the kernel only says "some".
        count: u64,
    },
    /// A change that concerns a target; its number is one more than that of the one before.
    Change(&'a Change),
    /// What became of one.
    Verdict(&'a Verdict),
    /// A file was used after an event of it was read.
    Used(&'a Use),
    /// At the end: what a program did not do with events that it read.
    Finding(&'a Finding),
    /// The end.
    Summary(&'a Summary),
}

/// How often instances and watches are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until `end` is ready or the duration is over. Whether a change was lost.
///
/// # Errors
/// When there is no such process, nothing is watched, the kernel refuses the programs, or `tell` fails.
pub async fn run(
    options: Options,
    tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>,
    end: impl Future<Output = ()>,
) -> Result<bool, Error> {
    let started = Live::start(options);
    if ending::is_asked() {
        // What takes long was given up, so nothing was followed.
        return Ok(false);
    }
    let mut live = started?;
    let over = live.options.duration.map(|duration| Instant::now() + duration);
    live.ready(tell)?;
    let wake = live.wake()?;
    let mut end = std::pin::pin!(end);
    loop {
        let left =
            over.map_or(LOOK_EVERY, |over| over.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
        let reports = tokio::select! {
            () = &mut end => break,
            reports = live.session.next() => reports?,
            ready = wake.readable() => {
                if let Ok(mut guard) = ready {
                    guard.clear_ready();
                }
                Vec::new()
            }
            () = tokio::time::sleep(left) => Vec::new(),
        };
        live.turn(reports, tell)?;
        if live.is_alone {
            break;
        }
        if over.is_some_and(|over| Instant::now() >= over) {
            break;
        }
    }
    live.finish(tell)
}

struct Live {
    options: Options,
    session: Session,
    source: DeliverySource,
    targets: Targets,
    book: VerdictJoiner,
    paths: Vec<PathBuf>,
    /// Whether all that is below the paths is traced.
    recursive: bool,
    looked: Instant,
    started: Instant,
    /// As the programs count, which they may have begun to before anything was followed.
    lost: u64,
    lost_records: u64,
    /// All processes have exited.
    is_alone: bool,
    /// When the changes were read the last time.
    read_until: Option<u64>,
    /// Changes up to then may lack a delivery whose record was lost.
    gap_until: u64,
}

impl Live {
    fn start(options: Options) -> Result<Self, Error> {
        let mut targets = Targets::new(&options.choices)?;
        let (paths, recursive) = match options.paths.as_slice() {
            [] => roots(targets.directories()),
            paths => (absolute(paths), true),
        };
        if paths.is_empty() {
            return Err(Error::NoWatch { who: targets.names() });
        }
        let mut source = DeliverySource::start(options.tier).map_err(|cause| Error::NoPrograms { cause })?;
        // Where probes were taken, the kernel skips programs on functions, and changes would be missing.
        let tier = match (options.tier, source.tier()) {
            (TierChoice::Auto, Tier::Kprobe) => TierChoice::Kprobe,
            (chosen, _) => chosen,
        };
        let session = Session::start(TraceOptions {
            recursive,
            channels: Channels { ebpf: true, inotify: false, required: true },
            tier,
            raw: true,
            at_once: true,
            ..TraceOptions::new(paths.clone())
        })?;
        if source.tier() == Tier::Tracepoint {
            // Nothing says what is queued: instances of hotr's own stand in for the targets'.
            targets.double();
            targets.look(&mut source);
        }
        targets.follow(&mut source);
        let lost = source.lost();
        let trees = if options.paths.is_empty() { Vec::new() } else { paths.clone() };
        let book = VerdictJoiner::new(trees, targets.are_doubled());
        let now = Instant::now();
        Ok(Self {
            options,
            session,
            source,
            targets,
            book,
            paths,
            recursive,
            looked: now,
            started: now,
            lost,
            lost_records: 0,
            is_alone: false,
            read_until: None,
            gap_until: 0,
        })
    }

    fn ready(&mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<(), Error> {
        let _ = self.session.pending();
        let instances = self.targets.instances().map(|one| (one.target(None), one.watches.len())).collect();
        let ready = LiveReport::Ready { tier: self.source.tier(), instances, paths: self.paths.clone() };
        tell(ready).map_err(output)?;
        if let Some(why) = self.source.blind() {
            let what = "what the processes do with events that they have read is not seen";
            tell(LiveReport::Note(format!("{what}: {why}"))).map_err(output)?;
        }
        Ok(())
    }

    fn wake(&self) -> Result<AsyncFd<OwnedFd>, Error> {
        let failed = |source| crate::error::Error::Os {
            operation: "wait for",
            object: "deliveries".to_owned(),
            source,
            next: "raise the limit of open files",
        };
        let own = self.source.as_fd().try_clone_to_owned().map_err(failed)?;
        // SAFETY: the `AsyncFd` owns the descriptor, and keeps it open.
        let wake = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        Ok(wake.map_err(|error| failed(error.into()))?)
    }

    /// Changes first, then deliveries: the order is the proof.
    fn turn(
        &mut self,
        reports: Vec<Report>,
        tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut made = Vec::new();
        for report in reports {
            match report {
                Report::Raw(Raw::Ebpf { made_ns, change, .. }) => {
                    made.push(ReportedChange { made_ns, change: *change })
                }
                Report::Loss { reason, count, .. } => {
                    tell(LiveReport::Lost { reason, count }).map_err(output)?
                }
                _ => {}
            }
        }
        let Self { source, book, targets, .. } = self;
        // All changes that were made before this have been handed over.
        let known = self.read_until.replace(mono_ns()).unwrap_or(0);
        let mut is_changed = false;
        source.drain(|seen| match seen {
            DeliverySeen::Offer(offer, name) => {
                is_changed |= offer.kind == ADDED;
                book.take(offer, name, targets);
            }
            DeliverySeen::Chunk(chunk) => book.take_read(chunk),
        });
        targets.receive(|slot, heard| book.receive(slot, heard));
        self.gap_until = self.gap_until.max(targets.gap_until());
        let lost = source.lost();
        if lost != self.lost {
            let count = lost.saturating_sub(self.lost);
            tell(LiveReport::Lost { reason: LossReason::DeliveriesSkipped, count }).map_err(output)?;
            (self.lost, self.gap_until) = (lost, mono_ns() + GAP_NS);
            self.lost_records += count;
        }
        let must_look =
            is_changed || self.looked.elapsed() >= LOOK_EVERY || self.book.lacks(&made, &self.targets);
        if must_look {
            self.look(tell)?;
        }
        for one in made {
            let concerned = self.book.judge(&one, &self.targets, one.made_ns <= self.gap_until);
            if concerned {
                tell(LiveReport::Change(&one.change)).map_err(output)?;
            }
            self.hand_out(tell)?;
        }
        self.book.settle_echoes(known, &self.targets);
        self.hand_out(tell)
    }

    fn hand_out(&mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<(), Error> {
        for verdict in self.book.verdicts() {
            tell(LiveReport::Verdict(&verdict)).map_err(output)?;
        }
        Ok(())
    }

    fn look(&mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<(), Error> {
        self.targets.look(&mut self.source);
        if self.options.paths.is_empty() {
            let is_traced = |dir: &Path| {
                self.paths.iter().any(|path| path == dir || self.recursive && dir.starts_with(path))
            };
            for note in self.targets.untraced(is_traced) {
                tell(LiveReport::Note(note)).map_err(output)?;
            }
        }
        if self.book.is_due() {
            self.settle(false);
        }
        self.uses(tell)?;
        self.book.forget_before(mono_ns().saturating_sub(KEPT_NS));
        let (exited, is_alone) = self.targets.exited();
        self.is_alone |= is_alone;
        for note in exited {
            tell(LiveReport::Note(note)).map_err(output)?;
        }
        if let Some(note) = self.targets.short() {
            tell(LiveReport::Note(note)).map_err(output)?;
        }
        self.book.look_for_empty(&self.targets);
        self.looked = Instant::now();
        Ok(())
    }

    /// Reports which files were used meanwhile.
    fn uses(&mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<(), Error> {
        let Self { source, book, targets, .. } = self;
        for seen in book.uses.seen(mono_ns(), |dev, ino| targets.usage(source, dev, ino)) {
            tell(LiveReport::Used(&seen)).map_err(output)?;
        }
        Ok(())
    }

    fn settle(&mut self, is_end: bool) {
        let Self { source, book, targets, .. } = self;
        book.settle(is_end, targets, |dev, ino| targets.usage(source, dev, ino));
    }

    fn finish(mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<bool, Error> {
        let mut reports = Vec::new();
        self.session.finish(|more| {
            reports.extend(more);
            Ok(())
        })?;
        self.turn(reports, tell)?;
        self.targets.look(&mut self.source);
        self.settle(true);
        self.book.finish(&self.targets);
        self.hand_out(tell)?;
        self.uses(tell)?;
        let Self { source, book, targets, .. } = &mut self;
        for finding in book.findings(|dev, ino| targets.usage(source, dev, ino)) {
            tell(LiveReport::Finding(&finding)).map_err(output)?;
        }
        let mut summary = self.book.summary();
        summary.records_lost = self.lost_records;
        summary.took = self.started.elapsed();
        tell(LiveReport::Summary(&summary)).map_err(output)?;
        Ok(summary.is_bad())
    }
}

/// How much longer than its delivery a change may take.
const GAP_NS: u64 = 1_000_000_000;

/// How long a delivery waits for the change that it belongs to. They come together; those of events that are no change
/// (opens, reads) belong to none.
const KEPT_NS: u64 = 10_000_000_000;

fn absolute(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect()
}

fn output(error: io::Error) -> Error {
    crate::error::Error::Output(error).into()
}
