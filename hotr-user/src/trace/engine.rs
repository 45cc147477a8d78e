//! One run of `hotr trace`: the channels, and what joins them.

mod chores;
mod losses;
mod pulse;
mod ready;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::clock::Clock;
use super::ear::Ear;
use super::judge::{self, Context};
use super::kernel::{KernelSide, Traced};
use super::rescan::Ledger;
use super::roots::OTHER_CHANNEL;
use super::storms::Trailing;
use crate::error::Error;
use crate::event::{Change, Channel, FileType, Missed, Op};
use crate::options::TraceOptions;
use crate::pipeline::filter::Filter;
use crate::pipeline::heard::Heard;
use crate::pipeline::settle::Settler;
use crate::report::{Raw, Report};
use crate::source::heart::Heart;
use crate::source::mono_ns;

pub use pulse::Pulse;

/// How often losses of the kernel side are asked for while changes come.
const LOSS_CHECK: u64 = 250_000_000;
/// The same while none come.
const IDLE_LOSS_CHECK: u64 = 2_000_000_000;

/// See the module.
pub(super) struct Engine {
    options: TraceOptions,
    filter: Filter,
    kernel: Option<KernelSide>,
    ear: Option<Ear>,
    settler: Settler,
    ledger: Ledger,
    reports: Vec<Report>,
    traced: Vec<Traced>,
    /// Files hotr itself writes to: telling their changes would never end.
    own: Vec<(u64, u64)>,
    changes: u64,
    started: Instant,
    /// `CLOCK_MONOTONIC` nanoseconds.
    loss_check: Option<u64>,
    /// More was there than one turn reads.
    more: bool,
    /// When the last turn began, `CLOCK_MONOTONIC` nanoseconds.
    turned: u64,
    /// Something happened to roots or mounts that the chores have not looked at yet.
    roots_news: bool,
    /// A descriptor was replaced.
    renewed: bool,
    heart: Option<Heart>,
    revival: Option<pulse::Revival>,
}

impl Engine {
    /// Starts the channels; `ready` is the first report.
    pub(super) fn start(options: TraceOptions) -> Result<Self, Error> {
        let mut off = Vec::new();
        // inotify first: what the programs then see was made while it listened.
        let mut ear = None;
        if options.channels.inotify {
            match Ear::start(&options) {
                Ok(started) => ear = Some(started),
                Err(error) if options.channels.required => return Err(error),
                Err(error) => off.push((Channel::Inotify, error)),
            }
        }
        let mut kernel = None;
        if options.channels.ebpf {
            match KernelSide::start(&options) {
                Ok(side) => kernel = Some(side),
                Err(error) if options.channels.required => return Err(error),
                Err(error @ Error::Channel { .. }) => off.push((Channel::Ebpf, error)),
                Err(error) => return Err(error),
            }
        }
        if kernel.is_none() {
            match &mut ear {
                Some(ear) if !options.audited => ear.keep_baseline(&options)?,
                Some(_) => {}
                // Nothing runs: what hindered the first channel is the answer.
                None => return Err(off.swap_remove(0).1),
            }
        }
        if let (Some(kernel), Some(ear)) = (&mut kernel, &mut ear) {
            kernel.listen_to(ear);
            ear.forget()?;
        }
        let mut engine = Self {
            filter: Filter::new(&options),
            options,
            kernel,
            ear,
            settler: Settler::new(),
            ledger: Ledger::new(),
            reports: Vec::new(),
            traced: Vec::new(),
            own: own_outputs(),
            changes: 0,
            started: Instant::now(),
            loss_check: Some(mono_ns() + IDLE_LOSS_CHECK),
            more: false,
            turned: 0,
            roots_news: true,
            renewed: false,
            heart: None,
            revival: None,
        };
        engine.ready(off.into_iter().map(|(channel, error)| (channel, cause(error))).collect());
        Ok(engine)
    }

    /// Descriptors to wait for, and whether what one tells is about the roots, not about changes.
    pub(super) fn descriptors(&self) -> Vec<(RawFd, bool)> {
        let mut fds = Vec::new();
        if let Some(kernel) = &self.kernel {
            fds.extend(kernel.descriptors());
        }
        if let Some(ear) = &self.ear {
            fds.push((ear.source.as_fd().as_raw_fd(), false));
        }
        fds
    }

