//! One run of `hotr trace`: the channels, and what joins them.

mod chores;
mod finish;
mod heartbeat;
mod losses;
mod named_paths;
mod ready;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::ebpf_channel::EbpfChannel;
use super::inotify_channel::InotifyChannel;
use super::judge;
use super::observation::Observation;
use super::rescan::{ReportedSince, Rescan};
use super::roots::OTHER_CHANNEL;
use super::storms::Trailing;
use super::subscription::Subscription;
use super::verdict::{Verdict, Watcher};
use crate::ending;
use crate::error::Error;
use crate::options::{OwnFiles, TraceOptions};
use crate::pipeline::inotify_changes::ReceivedChange;
use crate::source::Clock;
use crate::source::difference::Difference;
use crate::source::heartbeat::Heartbeat;
use crate::source::mono_ns;
use hotr_events::Cause;
use hotr_events::LossReason;
use hotr_events::{Change, Channel, FileType, Missed, Op};
use hotr_events::{Raw, Report};

pub use heartbeat::HeartbeatOutcome;

/// How often losses of the kernel side are checked while changes come.
const LOSS_CHECK: u64 = 250_000_000;
/// The same while none come.
const IDLE_LOSS_CHECK: u64 = 2_000_000_000;

/// See the module.
pub(super) struct Engine {
    options: TraceOptions,
    ebpf: Option<EbpfChannel>,
    inotify: Option<InotifyChannel>,
    subscription: Subscription,
    ledger: ReportedSince,
    search: Option<Rescan>,
    /// What a look at all files found, to be reported.
    found: VecDeque<Difference>,
    /// Directories that the last search did not look into, as was reported.
    too_deep: u64,
    observed: Vec<Observation>,
    /// Files hotr itself writes to: reporting their changes would never end.
    own: Vec<(u64, u64)>,
    started: Instant,
    /// `CLOCK_MONOTONIC` nanoseconds.
    loss_check: Option<u64>,
    /// More was there than one turn reads.
    more: bool,
    /// Events of inotify that the last turn read.
    heard: usize,
    /// When the last record that was read was made, `CLOCK_MONOTONIC` nanoseconds.
    read_ns: u64,
    /// When the last turn began, `CLOCK_MONOTONIC` nanoseconds.
    turned: u64,
    /// Something happened to roots or mounts that the chores have not handled yet: since when, `CLOCK_MONOTONIC`
    /// nanoseconds.
    roots_news: Option<u64>,
    /// What became of roots, as the kernel reported last.
    told_gone: HashMap<PathBuf, LossReason>,
    /// See [`Self::take_remounted`].
    remounted: Vec<PathBuf>,
    /// inotify's watches are on what was there before something was mounted or unmounted.
    watches_are_old: bool,
    /// Directories without a watch, as last reported.
    told_uncovered: u64,
    /// A descriptor was replaced.
    renewed: bool,
    heartbeat: Option<Heartbeat>,
    revival: Option<heartbeat::ChannelRestart>,
}

