//! `hotr trace`: runs the channels, joins what they give, and reports it until the end.
//!
//! One thread. Each turn reads the ring buffer, then drains inotify, then judges the records that were read: the order
//! is the proof (see [`crate::pipeline::correlate`]). What a turn found is reported before anything else is done.

mod alarm;
mod announcement;
mod calls;
mod copyup;
mod ebpf_channel;
mod engine;
mod held_records;
mod inotify_channel;
mod judge;
mod observation;
mod pin;
mod report_writer;
mod reported;
mod requests;
mod rescan;
mod root_changes;
mod roots;
mod storms;
mod subscription;
mod verdict;
mod watched_directories;

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::ending;
use crate::error::Error;
use crate::options::TraceOptions;
use crate::source::ebpf::ChildReader;
use alarm::Alarm;
pub(crate) use announcement::{ANNOUNCER, is_this_program};
use engine::Engine;
pub use engine::HeartbeatOutcome;
pub(crate) use engine::own_outputs;
use hotr_events::Channel;
use hotr_events::Report;
use hotr_events::ReportSink;
pub(crate) use report_writer::ReportWriter;
pub(crate) use requests::Requests;
pub(crate) use subscription::Subscription;
pub(crate) use verdict::{Verdict, Watcher};

/// Traces until `end` is ready, the duration is over, or the reader of the reports has gone. The first report is
/// `ready`, the last one `summary`.
///
/// # Errors
/// When a path cannot be watched, a channel that was named explicitly cannot run, none can, or a report cannot be
/// written.
pub async fn run(
    options: TraceOptions,
    printer: &mut dyn ReportSink,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let duration = options.duration;
    let started = Session::start(options);
    if ending::is_asked() {
        // What takes long was given up, so it is not ready; nothing was reported yet.
        return Ok(());
    }
    let mut session = started?;
    // From `ready` on, however long the start took.
    let over = duration.map(crate::timer::later);
    let result = watch(&mut session, &mut ReportWriter::new(printer), end, over).await;
    match result {
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

async fn watch(
    session: &mut Session,
    report_writer: &mut ReportWriter<'_>,
    end: impl Future<Output = ()>,
    over: Option<Instant>,
) -> Result<(), Error> {
    report_writer.write(session.pending())?;
    let mut end = std::pin::pin!(end);
    // Made once: each new one would wake the runtime.
    let mut over_at = std::pin::pin!(sleep_until(over.unwrap_or_else(Instant::now)));
    loop {
        let reports = tokio::select! {
            biased;
            () = &mut end => break,
            reports = session.next() => reports?,
            () = &mut over_at, if over.is_some() => session.turn()?,
        };
        report_writer.write(reports)?;
        // Under a storm the runtime looks for signals only now and then.
        if ending::is_asked() || session.has_enough() || over.is_some_and(|over| Instant::now() >= over) {
            break;
        }
    }
    session.finish(|reports| report_writer.write(reports))
}

/// The channels of a run, driven by whoever wants their reports; must be used inside a tokio runtime.
pub struct Session {
    /// Dropped before the engine, which owns the descriptors.
    ready: Vec<Waited>,
    alarm: Alarm,
    engine: Engine,
}

impl Session {
    /// Starts the channels. [`Report::Ready`] is the first of [`Self::pending`]. The calling thread asks the scheduler for
    /// short turns (or, on kernels where it would preempt eBPF programs, becomes `SCHED_BATCH`), unless it has another
    /// policy than the normal one.
    ///
    /// # Errors
    /// As [`run`].
    pub fn start(options: TraceOptions) -> Result<Self, Error> {
        let engine = Engine::start(options)?;
        crate::sched::answer_soon();
        let ready = wait_for(&engine.descriptors())?;
        Ok(Self { ready, alarm: Alarm::new().map_err(runtime)?, engine })
    }

    /// Reports made so far and not taken yet.
    pub fn pending(&mut self) -> Vec<Report> {
        self.engine.reports()
    }

    /// Waits until a channel has something or something is due, and reads all of it; the reports may be none. A
    /// future that is dropped before it is ready has lost nothing.
    ///
    /// # Errors
    /// When a channel cannot continue.
    pub async fn next(&mut self) -> Result<Vec<Report>, Error> {
        self.engine.put_away();
        if self.engine.has_chores() {
            self.engine.catch_up()?;
            self.renew()?;
            let reports = self.engine.reports();
            if !reports.is_empty() {
                return Ok(reports);
            }
        }
        if self.engine.searches() {
            self.engine.search_on();
            let reports = self.engine.reports();
            if !reports.is_empty() {
                tokio::task::yield_now().await;
                return Ok(reports);
            }
        }
        let roots = if self.engine.has_more() || self.engine.searches() {
            // Others must have their turn, and the descriptors must be checked.
            tokio::task::yield_now().await;
            any_ready(&self.ready, &mut self.alarm, false).await
        } else {
            self.alarm.set(self.engine.next_deadline()).map_err(runtime)?;
            any_ready(&self.ready, &mut self.alarm, true).await
        };
        self.engine.turn(roots)?;
        Ok(self.engine.reports())
    }

    /// Reads what is there without waiting.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn turn(&mut self) -> Result<Vec<Report>, Error> {
        self.engine.whole_turn()?;
        self.renew()?;
        Ok(self.engine.reports())
    }

    /// Whether all that was asked for has been reported: of a run that ends with its first change.
    pub fn has_enough(&self) -> bool {
        self.engine.has_enough()
    }

    /// Looks where the paths lead with the next [`Self::next`], not when it is time to.
    pub fn look_at_roots(&mut self) {
        self.engine.look_at_roots();
    }

    /// Paths below the roots at which something was mounted or unmounted since the last call.
    pub fn take_remounted(&mut self) -> Vec<PathBuf> {
        self.engine.take_remounted()
    }

    /// Watches these paths from now on, and no others; channels continue with those that stay. The answer says whether
    /// inotify's watches had to be made again, in which time it received nothing, and has what was reported until now.
    ///
    /// # Errors
    /// When a channel cannot watch a new path; then all continue with the former ones.
    pub fn set_paths(&mut self, paths: Vec<PathBuf>) -> Result<(bool, Vec<Report>), Error> {
        let rebuilt = self.engine.set_paths(paths);
        self.renew()?;
        Ok((rebuilt?, self.engine.reports()))
    }

    fn renew(&mut self) -> Result<(), Error> {
        if self.engine.take_renewed() {
            // The former descriptors are closed: forget them before a new one of the same number is added.
            self.ready.clear();
            self.ready = wait_for(&self.engine.descriptors())?;
        }
        Ok(())
    }

    /// Prepares the channels for heartbeats; a sentence when one cannot receive them.
    pub fn make_heartbeat(&mut self) -> Option<String> {
        self.engine.make_heartbeat()
    }

    /// Makes a heartbeat and reads all that is queued. No outcome when none could be made, or during a storm.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn beat(&mut self) -> Result<(Option<HeartbeatOutcome>, Vec<Report>), Error> {
        let outcome = self.engine.beat()?;
        self.renew()?;
        Ok((outcome, self.engine.reports()))
    }

    /// Reads directories from the kernel's memory, where the eBPF channel runs and can.
    pub(crate) fn child_reader(&mut self) -> Option<Arc<ChildReader>> {
        self.engine.child_reader()
    }

    /// What a running channel cannot receive now: a path without a watch, or one that is not there.
    pub fn gap(&self, channel: Channel) -> Option<String> {
        self.engine.gap(channel)
    }

    /// Begins to restart a channel, one at a time; the former one continues until that is done. What it should have
    /// reported in the meantime is not reported.
    pub fn revive(&mut self, channel: Channel) {
        self.engine.revive(channel);
    }

    /// The result of the last [`Self::revive`], returned once; none while it is under way. Does not wait.
    pub fn revived(&mut self) -> Option<(Channel, Result<(), Error>)> {
        let (channel, answer) = self.engine.revived()?;
        Some((channel, answer.and_then(|()| self.renew())))
    }

    /// Passes what is still held, and the summary, to `tell`. Once a signal has requested the end ([`ending`]) this
    /// takes about half a second, and a `loss` says that there was more.
    ///
    /// # Errors
    /// As [`Self::next`], and any error of `tell`.
    pub fn finish(&mut self, mut tell: impl FnMut(Vec<Report>) -> Result<(), Error>) -> Result<(), Error> {
        self.engine.finish(&mut tell)
    }
}

