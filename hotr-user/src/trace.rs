//! `hotr trace`: runs the channels, joins what they give, and reports it until the end.
//!
//! One thread. Each turn reads the ring buffer, then drains inotify, then judges the records that were read: the
//! order is the proof (see [`crate::pipeline::correlate`]).

mod calls;
mod clock;
mod ear;
mod engine;
mod judge;
mod kernel;
mod presence;
mod rescan;
mod roots;
mod storms;

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::event::Channel;
use crate::options::TraceOptions;
use crate::output::Printer;
use crate::report::Report;
use engine::Engine;
pub use engine::Pulse;
pub(crate) use engine::own_outputs;

/// Traces until `end` is ready, the duration is over, or the reader of the reports has gone. The first report is
/// `ready`, the last one `summary`.
///
/// # Errors
/// When a path cannot be watched, a channel that was asked for by name cannot run, none can, or a report cannot be
/// written.
pub async fn run(
    options: TraceOptions,
    printer: &mut dyn Printer,
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
    let duration = options.duration;
    let mut session = Session::start(options)?;
    // From `ready` on, however long the start took.
    let over = duration.map(|duration| Instant::now() + duration);
    let result = watch(&mut session, printer, end, over).await;
    match result {
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

async fn watch(
    session: &mut Session,
    printer: &mut dyn Printer,
    end: impl Future<Output = ()>,
    over: Option<Instant>,
) -> Result<(), Error> {
    print(session.pending(), printer)?;
    let mut end = std::pin::pin!(end);
    loop {
        let reports = tokio::select! {
            () = &mut end => break,
            reports = session.next() => reports?,
            () = async { sleep_until(over.unwrap_or_else(far)).await }, if over.is_some() => session.turn()?,
        };
        print(reports, printer)?;
        if over.is_some_and(|over| Instant::now() >= over) {
            break;
        }
    }
    print(session.finish()?, printer)
}

/// The channels of a run, driven by whoever wants their reports; must be used inside a tokio runtime.
pub struct Session {
    /// Dropped before the engine, which owns the descriptors.
    ready: Vec<AsyncFd<Raw>>,
    engine: Engine,
}

impl Session {
    /// Starts the channels. [`Report::Ready`] is the first of [`Self::pending`].
    ///
    /// # Errors
    /// As [`run`].
    pub fn start(options: TraceOptions) -> Result<Self, Error> {
        let engine = Engine::start(options)?;
        let ready = wait_for(&engine.descriptors())?;
        Ok(Self { ready, engine })
    }

    /// Reports made so far and not handed over.
    pub fn pending(&mut self) -> Vec<Report> {
        self.engine.reports()
    }

    /// Waits until a channel has something or something is due, and reads all of it; the reports may be none. A
    /// future that is dropped before it is ready has read nothing.
    ///
    /// # Errors
    /// When a channel cannot go on.
    pub async fn next(&mut self) -> Result<Vec<Report>, Error> {
        let deadline = self.engine.next_deadline().map(|wait| Instant::now() + wait);
        tokio::select! {
            () = any_ready(&self.ready) => {}
            () = async { sleep_until(deadline.unwrap_or_else(far)).await }, if deadline.is_some() => {}
        }
        self.turn()
    }

    /// Reads what is there without waiting.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn turn(&mut self) -> Result<Vec<Report>, Error> {
        self.engine.turn()?;
        self.renew()?;
        Ok(self.engine.reports())
    }

    fn renew(&mut self) -> Result<(), Error> {
        if self.engine.take_renewed() {
            // The former descriptors are closed: forget them before a new one of the same number is added.
            self.ready.clear();
            self.ready = wait_for(&self.engine.descriptors())?;
        }
        Ok(())
    }

    /// Lets the channels hear heartbeats; a sentence when one cannot.
    pub fn take_heart(&mut self) -> Option<String> {
        self.engine.take_heart()
    }

    /// Makes a heartbeat and reads all that is queued. No pulse when none could be made, or a storm goes on.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn beat(&mut self) -> Result<(Option<Pulse>, Vec<Report>), Error> {
        let pulse = self.engine.beat()?;
        self.renew()?;
        Ok((pulse, self.engine.reports()))
    }

    /// What a running channel cannot hear now: a path without a watch, or one that is not there.
    pub fn gap(&self, channel: Channel) -> Option<String> {
        self.engine.gap(channel)
    }

    /// Starts a channel anew; what it should have told meanwhile is not told.
    ///
    /// # Errors
    /// When it cannot be started: the former one goes on.
    pub fn revive(&mut self, channel: Channel) -> Result<(), Error> {
        self.engine.revive(channel)?;
        self.renew()
    }

    /// What is still held, and the summary.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn finish(&mut self) -> Result<Vec<Report>, Error> {
        self.engine.finish()?;
        Ok(self.engine.reports())
    }
}

fn wait_for(fds: &[RawFd]) -> Result<Vec<AsyncFd<Raw>>, Error> {
    let interest = Interest::READABLE | Interest::PRIORITY;
    let register = |fd: &RawFd| {
        // SAFETY: the engine keeps its descriptors open, or says in `take_renewed` that it has closed one, whereupon
        // nothing is done with the registration but dropping it.
        unsafe { AsyncFd::register_with_interest(Raw(*fd), interest) }
    };
    fds.iter().map(|fd| register(fd).map_err(|error| runtime(error.into()))).collect()
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Ready when any of the descriptors is. The turn that follows reads all of them to their end.
async fn any_ready(fds: &[AsyncFd<Raw>]) {
    std::future::poll_fn(|context| {
        let mut any = std::task::Poll::Pending;
        for fd in fds {
            if let std::task::Poll::Ready(Ok(mut guard)) = fd.poll_read_ready(context) {
                guard.clear_ready();
                any = std::task::Poll::Ready(());
            }
        }
        any
    })
    .await;
}

fn print(reports: Vec<Report>, printer: &mut dyn Printer) -> Result<(), Error> {
    for report in reports {
        printer.print(&report).map_err(Error::Output)?;
    }
    printer.flush().map_err(Error::Output)
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