impl Engine {
    /// Starts the channels; `ready` is the first report.
    pub(super) fn start(options: TraceOptions) -> Result<Self, Error> {
        let mut off = Vec::new();
        // inotify first: what the programs then see was made while it listened.
        let mut inotify = None;
        if options.channels.inotify {
            match InotifyChannel::start(&options) {
                Ok(started) => inotify = Some(started),
                Err(error) if options.channels.required => return Err(error),
                Err(error) => off.push((Channel::Inotify, error)),
            }
        }
        let mut ebpf = None;
        if options.channels.ebpf {
            match EbpfChannel::start(&options) {
                Ok(side) => ebpf = Some(side),
                Err(error) if options.channels.required => return Err(error),
                Err(error @ Error::Channel { .. }) => off.push((Channel::Ebpf, error)),
                Err(error) => return Err(error),
            }
        }
        if ebpf.is_none() {
            match &mut inotify {
                Some(inotify) if !options.audited => inotify.keep_baseline(&options)?,
                Some(_) => {}
                // Nothing runs: what stopped the first channel is the answer.
                None => return Err(off.swap_remove(0).1),
            }
        }
        if let (None, Some(inotify)) = (&ebpf, &mut inotify) {
            inotify.is_alone();
        }
        if let (Some(ebpf), Some(inotify)) = (&mut ebpf, &mut inotify) {
            ebpf.listen_to(inotify);
            inotify.forget()?;
        }
        let mut engine = Self {
            subscription: Subscription::new(&options),
            options,
            ebpf,
            inotify,
            ledger: ReportedSince::new(),
            search: None,
            found: VecDeque::new(),
            too_deep: 0,
            observed: Vec::new(),
            own: own_outputs(),
            started: Instant::now(),
            loss_check: Some(mono_ns() + IDLE_LOSS_CHECK),
            more: false,
            heard: 0,
            turned: 0,
            read_ns: 0,
            roots_news: None,
            told_gone: HashMap::new(),
            remounted: Vec::new(),
            watches_are_old: false,
            told_uncovered: 0,
            renewed: false,
            heartbeat: None,
            revival: None,
        };
        engine.ready(off.into_iter().map(|(channel, error)| (channel, cause(error))).collect());
        // What became of the roots since they were registered. Once `ready` is printed they are left alone.
        engine.ebpf.iter_mut().for_each(EbpfChannel::look_now);
        engine.follow_roots(&Clock::now())?;
        Ok(engine)
    }

    /// Descriptors to wait for, and whether one has news of the roots, not of changes.
    pub(super) fn descriptors(&self) -> Vec<(RawFd, bool)> {
        let mut fds = Vec::new();
        if let Some(ebpf) = &self.ebpf {
            fds.extend(ebpf.descriptors());
        }
        if let Some(inotify) = &self.inotify {
            fds.push((inotify.source.as_fd().as_raw_fd(), false));
        }
        fds
    }