/// A descriptor that is waited for.
struct Waited {
    fd: AsyncFd<Raw>,
    /// It is readable for news of roots, not of changes.
    of_roots: bool,
}

fn wait_for(fds: &[(RawFd, bool)]) -> Result<Vec<Waited>, Error> {
    let interest = Interest::READABLE | Interest::PRIORITY;
    let register = |&(fd, of_roots): &(RawFd, bool)| {
        // SAFETY: the engine keeps its descriptors open, or says in `take_renewed` that it has closed one, whereupon
        // nothing is done with the registration but dropping it.
        let fd = unsafe { AsyncFd::register_with_interest(Raw(fd), interest) };
        Ok(Waited { fd: fd.map_err(|error| runtime(error.into()))?, of_roots })
    };
    fds.iter().map(register).collect()
}

/// Ready when any of the descriptors is or the alarm goes off, or at once unless `wait`; whether there is news of
/// roots. The turn that follows reads all descriptors to their end.
async fn any_ready(fds: &[Waited], alarm: &mut Alarm, wait: bool) -> bool {
    let mut roots = false;
    std::future::poll_fn(|context| {
        let mut any = alarm.poll(context) || !wait;
        for waited in fds {
            if let std::task::Poll::Ready(Ok(mut guard)) = waited.fd.poll_read_ready(context) {
                guard.clear_ready();
                any = true;
                roots |= waited.of_roots;
            }
        }
        if any { std::task::Poll::Ready(roots) } else { std::task::Poll::Pending }
    })
    .await
}

fn runtime(source: io::Error) -> Error {
    Error::Os {
        operation: "wait for",
        object: "the channels".to_owned(),
        source,
        next: "raise the limit of open files",
    }
}

/// A descriptor that somebody else owns and keeps open.
struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}
