//! `hotr watch`: reloads when, and only when, the content really changed.
//!
//! In: the reports of a trace session. Out: reloads, and [`Report`]s of them. `feed` turns reports into batches of
//! confirmed changes; `worker` runs the action for each; [`run`] stands between them. [`Builder`] gives the same
//! changes to a program as a stream.

mod alarm;
mod arbiter;
mod builder;
mod content;
mod early;
mod echo;
mod feed;
pub mod filter;
mod guard;
mod hold;
mod ledger;
mod links;
mod order;
mod pending;
mod poller;
mod revive;
mod rollback;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use builder::{Batch, Builder, Changes};
pub use poller::{Polling, Scanning};

use crate::action::check::Check;
use crate::action::{Action, Busy, Emit, StopSpec};
use crate::error::Error;
use crate::event::Channel;
use crate::options::TraceOptions;
use crate::output::Printer;
use crate::pipeline::confirm::ConfirmOptions;
use crate::report::{Report, Trigger};
use feed::{Fed, Feed};
use filter::FilterOptions;
use order::Order;
use worker::{News, Worker};

/// What to watch, and what counts as a change.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The channels.
    pub trace: TraceOptions,
    /// Which paths matter.
    pub filter: FilterOptions,
    /// How content is compared.
    pub confirm: ConfirmOptions,
    /// A batch is looked at when no change came for this long.
    pub debounce: Duration,
    /// A batch is held for this long at most: while changes go on, or a file of it is open for writing.
    pub settle_max: Duration,
    /// Do not start before the state of every file is known.
    pub whole_baseline: bool,
    /// The safety net.
    pub polling: Polling,
}

/// What to do for a batch.
#[derive(Clone, Debug)]
pub struct ReloadOptions {
    /// The action.
    pub action: Action,
    /// Changes during a command.
    pub busy: Busy,
    /// How a command is ended.
    pub stop: StopSpec,
    /// How a command is told what changed.
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
    /// Put the last good content back when a reload is not well, and where to keep it (none: beside the files).
    pub rollback: Option<Option<PathBuf>>,
}

/// What a run tells, and to whom.
pub struct Outlet<'a> {
    /// Gets the reports.
    pub printer: &'a mut dyn Printer,
    /// Gets sentences.
    pub say: &'a dyn Fn(&str),
    /// Tell of single changes, and of those that changed nothing.
    pub verbose: bool,
}

/// What asks a run for something from outside.
pub enum Ask {
    /// A reload now.
    Reload,
    /// The end.
    End,
}

/// Watches and reloads until `asks` gives [`Ask::End`].
///
/// # Errors
/// As [`crate::trace::run`].
pub async fn run(
    watch: WatchOptions,
    reload: ReloadOptions,
    asks: &mut UnboundedReceiver<Ask>,
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let mut asked = false;
    let mut feed = tokio::select! {
        feed = Feed::start(watch, reload.rollback.clone()) => feed?,
        // Nothing was told yet, nor begun.
        () = ended(asks, &mut asked) => return Ok(()),
    };
    let (orders, inbox) = unbounded_channel();
    let (outbox, mut news) = unbounded_channel();
    let at_start = reload.at_start;
    let worker = tokio::task::LocalSet::new();
    let work = worker.spawn_local(Worker::new(reload, inbox, outbox).run());
    let result = worker
        .run_until(async {
            if at_start {
                let _ = orders.send(Order { trigger: Trigger::Start, changes: Vec::new() });
            } else if asked {
                let _ = orders.send(Order { trigger: Trigger::Request, changes: Vec::new() });
            }
            turn(&mut feed, &orders, &mut news, asks, outlet).await
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
    let tail = feed.finish()?;
    result?;
    tail.into_iter().try_for_each(|report| relay(report, outlet))
}

async fn turn(
    feed: &mut Feed,
    orders: &UnboundedSender<Order>,
    news: &mut UnboundedReceiver<News>,
    asks: &mut UnboundedReceiver<Ask>,
    outlet: &mut Outlet<'_>,
) -> Result<(), Error> {
    let order = |trigger, changes| {
        // The worker lives as long as this sender.
        let _ = orders.send(Order { trigger, changes });
    };
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(Ask::Reload) => order(Trigger::Request, Vec::new()),
                Some(Ask::End) | None => return Ok(()),
            },
            fed = feed.next() => match fed? {
                Fed::Report(report) => relay(report, outlet)?,
                Fed::Batch(changes) => order(Trigger::Change, changes),
                Fed::Restored(changes) => order(Trigger::Rollback, changes),
                Fed::Nothing(paths) if outlet.verbose => {
                    let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                    (outlet.say)(&format!("no reload: {} files touched, none changed ({first} …)", paths.len()));
                }
                Fed::Known(files) if outlet.verbose => {
                    (outlet.say)(&format!("the content of all files is known: {files}"));
                }
                Fed::Nothing(_) | Fed::Known(_) => {}
                Fed::Say(text) => (outlet.say)(&text),
            },
            Some(one) = news.recv() => match one {
                News::Report(reload) => print(Report::Reload(reload), outlet)?,
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

/// Waits until a run is asked to end; notes that it was asked for a reload.
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

/// Reports of the channels: all but single changes, which are for `-v`, unless no event channel told them.
fn relay(report: Report, outlet: &mut Outlet<'_>) -> Result<(), Error> {
    if matches!(&report, Report::Change(change) if change.seen_by != [Channel::Poll]) && !outlet.verbose {
        return Ok(());
    }
    print(report, outlet)
}

fn print(report: Report, outlet: &mut Outlet<'_>) -> Result<(), Error> {
    outlet.printer.print(&report).and_then(|()| outlet.printer.flush()).map_err(Error::Output)
}