    /// Looks where the paths lead when chores are done next.
    pub(super) fn look_at_roots(&mut self) {
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.look_now();
        }
        if let Some(inotify) = &mut self.inotify {
            inotify.look_now();
        }
    }

    /// Paths at which something was mounted or unmounted.
    pub(super) fn take_remounted(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.remounted)
    }

    /// Whether [`Self::descriptors`] has other ones than at the last call.
    pub(super) fn take_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// Whether all that was asked for has been reported.
    pub(super) const fn has_enough(&self) -> bool {
        self.subscription.has_enough()
    }

    /// Whether more is there than the last turn read.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Reports made since the last call.
    pub(super) fn reports(&mut self) -> Vec<Report> {
        self.subscription.take()
    }

    /// Reads changes and judges them, and nothing else: reports wait for it. `roots`: there may be news of roots or
    /// mounts.
    pub(super) fn turn(&mut self, roots: bool) -> Result<(), Error> {
        let clock = Clock::now();
        self.turned = clock.mono_ns();
        self.more = false;
        if let Some(ebpf) = &mut self.ebpf {
            // It is checked only after what the kernel says of roots was read: that is more.
            let mut news = roots || ebpf.lacks_roots() || ebpf.must_look(clock.mono_ns());
            if news || self.roots_news.is_some() {
                // What is said of a root that disappears is read before the root is forgotten.
                ebpf.roots.notice();
            }
            self.more = ebpf.read(&clock, self.heard, &mut self.observed);
            news |= ebpf.roots.has_news();
            self.roots_news = self.roots_news.or_else(|| news.then(|| clock.mono_ns()));
        }
        self.listen(&clock)?;
        self.judge_all(&clock);
        if self.ebpf.is_none() {
            self.hear_alone(&clock)?;
        } else if self.subscription.has_reports() {
            let soon = clock.mono_ns() + LOSS_CHECK;
            self.loss_check = Some(self.loss_check.map_or(soon, |at| at.min(soon)));
        }
        Ok(())
    }

    fn listen(&mut self, clock: &Clock) -> Result<(), Error> {
        let Some(inotify) = &mut self.inotify else { return Ok(()) };
        let raw = self.options.raw;
        let (subscription, own) = (&mut self.subscription, (&self.own[..], &self.options.outputs));
        let mut records = Vec::new();
        self.heard = 0;
        loop {
            let is_part = inotify.drain(clock, |record| {
                if raw && !is_own(&record, own.0, own.1) {
                    records.push(Report::Raw(record));
                }
            })?;
            if self.ebpf.is_none() {
                // What was read is reported first.
                self.more = is_part;
                break;
            }
            self.heard += inotify.remember();
            if !is_part {
                break;
            }
        }
        if raw {
            // In the order of the channels: eBPF's records were read first.
            for observed in self.observed.drain(..).filter(|observed| !observed.is_gone) {
                subscription.report_raw(raw_report(observed), true);
            }
            records.into_iter().for_each(|record| subscription.report_raw(record, false));
        }
        Ok(())
    }

    fn judge_all(&mut self, clock: &Clock) {
        let mut observed = std::mem::take(&mut self.observed);
        let mut all = observed.drain(..);
        while let Some(mut one) = all.next() {
            if ending::is_over() {
                ending::cut(1 + all.len() as u64);
                break;
            }
            if self.options.raw {
                if !one.is_gone {
                    self.subscription.report_raw(raw_report(one), false);
                }
                continue;
            }
            self.read_ns = one.record.time;
            let before = std::mem::take(&mut one.before);
            if !before.is_empty() {
                self.tell_trailing(before, clock);
            }
            let Some(one) = self.judge(one, clock) else { continue };
            self.ledger.report(&one.change);
            if let Some(ebpf) = &mut self.ebpf {
                ebpf.judged(&one.record, &one.change);
                if matches!(one.change.op, Op::Rename | Op::Remove) {
                    ebpf.renamed(&one.change);
                }
            }
            if self.options.observed {
                self.subscription.report_raw(raw_report(one), true);
                continue;
            }
            let Observation { change, root, .. } = one;
            self.subscription.offer(*change, root, clock.mono_ns());
        }
        drop(all);
        // Its memory serves the next turn.
        self.observed = observed;
    }

    /// Says which channels saw a change; nothing where that is known later.
    fn judge(&mut self, mut one: Observation, clock: &Clock) -> Option<Observation> {
        one.change.seen_by = vec![Channel::Ebpf];
        if let Some(inotify) = &mut self.inotify {
            let at = self.options.paths.get(one.root).map_or(Path::new(""), PathBuf::as_path);
            let roots = &self.options.paths;
            let is_mounted =
                || self.ebpf.as_ref().is_some_and(|ebpf| ebpf.roots.is_mounted_file(&one.change));
            match inotify.verdict(&one, at, is_of_root(roots, &one.change), is_mounted, clock) {
                Verdict::Pending => {
                    if let Some(ebpf) = &mut self.ebpf {
                        ebpf.wait(one);
                    }
                    return None;
                }
                verdict => verdict.mark(Watcher::Own, &mut one.change),
            }
        }
        (!one.is_gone).then_some(one)
    }

    /// Reports what was only counted: by the same way as the record before it, with the same fate.
    fn tell_trailing(&mut self, trailing: Vec<Trailing>, clock: &Clock) {
        for Trailing { mut change, made_ns, is_gone } in trailing {
            change.time = clock.real(made_ns);
            if let Some(inotify) = &mut self.inotify {
                // Explains the events of the counted changes, also those that were not read yet.
                let was_received = inotify.was_received(&change, judge::counted(&change, made_ns));
                // The record before it may be of this very turn, and not be judged yet.
                if was_received && !change.seen_by.contains(&Channel::Inotify) && change.missed_by.is_empty()
                {
                    change.seen_by.push(Channel::Inotify);
                }
            }
            if is_gone {
                continue;
            }
            self.ledger.report(&change);
            self.subscription.offer_anywhere(change, clock.mono_ns());
        }
    }

    /// What only inotify received: everything, where it is the only channel.
    fn hear_alone(&mut self, clock: &Clock) -> Result<(), Error> {
        let Some(inotify) = &mut self.inotify else { return Ok(()) };
        let mut heard = Vec::new();
        if self.ebpf.is_some() {
            if ending::is_over() {
                return Ok(());
            }
            // Under a storm the record of an event may still be unread.
            let read_ns = if self.more { self.read_ns } else { clock.mono_ns() };
            inotify.orphans(read_ns, &mut heard);
            let count = inotify.take_unplaced(false);
            self.tell_unplaced(count);
        } else if self.options.raw {
            inotify.changes(clock.mono_ns(), &mut Vec::new());
            return Ok(());
        } else {
            // The other half of a rename may be in the rest.
            inotify.changes(if self.more { 0 } else { clock.mono_ns() }, &mut heard);
        }
        if self.options.raw { Ok(()) } else { self.report_heard(heard, clock.mono_ns()) }
    }

    /// Whether hotr itself writes to a file.
    fn is_own(&self, id: (u64, u64)) -> bool {
        self.own.contains(&id) || self.options.outputs.contains(id)
    }

    fn report_heard(&mut self, heard: Vec<ReceivedChange>, now_ns: u64) -> Result<(), Error> {
        let mut heard = heard.into_iter();
        while let Some(ReceivedChange { mut change, ctime_ns, .. }) = heard.next() {
            if ending::is_over() {
                ending::cut(1 + heard.len() as u64);
                break;
            }
            if change.id.is_some_and(|id| self.is_own((id.dev, id.ino))) {
                continue;
            }
            if self.ebpf.is_some() {
                if matches!(change.op, Op::Write | Op::Attrib) && change.id.is_none() {
                    // The programs do not report a file without a name, and a name that has disappeared since is
                    // reported as removed; inotify still notifies such a file's directory (fs/notify/fsnotify.c
                    // `__fsnotify_parent`).
                    continue;
                }
                change.missed_by.push(Missed {
                    channel: Channel::Ebpf,
                    cause: Cause::NoRecord,
                    why: Cause::NoRecord.sentence().into(),
                });
            }
            if self.ebpf.is_some() {
                self.ledger.report(&change);
            } else if let Some(inotify) = &mut self.inotify {
                inotify.reported(&change, ctime_ns);
            }
            self.subscription.offer_anywhere(change, now_ns);
        }
        Ok(())
    }
}

