//! `hotr trace --watcher`: a trace with the marks of the inotify instances of another process.
//!
//! In: a session that hands over every change as it was observed, and a process. Out: reports as of any trace; each change
//! waits until it is known what became of it in the process, and then goes through the filter and the merging of repeats.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use super::follower::{Followed, Follower, LOOK_EVERY, Traced};
use super::held_changes::{HeldChanges, Way};
use super::roots::roots;
use super::target::Targets;
use super::verdict::ReportedChange;
use super::{absolute, changes};
use crate::diagnose::select::{self, Choice};
use crate::ending;
use crate::error::Error as TraceError;
use crate::options::TraceOptions;
use crate::session::{ReportWriter, Session, Subscription};
use crate::source::ebpf::DeliverySource;
use crate::source::mono_ns;
use hotr_events::{Channel, LossReason, Raw, Report, ReportSink, WatcherId};

/// How long a change waits: longer than a program may take to set its watch on a new file again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no such trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process cannot be looked at.
    #[error("trace --watcher {pid}: {}", why.reason())]
    Process {
        /// The process.
        pid: u32,
        /// Why not.
        why: select::Error,
    },
    /// It does not use inotify.
    #[error(
        "trace --watcher {pid}: the process has no inotify instance; `hotr diagnose --pid {pid}` says how it watches"
    )]
    NoInstance {
        /// The process.
        pid: u32,
    },
    /// It watches nothing, and no path was named.
    #[error("trace --watcher {pid}: the process watches nothing yet; name a PATH")]
    NoWatch {
        /// The process.
        pid: u32,
    },
    /// The kernel runs no program where events are queued.
    #[error("trace --watcher {pid}: the kernel refuses the programs: {cause}; leave out --watcher")]
    NoPrograms {
        /// The process.
        pid: u32,
        /// The kernel's answers.
        cause: String,
    },
    /// The changes cannot be traced.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Traces until `end` is ready, the duration is over, the process has exited, or the reader of the reports has gone. Without
