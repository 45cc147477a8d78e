//! `hotr relay`: announces to other watchers what they missed, where the file itself can be reached.
//!
//! In: a session that hands over every change as it was observed, and processes. Out: for each change that was never sent to
//! a watch of theirs, a [`Relay`] that says whether it was announced, and whether that arrived. A change is announced once to a
//! watch; those that were made before an announcement share it. An open and its close are no change, so no channel of hotr
//! reports them, of whichever process; a modification time that is set to what it is, is left out (`session/announcement.rs`).

mod announcer;
mod layer;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::follower::{Followed, Follower, LOOK_EVERY, Traced, WatchId};
use super::instance::{Instance, Watch};
use super::target::Targets;
use super::verdict::{Decided, Outcome, ReportedChange, State, Verdict};
use super::{absolute, changes};
use crate::diagnose::process::{self, Kind, ProcDir};
use crate::diagnose::select::{self, Choice};
use crate::diagnose::view::bits;
use crate::ending;
use crate::error::Error as TraceError;
use crate::options::{TierChoice, TraceOptions};
use crate::session::{ReportWriter, Session, is_this_program};
use crate::source::ebpf::DeliverySource;
use crate::source::mono_ns;
use announcer::{Announcement, Refused, announce};
use hotr_events::{
    Cause, Channel, LossReason, Op, Raw, Refusal, Relay, RelayEvent, RelayTarget, Report, ReportSink,
};

/// How long a change waits for an event that may come after it. One that comes later follows the announcement.
const PATIENCE: Duration = Duration::from_millis(500);

/// Files whose last announcement is remembered; of more, all are forgotten.
const MOST_FILES: usize = 4096;

/// What a user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files and directories whose changes are relayed.
    pub paths: Vec<PathBuf>,
    /// Watchers; empty for all that watch something there now.
    pub choices: Vec<Choice>,
    /// Kind of programs.
    pub tier: TierChoice,
    /// When it ends by itself.
    pub duration: Option<Duration>,
    /// Files of a lower layer may be copied up.
    pub copy_up: bool,
    /// Watches that ask for `IN_MODIFY` get that.
    pub modify: bool,
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processes cannot be looked at.
    #[error("relay to {}", what(why))]
    Select {
        /// Why not.
        why: select::Error,
    },
    /// None of them watches a path.
    #[error("relay {}: {who} watches it with inotify; `hotr diagnose {}` says who does", path.display(), path.display())]
    NoWatch {
        /// The path.
        path: PathBuf,
        /// `no process`, or which ones do not.
        who: String,
    },
    /// The kernel runs no program where events are queued.
    #[error("relay: the kernel refuses the programs: {cause}; `hotr doctor` says what they need")]
    NoPrograms {
        /// The kernel's answers.
        cause: String,
    },
    /// The changes cannot be traced.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// The message without the name of another command.
fn what(why: &select::Error) -> String {
    let text = why.to_string();
    text.strip_prefix("diagnose ").map_or_else(|| text.clone(), str::to_owned)
}