/// Whether a root itself was renamed or removed: inotify is notified of that by the root's own watch, of a removal when its
/// inode goes.
fn is_of_root(roots: &[PathBuf], change: &Change) -> bool {
    let name = if change.op == Op::Rename { change.old_path.as_ref() } else { Some(&change.path) };
    matches!(change.op, Op::Rename | Op::Remove) && name.is_some_and(|name| roots.contains(name))
}

/// What to say of a channel that is off in `ready`.
fn cause(error: Error) -> String {
    match error {
        Error::Channel { cause, next, .. } if next == OTHER_CHANNEL => cause,
        Error::Channel { cause, next, .. } => format!("{cause}; {next}"),
        error => error.to_string(),
    }
}

fn raw_report(observed: Observation) -> Report {
    let tier = crate::kernel::load::Tier::from_u8(observed.record.tier);
    Report::Raw(Raw::Ebpf {
        time: observed.change.time,
        made_ns: observed.record.time,
        hook: crate::kernel::table::function_of(observed.hook).into(),
        tier: tier.as_str().into(),
        change: observed.change,
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
fn is_own(record: &Raw, own: &[(u64, u64)], outputs: &OwnFiles) -> bool {
    let Raw::Inotify { path, .. } = record else { return false };
    let is_it = |id: (u64, u64)| own.contains(&id) || outputs.contains(id);
    (!own.is_empty() || !outputs.is_empty())
        && statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO)
            .is_ok_and(|stat| is_it((crate::source::device(&stat), stat.stx_ino)))
}
