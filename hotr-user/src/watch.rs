//! `hotr watch`: reloads when, and only when, the content really changed.
//!
//! In: the reports of a trace session. Out: reloads, and [`Report`]s of them. `feed` turns reports into batches of
//! confirmed changes; `worker` runs the action for each; [`run`] stands between them. [`Builder`] gives the same
//! changes to a program as a stream.

mod affected_names;
mod alarm;
mod arbiter;
mod batch_blocker;
mod builder;
mod changes;
mod channel_restarts;
mod content;
mod early_look;
mod feed;
mod feed_output;
pub mod filter;
mod git;
mod guard;
mod handle;
mod link_targets;
mod links;
mod loop_detector;
mod order;
mod pending;
mod poller;
mod recent_reports;
mod rollback;
mod touched;
mod unknown;
mod watch_event;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use builder::Builder;
pub use changes::Changes;
pub use handle::{PathError, WatchHandle};
pub use poller::{Polling, Scanning};
pub use watch_event::{Batch, WatchEvent};

use crate::action::check::Check;
use crate::action::{Action, Busy, Emit, StopSpec};
use crate::ending;
use crate::error::Error;
use crate::options::TraceOptions;
use crate::pipeline::confirm::ConfirmOptions;
use feed::Feed;
use feed_output::FeedOutput;
use filter::FilterOptions;
use hotr_events::Channel;
use hotr_events::ReportSink;
use hotr_events::{Kind, Reload, ReloadState, Report, Trigger};
use order::Order;
use worker::{News, Worker};

/// What to watch, and what counts as a change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The channels.
    pub trace: TraceOptions,
    /// Which paths matter.
    pub filter: FilterOptions,
    /// Only these kinds of confirmed changes request a reload (empty: all).
    pub kinds: Vec<Kind>,
    /// How content is compared.
    pub confirm: ConfirmOptions,
    /// hotr looks at a batch when no change came for this long.
    pub debounce: Duration,
    /// A batch is held for this long at most, while changes continue or a file of it is open for writing.
    pub settle_max: Duration,
    /// Do not start before the state of every file is known.
    pub whole_baseline: bool,
    /// The safety net.
    pub polling: Polling,
}

impl WatchOptions {
    /// Everything below these absolute paths that git and editors do not leave out, with the defaults of `hotr watch`, which
    /// stand here and in the options named here, and nowhere else. [`Builder`] changes them.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            trace: TraceOptions::new(paths),
            filter: FilterOptions { vcs_ignore: true, default_ignore: true, ..FilterOptions::default() },
            kinds: Vec::new(),
            confirm: ConfirmOptions::default(),
            debounce: Duration::from_millis(50),
            settle_max: Duration::from_secs(5),
            whole_baseline: false,
            polling: Polling::default(),
        }
    }
}

/// What to do for a batch.
#[derive(Clone, Debug)]
pub struct ReloadOptions {
    /// The action.
    pub action: Action,
    /// Changes during a command.
    pub busy: Busy,
    /// How a command is stopped.
    pub stop: StopSpec,
    /// How a command receives the list of changes.
    pub emit: Emit,
    /// Must succeed before.
    pub validate: Option<Check>,
    /// Must succeed after.
    pub health: Option<Check>,
    /// Wait between validation and action.
    pub delay: Duration,
    /// Clear the terminal before a command.
    pub clear: bool,
    /// Reload at the start as well.
    pub at_start: bool,
    /// End after the first reload that a change or a request caused.
    pub once: bool,
    /// Put the last good content back when a reload is not well, and where to keep it (none: beside the files).
    pub rollback: Option<Option<PathBuf>>,
}

/// What a run reports, and to whom.
pub struct Outlet<'a> {
    /// Gets the reports.
    pub printer: &'a mut dyn ReportSink,
    /// Gets sentences.
    pub say: &'a dyn Fn(&str),
    /// Report single changes, and those that changed nothing.
    pub verbose: bool,
}

/// What asks a run for something from outside.
#[non_exhaustive]
pub enum Ask {
    /// A reload now.
    Reload,
    /// The end.
    End,
}