/// Relays until `end` is ready, the duration is over, all watchers have exited, or the reader of the reports has gone. `note`
/// takes remarks.
///
/// # Errors
/// When there is no such process or none watches a path, the kernel refuses the programs, or as of any trace.
pub async fn relay(
    options: Options,
    printer: &mut dyn ReportSink,
    note: &mut dyn FnMut(&str),
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let over = options.duration;
    let started = Run::start(options);
    if ending::is_asked() {
        // What takes long was given up, so it is not ready; nothing was announced yet.
        return Ok(());
    }
    let mut run = started?;
    let over = over.map(|duration| Instant::now() + duration);
    match run.until(&mut ReportWriter::new(printer), note, end, over).await {
        Err(Error::Trace(TraceError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The last announcement of a file to a watch.
struct Announced {
    /// When it began: changes that were made before share it.
    began_ns: u64,
    /// What was made, unless it was refused.
    event: Option<RelayEvent>,
    result: Result<Arrival, Refused>,
}

struct Run {
    session: Session,
    follower: Follower,
    copy_up: bool,
    modify: bool,
    /// Missed changes that are not dealt with yet.
    missed: Vec<Verdict>,
    /// By watch and path.
    announced: HashMap<(u32, i32, i32, PathBuf), Announced>,
    reports: Vec<Report>,
    relayed: u64,
}

impl Run {
    fn start(options: Options) -> Result<Self, Error> {
        let paths = absolute(&options.paths);
        let select = |why| Error::Select { why };
        let choices = match options.choices.as_slice() {
            [] => watchers_of(&paths).map_err(select)?,
            chosen => chosen.to_vec(),
        };
        if choices.is_empty() {
            let path = options.paths.first().cloned().unwrap_or_default();
            return Err(Error::NoWatch { path, who: "no process".to_owned() });
        }
        let targets = Targets::new(&choices).map_err(select)?;
        for (path, named) in paths.iter().zip(&options.paths) {
            if !targets.all().any(|instance| watches(instance, path)) {
                let who = format!("nothing of {}", targets.names());
                let who = if options.choices.is_empty() { "no process".to_owned() } else { who };
                return Err(Error::NoWatch { path: named.clone(), who });
            }
        }
        let source = DeliverySource::start(options.tier).map_err(|cause| Error::NoPrograms { cause })?;
        let trace = TraceOptions { tier: options.tier, observed: true, ..TraceOptions::new(paths.clone()) };
        let session = changes::start(trace, &source)?;
        let mut follower = Follower::start(source, targets, Traced::Trees(paths));
        follower.hurry(PATIENCE);
        Ok(Self {
            session,
            follower,
            copy_up: options.copy_up,
            modify: options.modify,
            missed: Vec::new(),
            announced: HashMap::new(),
            reports: Vec::new(),
            relayed: 0,
        })
    }

    async fn until(
        &mut self,
        writer: &mut ReportWriter<'_>,
        note: &mut dyn FnMut(&str),
        end: impl Future<Output = ()>,
        over: Option<Instant>,
    ) -> Result<(), Error> {
        let wake = changes::wake(&self.follower)?;
        let first = self.session.pending();
        self.turn(first, note)?;
        writer.write(std::mem::take(&mut self.reports))?;
        let mut end = std::pin::pin!(end);
        loop {
            let left = over.map(|over| over.saturating_duration_since(Instant::now()));
            let wait = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            let reports = tokio::select! {
                biased;
                () = &mut end => break,
                reports = changes::next(&mut self.session, &wake, wait) => reports?,
            };
            self.turn(reports, note)?;
            writer.write(std::mem::take(&mut self.reports))?;
            let is_over = over.is_some_and(|over| Instant::now() >= over);
            if is_over || self.follower.is_alone() || ending::is_asked() {
                break;
            }
        }
        self.finish(note)?;
        writer.write(std::mem::take(&mut self.reports))?;
        Ok(())
    }

    fn turn(&mut self, reports: Vec<Report>, note: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let mut made = Vec::new();
        for report in reports {
            match report {
                Report::Raw(Raw::Ebpf { made_ns, change, .. }) => {
                    made.push(ReportedChange { made_ns, change })
                }
                // Found by looking, after a loss: what became of it is not known.
                Report::Change(_) => {}
                Report::Ready { roots, mut channels } => {
                    channels.push(changes::channel(&self.follower, None));
                    self.reports.push(Report::Ready { roots, channels });
                }
                Report::Summary { kernel, duration, .. } => {
                    self.reports.push(Report::Summary { changes: self.relayed, kernel, duration });
                }
                other => self.reports.push(other),
            }
        }
        let Self { follower, missed, reports, .. } = self;
        let followed = follower.turn(made, &mut |followed| {
            take(followed, missed, reports, note);
            Ok(())
        });
        followed.map_err(TraceError::Output)?;
        self.relay_missed();
        Ok(())
    }

    fn relay_missed(&mut self) {
        let missed = std::mem::take(&mut self.missed);
        for (at, verdict) in missed.iter().enumerate() {
            if ending::is_over() {
                ending::cut((missed.len() - at) as u64);
                break;
            }
            let report = self.relay(verdict, &missed[at + 1..]);
            self.relayed += u64::from(report.is_some());
            self.reports.extend(report);
        }
    }

    /// Announces a change, unless that was done after it was made. Nothing when it is not known which watch missed it. One
    /// event of a file reaches all who watch it, so those of the others that missed it too may need none of their own.
    fn relay(&mut self, verdict: &Verdict, others: &[Verdict]) -> Option<Report> {
        let target = &verdict.target;
        let watch = watch_of(verdict)?;
        let key = key(watch, verdict);
        let made_ns = verdict.sent.made_ns;
        if self.announced.get(&key).is_none_or(|last| last.began_ns <= made_ns) {
            if self.announced.len() >= MOST_FILES {
                self.announced.clear();
            }
            let announced = self.announce(watch, verdict, others);
            self.announced.insert(key.clone(), announced);
        }
        let WatchId { pid, fd, wd, .. } = watch;
        let Announced { began_ns, event, result } = self.announced.get(&key)?;
        let mut relay = Relay {
            time: verdict.time,
            path: verdict.path.clone(),
            to: RelayTarget { pid, comm: target.comm.clone(), fd, wd, container: target.container.clone() },
            cause: cause(verdict),
            event: None,
            announced_us: None,
            arrived: None,
            proof: None,
            refused: None,
            why: None,
        };
        match result {
            Ok(Arrival { arrived, proof }) => {
                relay.event = *event;
                relay.announced_us = Some(began_ns.saturating_sub(made_ns) / 1000);
                (relay.arrived, relay.proof) = (*arrived, *proof);
            }
            Err(Refused { refusal, why }) => {
                (relay.refused, relay.why) = (Some(*refusal), Some(why.clone()));
            }
        }
        Some(Report::Relay(Box::new(relay)))
    }

    fn announce(&mut self, watch: WatchId, verdict: &Verdict, others: &[Verdict]) -> Announced {
        let began_ns = mono_ns();
        let refused =
            |refusal, why: &str| Announced { began_ns, event: None, result: Err(Refused::new(refusal, why)) };
        let Some(seen) = self.follower.watch(watch) else {
            return refused(Refusal::WatchGone, "the watch no longer exists");
        };
        let event = match event_for(seen.mask, self.modify) {
            Ok(event) => event,
            Err(why) => return refused(Refusal::Mask, why),
        };
        let name = if seen.is_dir { verdict.path.file_name() } else { None };
        let Some(changed) = verdict.path_ino.filter(|_| seen.is_dir == name.is_some()) else {
            return refused(Refusal::OtherFile, "it is not known which file changed");
        };
        let copy_up = self.copy_up;
        let announcement = Announcement { watch, name, changed, copy_up, event };
        let event = Some(event);
        let with = self.others(watch, verdict, others);
        let mut watches = vec![(watch, name.map(OsStrExt::as_bytes).unwrap_or_default())];
        watches.extend(with.iter().map(|(watch, name)| (*watch, &**name)));
        let make = || announce(announcement);
        let (made, arrivals) = self.follower.witness(&watches, kinds(announcement.event), make);
        for ((watch, _), arrival) in with.iter().zip(arrivals.iter().skip(1)) {
            if made.is_ok() && arrival.arrived == Some(true) {
                let announced = Announced { began_ns, event, result: Ok(*arrival) };
                self.announced.insert(key(*watch, verdict), announced);
            }
        }
        let arrival = arrivals.first().copied().unwrap_or_default();
        Announced { began_ns, event, result: made.map(|()| arrival) }
    }

    /// Other watches that missed a change of the same file, each with the name that the file has there.
    fn others(&self, own: WatchId, verdict: &Verdict, others: &[Verdict]) -> Vec<(WatchId, Vec<u8>)> {
        let is_of_file =
            |other: &&Verdict| (&other.path, other.path_ino) == (&verdict.path, verdict.path_ino);
        let mut found: Vec<(WatchId, Vec<u8>)> = Vec::new();
        for watch in others.iter().filter(is_of_file).filter_map(watch_of) {
            let is_known = watch == own || found.iter().any(|(other, _)| *other == watch);
            let Some(seen) = self.follower.watch(watch).filter(|_| !is_known) else { continue };
            let name = if seen.is_dir { verdict.path.file_name() } else { None };
            found.push((watch, name.map(|name| name.as_bytes().to_vec()).unwrap_or_default()));
        }
        found
    }

    fn finish(&mut self, note: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (reports, summary) = changes::finish(&mut self.session)?;
        // The session has reported what it gave up.
        let cut = ending::cut_count();
        self.turn(reports, note)?;
        if !ending::is_over() {
            let Self { follower, missed, reports, .. } = self;
            let followed = follower.finish(&mut |followed| {
                take(followed, missed, reports, note);
                Ok(())
            });
            followed.map_err(TraceError::Output)?;
            self.relay_missed();
        }
        let count = ending::cut_count() - cut;
        if count > 0 {
            let (channel, reason) = (Channel::Ebpf, LossReason::Interrupted);
            self.reports.push(Report::Loss { channel, reason, count, path: None });
        }
        self.turn(summary, note)
    }
}

/// The watch that a change was missed by.
fn watch_of(verdict: &Verdict) -> Option<WatchId> {
    let target = &verdict.target;
    Some(WatchId { pid: target.pid?, fd: target.fd?, wd: target.wd?, ino: verdict.watched_ino? })
}

fn key(watch: WatchId, verdict: &Verdict) -> (u32, i32, i32, PathBuf) {
    (watch.pid, watch.fd, watch.wd, verdict.path.clone())
}

fn take(
    followed: Followed<'_>,
    missed: &mut Vec<Verdict>,
    reports: &mut Vec<Report>,
    note: &mut dyn FnMut(&str),
) {
    match followed {
        Followed::Note(text) => note(&text),
        Followed::Lost { reason, count } => {
            reports.push(Report::Loss { channel: Channel::Inotify, reason, count, path: None });
        }
        Followed::Decided(Decided { outcome: Outcome::Verdict(verdict), .. }) if is_relayed(&verdict) => {
            missed.push(*verdict);
        }
        Followed::Judged(..) | Followed::Decided(_) | Followed::Used(_) => {}
    }
}

/// The event that a watch is sent: `IN_MODIFY` only where that may be made.
fn event_for(mask: u32, modify: bool) -> Result<RelayEvent, &'static str> {
    match (mask & bits::MODIFY != 0, mask & bits::CLOSE_WRITE != 0) {
        (true, _) if modify => Ok(RelayEvent::Modify),
        (_, true) => Ok(RelayEvent::CloseWrite),
        (true, false) => Err("the watch asks for IN_MODIFY, and not for IN_CLOSE_WRITE; --modify sends that"),
        (false, false) => Err("the watch asks neither for IN_CLOSE_WRITE nor for IN_MODIFY"),
    }
}

const fn kinds(event: RelayEvent) -> u32 {
    match event {
        RelayEvent::CloseWrite => bits::CLOSE_WRITE,
        RelayEvent::Modify => bits::MODIFY,
    }
}

/// Without a cause of its own, the one that says only that the kernel made no call for it.
fn cause(verdict: &Verdict) -> Cause {
    verdict.cause.unwrap_or(Cause::KernelWriter)
}

/// Whether a change was missed although the file is where the watcher looks for it.
fn is_relayed(verdict: &Verdict) -> bool {
    verdict.state == State::NeverSent
        && match cause(verdict) {
            Cause::LayerBypass => matches!(verdict.op, Op::Create | Op::Write | Op::Rename),
            Cause::Mmap | Cause::Aio | Cause::HardlinkAlias | Cause::KernelWriter => verdict.op == Op::Write,
            _ => false,
        }
}

/// Whether a change at or below a path concerns an instance.
fn watches(instance: &Instance, path: &Path) -> bool {
    let is_of_file = |watch: &Watch| watch.is_dir && watch.path.as_deref() == path.parent() && !path.is_dir();
    instance
        .watches
        .iter()
        .any(|watch| watch.path.as_ref().is_some_and(|at| at.starts_with(path)) || is_of_file(watch))
}

/// Processes that watch something at or below the paths; none of hotr's own, whose instances stand in for others.
fn watchers_of(paths: &[PathBuf]) -> Result<Vec<Choice>, select::Error> {
    let pids = process::all().map_err(|error| select::Error::NoProc(error.to_string()))?;
    let has_instance = |pid: &u32| {
        let process = ProcDir::open(*pid).and_then(|dir| dir.process(false));
        process.is_ok_and(|process| {
            process.is_some_and(|process| process.instances.iter().any(|one| one.kind == Kind::Inotify))
        })
    };
    let with_instance = pids.into_iter().filter(has_instance);
    let others = with_instance.filter(|pid| !is_this_program(*pid));
    let mut watchers = Vec::new();
    for pid in others {
        let choice = Choice::Pid(pid);
        // One that exits meanwhile watches nothing.
        let Ok(targets) = Targets::new(std::slice::from_ref(&choice)) else { continue };
        if targets.all().any(|instance| paths.iter().any(|path| watches(instance, path))) {
            watchers.push(choice);
        }
    }
    Ok(watchers)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::diagnose::finding::Target;

    #[test]
    fn a_watch_is_sent_what_it_asks_for_and_content_alone_on_request() {
        let (modify, close) = (bits::MODIFY, bits::CLOSE_WRITE);
        for (mask, on_request, want) in [
            (close | modify, false, Some(RelayEvent::CloseWrite)),
            (close | modify, true, Some(RelayEvent::Modify)),
            (close, true, Some(RelayEvent::CloseWrite)),
            (modify, true, Some(RelayEvent::Modify)),
            (modify, false, None),
            (bits::ATTRIB | bits::OPEN, true, None),
        ] {
            assert_eq!(event_for(mask, on_request).ok(), want, "{mask:#x} {on_request}");
        }
        assert!(event_for(modify, false).unwrap_err().contains("--modify"));
    }

    #[test]
    fn only_what_was_never_sent_of_a_file_that_is_there_is_relayed() {
        let verdict = |state, op, cause| {
            let path = PathBuf::from("/f");
            let mut verdict = Verdict::new(1, SystemTime::UNIX_EPOCH, op, path, Target::default(), state);
            verdict.cause = cause;
            is_relayed(&verdict)
        };
        for (op, cause, want) in [
            (Op::Write, Some(Cause::Mmap), true),
            (Op::Write, Some(Cause::Aio), true),
            (Op::Write, Some(Cause::HardlinkAlias), true),
            (Op::Write, None, true),
            (Op::Create, Some(Cause::LayerBypass), true),
            (Op::Rename, Some(Cause::LayerBypass), true),
            (Op::Remove, Some(Cause::LayerBypass), false),
            (Op::Attrib, Some(Cause::KernelWriter), false),
            (Op::Rename, Some(Cause::ReplacedFile), false),
            (Op::Write, Some(Cause::NeverWatched), false),
            (Op::Write, Some(Cause::MaskMismatch), false),
        ] {
            assert_eq!(verdict(State::NeverSent, op, cause), want, "{op:?} {cause:?}");
        }
        for state in [State::Delivered, State::Merged, State::Dropped, State::Unread] {
            assert!(!verdict(state, Op::Write, Some(Cause::Mmap)), "{state:?}");
        }
    }
}