    /// Whether [`Self::descriptors`] has other ones than at the last call.
    pub(super) fn take_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// Whether more is there than the last turn read.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Reports made since the last call.
    pub(super) fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Reads changes and judges them, and nothing else: reports wait for it. `roots`: there may be news of roots or
    /// mounts.
    pub(super) fn turn(&mut self, roots: bool) -> Result<(), Error> {
        let clock = Clock::now();
        self.turned = clock.mono_ns();
        self.more = false;
        self.roots_news |= roots;
        if let Some(kernel) = &mut self.kernel {
            if self.roots_news {
                // What is told of a root that goes is read before the root is forgotten.
                kernel.roots.notice();
            }
            self.more = kernel.read(&clock, &mut self.traced);
            self.roots_news |= kernel.roots.has_news();
        }
        self.listen(&clock)?;
        self.judge_all(&clock);
        if self.kernel.is_none() {
            self.hear_alone(&clock);
        } else if !self.reports.is_empty() {
            let soon = clock.mono_ns() + LOSS_CHECK;
            self.loss_check = Some(self.loss_check.map_or(soon, |at| at.min(soon)));
        }
        Ok(())
    }

    fn listen(&mut self, clock: &Clock) -> Result<(), Error> {
        let Some(ear) = &mut self.ear else { return Ok(()) };
        let raw = self.options.raw;
        let (reports, own) = (&mut self.reports, &self.own);
        let mut records = Vec::new();
        ear.drain(clock, |record| {
            if raw && !is_own(&record, own) {
                records.push(Report::Raw(record));
            }
        })?;
        if self.kernel.is_some() {
            ear.remember();
        }
        if raw {
            // In the order of the channels: eBPF's records were read first.
            for traced in self.traced.drain(..) {
                self.changes += 1;
                reports.push(raw_report(traced));
            }
            reports.append(&mut records);
        }
        Ok(())
    }

    fn judge_all(&mut self, clock: &Clock) {
        let mut traced = std::mem::take(&mut self.traced);
        for one in traced.drain(..) {
            if self.options.raw {
                self.reports.push(raw_report(one));
                continue;
            }
            let Traced { record, hook, change, root } = one;
            let mut change = *change;
            change.seen_by.push(Channel::Ebpf);
            if let Some(ear) = &mut self.ear {
                if ear.heard(&change, record.time) {
                    change.seen_by.push(Channel::Inotify);
                } else {
                    let dir = change.path.parent().unwrap_or(&change.path);
                    let context = Context { coverage: ear.source.covers(dir), overflowed: ear.overflowed };
                    change.missed_by.push(judge::missed(&change, &record, hook, &context));
                }
            }
            self.ledger.report(&change);
            if let Some(kernel) = &mut self.kernel {
                kernel.judged(&record, &change);
                if matches!(change.op, Op::Rename | Op::Remove) {
                    let mut counted = Vec::new();
                    kernel.renamed(&change, &mut counted);
                    self.tell_trailing(counted, clock);
                }
            }
            if self.keep(&change, root) {
                self.settle(change, clock.mono_ns());
            }
        }
        // Its memory serves the next turn.
        self.traced = traced;
    }

    /// Reports what was only counted: by the same way as the record before it, with the same fate.
    fn tell_trailing(&mut self, trailing: Vec<Trailing>, clock: &Clock) {
        for Trailing { mut change, made_ns } in trailing {
            change.time = clock.real(made_ns);
            if let Some(ear) = &mut self.ear {
                // Uses up the events of the counted changes.
                ear.heard(&change, made_ns);
            }
            self.ledger.report(&change);
            let root = self.options.paths.iter().position(|root| change.path.starts_with(root));
            if root.is_some_and(|root| self.keep(&change, root)) {
                self.settle(change, clock.mono_ns());
            }
        }
    }

    fn keep(&self, change: &Change, root: usize) -> bool {
        self.options.paths.get(root).is_some_and(|root| self.filter.keep(change, root))
    }

    fn settle(&mut self, change: Change, now_ns: u64) {
        if self.options.at_once {
            return self.emit_all(vec![change]);
        }
        let mut out = Vec::new();
        self.settler.push(change, now_ns, &mut out);
        self.emit_all(out);
    }