/// Watches and reloads until `asks` gives [`Ask::End`], or until the only reload that was wanted has ended: then its state is
/// returned.
///
/// # Errors
/// As [`crate::session::run`].
pub async fn run(
    watch: WatchOptions,
    reload: ReloadOptions,
    asks: &mut UnboundedReceiver<Ask>,
    outlet: &mut Outlet<'_>,
) -> Result<Option<ReloadState>, Error> {
    let mut asked = false;
    let started = tokio::select! {
        feed = Feed::start(watch, reload.rollback.clone()) => feed,
        // Nothing was reported or started yet.
        () = ended(asks, &mut asked) => return Ok(None),
    };
    if ending::is_asked() {
        // What takes long was given up, so it is not ready.
        return Ok(None);
    }
    let mut feed = started?;
    let (orders, inbox) = unbounded_channel();
    let (outbox, mut news) = unbounded_channel();
    let (at_start, once) = (reload.at_start, reload.once);
    let worker = tokio::task::LocalSet::new();
    let work = worker.spawn_local(Worker::new(reload, inbox, outbox).run());
    let result = worker
        .run_until(async {
            if at_start {
                let _ = orders.send(Order { trigger: Trigger::Start, changes: Vec::new() });
            } else if asked {
                let _ = orders.send(Order { trigger: Trigger::Request, changes: Vec::new() });
            }
            turn(&mut feed, &orders, &mut news, asks, once, outlet).await
        })
        .await;
    // Without orders the worker ends what it runs.
    drop(orders);
    worker
        .run_until(work)
        .await
        .map_err(|error| std::io::Error::other(error.to_string()))
        .map_err(Error::Output)?;
    while let Ok(one) = news.try_recv() {
        match one {
            News::Report(reload) => print(Report::Reload(reload), outlet)?,
            News::Say(text) => (outlet.say)(&text),
            News::Clear(_) | News::Good(_) | News::Bad { .. } => {}
        }
    }
    // A failed run reads to its end as well, but reports no more.
    let failed = result.is_err();
    feed.finish(|report| if failed { Ok(()) } else { relay(report, outlet) })?;
    result
}

/// `1 file`, `2 files`.
fn files(count: usize) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

async fn turn(
    feed: &mut Feed,
    orders: &UnboundedSender<Order>,
    news: &mut UnboundedReceiver<News>,
    asks: &mut UnboundedReceiver<Ask>,
    once: bool,
    outlet: &mut Outlet<'_>,
) -> Result<Option<ReloadState>, Error> {
    let order = |trigger, changes| {
        // The worker lives as long as this sender.
        let _ = orders.send(Order { trigger, changes });
    };
    loop {
        // Under a storm the runtime looks for signals only now and then.
        if ending::is_asked() {
            return Ok(None);
        }
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(Ask::Reload) => order(Trigger::Request, Vec::new()),
                Some(Ask::End) | None => return Ok(None),
            },
            fed = feed.next() => match fed? {
                FeedOutput::Report(report) => relay(report, outlet)?,
                FeedOutput::Batch(changes) => order(Trigger::Change, changes),
                FeedOutput::Restored(changes) => order(Trigger::Rollback, changes),
                FeedOutput::Nothing(paths) if outlet.verbose => {
                    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                    let more = if paths.len() > 1 { " …" } else { "" };
                    let files = files(paths.len());
                    (outlet.say)(&format!("no reload: {files} touched, content unchanged ({first}{more})"));
                }
                FeedOutput::Known(count) if outlet.verbose => {
                    (outlet.say)(&format!("initial state recorded ({})", files(count)));
                }
                FeedOutput::LeftOut(paths) if outlet.verbose => {
                    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                    let more = if paths.len() > 1 { " …" } else { "" };
                    let files = files(paths.len());
                    (outlet.say)(&format!("no reload: {files} changed as --on leaves out ({first}{more})"));
                }
                FeedOutput::Nothing(_) | FeedOutput::LeftOut(_) | FeedOutput::Known(_) => {}
                FeedOutput::Say(text) => (outlet.say)(&text),
            },
            Some(one) = news.recv() => match one {
                News::Report(reload) => {
                    let (state, is_last) = (reload.state, once && is_wanted_end(&reload));
                    print(Report::Reload(reload), outlet)?;
                    if is_last {
                        return Ok(Some(state));
                    }
                }
                News::Say(text) => (outlet.say)(&text),
                News::Clear(done) => {
                    (outlet.say)("\x1bc");
                    // Who asked may be ending.
                    let _ = done.send(());
                }
                News::Good(changes) => feed.good(changes),
                News::Bad { changes, roll_back } => feed.bad(changes, roll_back),
            },
        }
    }
}

/// Whether a reload that was not only for the start has ended, and no newer one takes its place.
fn is_wanted_end(reload: &Reload) -> bool {
    matches!(reload.trigger, Trigger::Change | Trigger::Request)
        && !matches!(reload.state, ReloadState::Started | ReloadState::Replaced)
}

/// Waits until a run is asked to end; notes that a reload was requested.
async fn ended(asks: &mut UnboundedReceiver<Ask>, asked: &mut bool) {
    while let Some(Ask::Reload) = asks.recv().await {
        *asked = true;
    }
}

fn no_thread(source: std::io::Error) -> Error {
    Error::Os {
        operation: "start",
        object: "a thread of the watch".to_owned(),
        source,
        next: "raise the limits of threads and memory",
    }
}

/// Reports of the channels: all but single changes, which are for `-v`, unless no event channel reported them.
fn relay(report: Report, outlet: &mut Outlet<'_>) -> Result<(), Error> {
    if matches!(&report, Report::Change(change) if change.seen_by != [Channel::Poll]) && !outlet.verbose {
        return Ok(());
    }
    print(report, outlet)
}

fn print(report: Report, outlet: &mut Outlet<'_>) -> Result<(), Error> {
    outlet.printer.print(&report).and_then(|()| outlet.printer.flush()).map_err(Error::Output)
}
