//! The thread of the poller: reads the trees once, then audits on request.
//!
//! In: orders. Out: [`News`]; what an audit found comes in parts, and the next part is put together when one is taken.
//! Dropping the handle cancels what runs, within some 50 ms.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::source::difference::Difference;
use crate::source::inode_clock_ns;
use crate::source::poll::{Audit, PollOptions, Poller, Progress};

/// Whether and how the trees are audited beside the event channels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Polling {
    /// At all.
    pub enabled: bool,
    /// Between two audits; none adapts.
    pub interval: Option<Duration>,
    /// Share of one core that an audit beside healthy channels may take, above 0.
    pub budget: f64,
    /// How far a scan is, for whoever shows it.
    pub scanning: Arc<Scanning>,
}

impl Default for Polling {
    fn default() -> Self {
        Self { enabled: true, interval: None, budget: 0.1, scanning: Arc::default() }
    }
}

/// How far a scan is; may be read by any thread.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Scanning {
    /// Files checked.
    pub progress: Progress,
    /// A scan runs now.
    pub runs: AtomicBool,
}

/// What the thread has done.
#[derive(Debug)]
pub(super) enum News {
    /// Found by the audit that runs; or, before the trees are known, files that changed after the channels had begun to
    /// listen.
    Part(Vec<Difference>),
    /// The trees are known.
    Known,
    /// The trees of other roots are known.
    Followed,
    /// Why they cannot be.
    Failed(String),
    /// An audit ended.
    Audited(Audit),
}

/// What the thread is to do.
enum Order {
    /// An audit: on all cores, or within the budget.
    Audit { fast: bool },
    /// Follow these roots from now on; the channels listen to new ones since this inode time.
    Roots { roots: Vec<PathBuf>, since_ns: i64 },
}

/// The thread.
pub(super) struct Handle {
    orders: Option<Sender<Order>>,
    pub(super) news: mpsc::Receiver<News>,
    cancel: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts to read the trees. After `since_ns`, an inode time, the channels listen.
    pub(super) fn start(
        roots: Vec<PathBuf>,
        since_ns: i64,
        options: PollOptions,
        scanning: Arc<Scanning>,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, news) = mpsc::channel(1);
        let cancel = Arc::new(AtomicBool::new(false));
        let work = Work { options, since_ns, scanning, cancel: Arc::clone(&cancel) };
        let thread = std::thread::Builder::new()
            .name("hotr-poller".to_owned())
            .spawn(move || work.run(&roots, &inbox, &outbox))?;
        Ok(Self { orders: Some(orders), news, cancel, thread: Some(thread) })
    }

    /// Asks for an audit: `fast` on all cores, otherwise within the budget.
    pub(super) fn audit(&self, fast: bool) {
        self.order(Order::Audit { fast });
    }

    /// Follows these roots from now on; the channels listen to new ones since this inode time.
    pub(super) fn set_roots(&self, roots: Vec<PathBuf>, since_ns: i64) {
        self.order(Order::Roots { roots, since_ns });
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has said why.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.orders = None;
        // It may wait for somebody who takes a part.
        self.news.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    options: PollOptions,
    since_ns: i64,
    scanning: Arc<Scanning>,
    cancel: Arc<AtomicBool>,
}

impl Work {
    fn run(self, roots: &[PathBuf], inbox: &Receiver<Order>, outbox: &mpsc::Sender<News>) {
        let Self { options, since_ns, scanning, cancel } = self;
        let (budget, idle) = (options.budget, options.idle);
        let scan = Scan::begins(&scanning);
        // Until the trees are known no audit can find anything: at idle priority, but without a budget.
        let known = Poller::with_progress(
            roots,
            PollOptions { budget: None, ..options },
            &cancel,
            &scanning.progress,
        );
        drop(scan);
        let mut poller = match known {
            Ok(poller) => poller,
            Err(error) => return drop(outbox.blocking_send(News::Failed(error.to_string()))),
        };
        // Where the clock was set back, files have times that are yet to come.
        // Who does not take one is gone.
        let parts = Cell::new(0_u32);
        let mut hand_over = |part| {
            parts.set(parts.get().saturating_add(1));
            drop(outbox.blocking_send(News::Part(part)));
        };
        poller.changed_between_in_parts(since_ns, inode_clock_ns(), &mut hand_over);
        crate::memory::give_back();
        parts.set(0);
        if outbox.blocking_send(News::Known).is_err() {
            return;
        }
        while let Ok(order) = inbox.recv() {
            let fast = match order {
                Order::Audit { fast } => fast,
                Order::Roots { roots, since_ns } => {
                    // As at the start.
                    poller.set_pace(None, idle);
                    let scan = Scan::begins(&scanning);
                    let followed = poller.set_roots(&roots, &cancel, &scanning.progress);
                    drop(scan);
                    poller.changed_between_in_parts(since_ns, inode_clock_ns(), &mut hand_over);
                    let news = match followed {
                        Ok(()) => News::Followed,
                        Err(error) => News::Failed(error.to_string()),
                    };
                    if outbox.blocking_send(news).is_err() {
                        return;
                    }
                    continue;
                }
            };
            if fast {
                poller.set_pace(None, false);
            } else {
                poller.set_pace(budget, idle);
            }
            let scan = Scan::begins(&scanning);
            let audit = poller.audit_in_parts(&cancel, &scanning.progress, &mut hand_over);
            drop(scan);
            if parts.replace(0) > 1 {
                // To put them together took much for a while.
                crate::memory::give_back();
            }
            let news = match audit {
                Ok(audit) => News::Audited(audit),
                Err(error) => News::Failed(error.to_string()),
            };
            if outbox.blocking_send(news).is_err() {
                return;
            }
        }
    }
}

/// A scan runs while this lives.
struct Scan<'a>(&'a Scanning);

impl<'a> Scan<'a> {
    fn begins(scanning: &'a Scanning) -> Self {
        scanning.runs.store(true, Ordering::Relaxed);
        Self(scanning)
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.0.runs.store(false, Ordering::Relaxed);
    }
}