    fn emit_all(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.changes += 1;
            self.reports.push(Report::Change(Box::new(change)));
        }
    }

    /// What inotify alone heard: everything, where it is the only channel.
    fn hear_alone(&mut self, clock: &Clock) {
        let Some(ear) = &mut self.ear else { return };
        let mut heard = Vec::new();
        if self.kernel.is_some() {
            ear.orphans(clock.mono_ns(), &mut heard);
        } else if self.options.raw {
            ear.changes(clock.mono_ns(), &mut Vec::new());
            return;
        } else {
            ear.changes(clock.mono_ns(), &mut heard);
        }
        if !self.options.raw {
            self.report_heard(heard, clock.mono_ns());
        }
    }

    fn report_heard(&mut self, heard: Vec<Heard>, now_ns: u64) {
        for Heard { mut change, .. } in heard {
            if change.id.is_some_and(|id| self.own.contains(&(id.dev, id.ino))) {
                continue;
            }
            if self.kernel.is_some() {
                if matches!(change.op, Op::Write | Op::Attrib) && change.id.is_none() {
                    // The programs do not tell of a file without a name, and a name that has gone since is told as
                    // removed; inotify still tells such a file's directory (fs/notify/fsnotify.c
                    // `__fsnotify_parent`).
                    continue;
                }
                change.missed_by.push(Missed {
                    channel: Channel::Ebpf,
                    cause: "no-record",
                    why: "no hook saw it: made elsewhere (network, another kernel path), or its record was lost".into(),
                });
            }
            let root = self.options.paths.iter().position(|root| change.path.starts_with(root));
            if root.is_some_and(|root| self.keep(&change, root)) {
                self.settle(change, now_ns);
            }
        }
    }

    /// The last reports: what is still held, and the summary.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        loop {
            self.whole_turn()?;
            if !self.more {
                break;
            }
        }
        let clock = Clock::now();
        let mut trailing = Vec::new();
        if let Some(kernel) = &mut self.kernel {
            kernel.trailing(clock.mono_ns(), true, &mut trailing);
        }
        self.tell_trailing(trailing, &clock);
        if let Some(ear) = &mut self.ear
            && self.kernel.is_none()
        {
            let heard = ear.finish();
            self.report_heard(heard, clock.mono_ns());
        }
        self.check_kernel(true);
        if self.ledger.is_short() {
            self.rescan();
        }
        let held = self.settler.finish();
        self.emit_all(held);
        self.reports.push(Report::Summary {
            changes: self.changes,
            kernel: self.kernel.as_ref().map(KernelSide::totals),
            duration: self.started.elapsed(),
        });
        Ok(())
    }
}

/// What to say of a channel that is off in `ready`.
fn cause(error: Error) -> String {
    match error {
        Error::Channel { cause, next, .. } if next == OTHER_CHANNEL => cause,
        Error::Channel { cause, next, .. } => format!("{cause}; {next}"),
        error => error.to_string(),
    }
}

fn raw_report(traced: Traced) -> Report {
    let tier = crate::kernel::load::Tier::from_u8(traced.record.tier);
    Report::Raw(Raw::Ebpf {
        time: traced.change.time,
        hook: crate::kernel::table::function_of(traced.hook),
        tier: tier.as_str(),
        change: traced.change,
    })
}

/// Device and inode of the regular files stdout and stderr lead to.
pub(crate) fn own_outputs() -> Vec<(u64, u64)> {
    let wanted = StatxFlags::INO | StatxFlags::TYPE;
    let ids = [rustix::stdio::stdout(), rustix::stdio::stderr()].map(|fd| {
        let stat = statx(fd, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
        let is_file = FileType::from_mode(stat.stx_mode.into()) == Some(FileType::File);
        is_file.then(|| (crate::source::device(&stat), stat.stx_ino))
    });
    ids.into_iter().flatten().collect()
}

/// Whether a raw inotify record is of a file that hotr writes to.
fn is_own(record: &Raw, own: &[(u64, u64)]) -> bool {
    let Raw::Inotify { path, .. } = record else { return false };
    !own.is_empty()
        && statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO)
            .is_ok_and(|stat| own.contains(&(crate::source::device(&stat), stat.stx_ino)))
}