/// paths, what the process watches is traced, and changes that none of its watches has to do with are left out. `note` takes
/// remarks.
///
/// # Errors
/// When there is no such process or it has no inotify instance, the kernel refuses the programs, or as of any trace.
pub async fn trace(
    options: TraceOptions,
    pid: u32,
    printer: &mut dyn ReportSink,
    note: &mut dyn FnMut(&str),
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let duration = options.duration;
    let started = WatcherTrace::start(options, pid);
    if ending::is_asked() {
        // What takes long was given up, so it is not ready; nothing was reported yet.
        return Ok(());
    }
    let mut run = started?;
    let over = duration.map(|duration| Instant::now() + duration);
    match run.until(&mut ReportWriter::new(printer), note, end, over).await {
        Err(Error::Trace(TraceError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

struct WatcherTrace {
    session: Session,
    follower: Follower,
    held: HeldChanges,
    subscription: Subscription,
    watcher: WatcherId,
    /// Also changes that no watch has to do with.
    every: bool,
}

impl WatcherTrace {
    fn start(mut options: TraceOptions, pid: u32) -> Result<Self, Error> {
        let targets = Targets::new(&[Choice::Pid(pid)]).map_err(|why| Error::Process { pid, why })?;
        let comm = targets.comm().ok_or(Error::NoInstance { pid })?.to_vec();
        let every = !options.paths.is_empty();
        if every {
            // Watches are compared by where they really are.
            options.paths = absolute(&options.paths);
        } else {
            (options.paths, options.recursive) = roots(targets.directories());
        }
        if options.paths.is_empty() {
            return Err(Error::NoWatch { pid });
        }
        let source = DeliverySource::start(options.tier).map_err(|cause| Error::NoPrograms { pid, cause })?;
        let trace = TraceOptions {
            recursive: options.recursive,
            tier: options.tier,
            exclude: options.exclude.clone(),
            origins: options.origins,
            outputs: options.outputs.clone(),
            observed: true,
            ..TraceOptions::new(options.paths.clone())
        };
        let session = changes::start(trace, &source)?;
        let (paths, recursive) = (options.paths.clone(), options.recursive);
        let traced = if every { Traced::Trees(paths) } else { Traced::OfWatches { paths, recursive } };
        let mut follower = Follower::start(source, targets, traced);
        follower.hurry(PATIENCE);
        let watcher = WatcherId { pid, comm };
        let held = HeldChanges::new(watcher.clone());
        Ok(Self { session, follower, held, subscription: Subscription::new(&options), watcher, every })
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
        writer.write(self.subscription.take())?;
        let mut end = std::pin::pin!(end);
        loop {
            let wait = self.wait(over);
            let reports = tokio::select! {
                biased;
                () = &mut end => break,
                reports = changes::next(&mut self.session, &wake, wait) => reports?,
            };
            self.turn(reports, note)?;
            writer.write(self.subscription.take())?;
            let is_over = over.is_some_and(|over| Instant::now() >= over);
            let is_done = self.follower.is_alone() || self.subscription.has_enough();
            if is_over || is_done || ending::is_asked() {
                break;
            }
        }
        self.finish(note)?;
        writer.write(self.subscription.take())?;
        Ok(())
    }

    /// How long nothing has to be done unless something happens.
    fn wait(&self, over: Option<Instant>) -> Duration {
        let due = self.subscription.next_deadline();
        let due = due.map(|due| Duration::from_nanos(due.saturating_sub(mono_ns())));
        let over = over.map(|over| over.saturating_duration_since(Instant::now()));
        [due, over].into_iter().flatten().fold(LOOK_EVERY, Duration::min)
    }

    fn turn(&mut self, reports: Vec<Report>, note: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (mut made, mut found) = (Vec::new(), Vec::new());
        for report in reports {
            match report {
                Report::Raw(Raw::Ebpf { made_ns, change, .. }) => {
                    made.push(ReportedChange { made_ns, change })
                }
                Report::Change(change) => found.push(change),
                Report::Ready { roots, mut channels } => {
                    channels.push(changes::channel(&self.follower, Some(self.watcher.clone())));
                    self.subscription.report(Report::Ready { roots, channels });
                }
                Report::Summary { kernel, duration, .. } => {
                    let changes = self.subscription.changes();
                    self.subscription.report(Report::Summary { changes, kernel, duration });
                }
                other => self.subscription.report(other),
            }
        }
        let Self { held, subscription, every, .. } = self;
        let followed = self.follower.turn(made, &mut |followed| {
            take(followed, held, subscription, *every, note);
            Ok(())
        });
        followed.map_err(TraceError::Output)?;
        found.into_iter().for_each(|change| self.held.push_found(change));
        self.hand_on(false);
        Ok(())
    }

    /// Passes on what is decided; or, at the end, all.
    fn hand_on(&mut self, all: bool) {
        let Self { held, subscription, .. } = self;
        let now_ns = mono_ns();
        subscription.due(now_ns);
        let offer = |change, way| match way {
            Way::Record => subscription.offer_anywhere(change, now_ns),
            Way::Found => subscription.offer_found(change),
        };
        if all {
            held.release_all(offer)
        } else {
            held.release(offer)
        }
        if let Some((count, made_ns)) = held.take_given_up() {
            self.follower.give_up(made_ns);
            let (channel, reason) = (Channel::Inotify, LossReason::Unjudged);
            self.subscription.report(Report::Loss { channel, reason, count, path: None });
        }
        self.subscription.put_away();
    }

    fn finish(&mut self, note: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (reports, summary) = changes::finish(&mut self.session)?;
        // The session has reported what it gave up.
        let cut = ending::cut_count();
        self.turn(reports, note)?;
        if !ending::is_over() {
            let Self { held, subscription, every, .. } = self;
            let followed = self.follower.finish(&mut |followed| {
                take(followed, held, subscription, *every, note);
                Ok(())
            });
            followed.map_err(TraceError::Output)?;
        }
        self.hand_on(true);
        self.subscription.finish();
        let count = ending::cut_count() - cut;
        if count > 0 {
            let (channel, reason) = (Channel::Ebpf, LossReason::Interrupted);
            self.subscription.report(Report::Loss { channel, reason, count, path: None });
        }
        self.turn(summary, note)
    }
}

fn take(
    followed: Followed<'_>,
    held: &mut HeldChanges,
    subscription: &mut Subscription,
    every: bool,
    note: &mut dyn FnMut(&str),
) {
    match followed {
        Followed::Note(text) => note(&text),
        Followed::Lost { reason, count } => {
            subscription.report(Report::Loss { channel: Channel::Inotify, reason, count, path: None });
        }
        Followed::Judged(made, judged) => held.push(made, judged, every),
        Followed::Decided(decided) => held.decide(decided),
        Followed::Used(_) => {}
    }
}
