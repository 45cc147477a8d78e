//! What becomes of each change while it runs: the live part of `hotr diagnose`.
//!
//! In: processes that the user names. Out: for each change that concerns one of their inotify instances a
//! [`Verdict`]: delivered and read, merged, dropped, never sent, or unread. Changes are those of a trace of its own;
//! deliveries those that the kernel makes to the very instances. A delivery is made before the end of the change, so once
//! the change was read, all deliveries that were made for it can be read: what is not there was not made.

mod application;
mod arrival;
mod changes;
mod event_matcher;
mod expected_events;
mod explain;
mod follower;
mod held_changes;
mod histogram;
mod instance;
mod machine;
mod offers;
mod queue;
mod relay;
mod rewatch;
mod roots;
mod scan;
mod stand_in_instances;
mod summary;
mod target;
mod trace;
mod uses;
mod verdict;
mod verdicts;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::finding::{Finding, Target};
use super::select::{self, Choice};
use crate::ending;
use crate::kernel::load::Tier;
use crate::options::{TierChoice, TraceOptions};
use crate::session::Session;
use crate::source::ebpf::DeliverySource;
use follower::{Followed, Follower, LOOK_EVERY, Traced};
pub use histogram::Histogram;
use hotr_events::Change;
use hotr_events::LossReason;
use hotr_events::{Raw, Report};
pub use machine::{Machine, Mounted};
pub use relay::{Error as RelayError, Options as RelayOptions, relay};
use roots::roots;
pub use summary::{Row, Summary};
use target::Targets;
pub use trace::{Error as TraceError, trace};
pub use uses::Use;
use verdict::{Decided, Outcome, ReportedChange};
pub use verdict::{State, Verdict};

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
#[non_exhaustive]
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
    let wake = changes::wake(&live.follower)?;
    let mut end = std::pin::pin!(end);
    loop {
        let left =
            over.map_or(LOOK_EVERY, |over| over.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
        let reports = tokio::select! {
            biased;
            () = &mut end => break,
            reports = changes::next(&mut live.session, &wake, left) => reports?,
        };
        live.turn(reports, tell)?;
        if live.follower.is_alone() {
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
    follower: Follower,
    paths: Vec<PathBuf>,
    started: Instant,
}

impl Live {
    fn start(options: Options) -> Result<Self, Error> {
        let targets = Targets::new(&options.choices)?;
        let (paths, recursive) = match options.paths.as_slice() {
            [] => roots(targets.directories()),
            paths => (absolute(paths), true),
        };
        if paths.is_empty() {
            return Err(Error::NoWatch { who: targets.names() });
        }
        let source = DeliverySource::start(options.tier).map_err(|cause| Error::NoPrograms { cause })?;
        let trace = TraceOptions {
            recursive,
            tier: options.tier,
            raw: true,
            at_once: true,
            ..TraceOptions::new(paths.clone())
        };
        let session = changes::start(trace, &source)?;
        let traced = match options.paths.as_slice() {
            [] => Traced::OfWatches { paths: paths.clone(), recursive },
            _ => Traced::Trees(paths.clone()),
        };
        let follower = Follower::start(source, targets, traced);
        Ok(Self { options, session, follower, paths, started: Instant::now() })
    }

    fn ready(&mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<(), Error> {
        let _ = self.session.pending();
        let instances = self.follower.instances().map(|one| (one.target(None), one.watches.len())).collect();
        let ready = LiveReport::Ready { tier: self.follower.tier(), instances, paths: self.paths.clone() };
        tell(ready).map_err(output)?;
        if let Some(why) = self.follower.blind() {
            let what = "what the processes do with events that they have read is not seen";
            tell(LiveReport::Note(format!("{what}: {why}"))).map_err(output)?;
        }
        Ok(())
    }

    fn turn(
        &mut self,
        reports: Vec<Report>,
        tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut made = Vec::new();
        for report in reports {
            match report {
                Report::Raw(Raw::Ebpf { made_ns, change, .. }) => {
                    made.push(ReportedChange { made_ns, change })
                }
                Report::Loss { reason, count, .. } => {
                    tell(LiveReport::Lost { reason, count }).map_err(output)?
                }
                _ => {}
            }
        }
        self.follower.turn(made, &mut |followed| pass_on(followed, tell)).map_err(output)
    }

    fn finish(mut self, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> Result<bool, Error> {
        let (reports, _) = changes::finish(&mut self.session)?;
        self.turn(reports, tell)?;
        self.follower.finish(&mut |followed| pass_on(followed, tell)).map_err(output)?;
        for finding in self.follower.findings() {
            tell(LiveReport::Finding(&finding)).map_err(output)?;
        }
        let mut summary = self.follower.summary();
        summary.took = self.started.elapsed();
        tell(LiveReport::Summary(&summary)).map_err(output)?;
        Ok(summary.is_bad())
    }
}

fn pass_on(followed: Followed<'_>, tell: &mut dyn FnMut(LiveReport<'_>) -> io::Result<()>) -> io::Result<()> {
    match followed {
        Followed::Note(note) => tell(LiveReport::Note(note)),
        Followed::Lost { reason, count } => tell(LiveReport::Lost { reason, count }),
        Followed::Judged(made, judged) if judged.is_concerning => tell(LiveReport::Change(&made.change)),
        Followed::Decided(Decided { outcome: Outcome::Verdict(verdict), .. }) => {
            tell(LiveReport::Verdict(&verdict))
        }
        Followed::Used(used) => tell(LiveReport::Used(used)),
        Followed::Judged(..) | Followed::Decided(_) => Ok(()),
    }
}

/// How much longer than its delivery a change may take.
const GAP_NS: u64 = 1_000_000_000;

fn absolute(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect()
}

fn output(error: io::Error) -> Error {
    crate::error::Error::Output(error).into()
}
