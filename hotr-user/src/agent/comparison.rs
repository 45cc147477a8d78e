//! The thread that knows what directories were, and finds what is different in them.
//!
//! In: paths of directories, requests. Out: [`News`]. The first look is at what has changed since the agent began to report: a file that
//! changed while it was being read for the first time is not missed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::source::difference::Difference;
use crate::source::inode_clock_ns;
use crate::source::poll::{PollOptions, Poller, Progress};

/// What was found.
#[derive(Debug)]
pub(super) struct News {
    pub(super) differences: Vec<Difference>,
    /// Compared with what was before, all of it that this process may read.
    pub(super) is_complete: bool,
    /// It was asked for; the first one is not.
    pub(super) is_answer: bool,
}

impl News {
    /// Nothing could be compared.
    const fn nothing(is_answer: bool) -> Self {
        Self { differences: Vec::new(), is_complete: false, is_answer }
    }
}

/// See the module. Dropping it ends the thread within some 50 ms.
#[derive(Debug)]
pub(super) struct Comparison {
    roots: Vec<PathBuf>,
    requests: Sender<()>,
    news: UnboundedReceiver<News>,
    cancel: Arc<AtomicBool>,
    /// Requests that nobody answers, because there is no thread.
    unanswered: usize,
}

impl Comparison {
    /// Begins to read the directories; changes are reported from now on.
    pub(super) fn begin(roots: Vec<PathBuf>) -> Self {
        let (requests, inbox) = channel();
        let (outbox, news) = unbounded_channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let (places, is_over, since_ns) = (roots.clone(), Arc::clone(&cancel), inode_clock_ns());
        let thread = std::thread::Builder::new().name("hotr-poller".to_owned());
        // Without it nothing is compared, which each answer says.
        let _ = thread.spawn(move || work(&places, since_ns, &is_over, &inbox, &outbox));
        Self { roots, requests, news, cancel, unanswered: 0 }
    }

    /// As the paths of differences begin.
    pub(super) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Asks for what is different since the last time.
    pub(super) fn ask(&mut self) {
        self.unanswered += usize::from(self.requests.send(()).is_err());
    }

    /// What was found: once without being asked, and once for each request. May be dropped and called again.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None if self.unanswered > 0 => {
                self.unanswered -= 1;
                News::nothing(true)
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

fn work(
    roots: &[PathBuf],
    since_ns: i64,
    cancel: &AtomicBool,
    requests: &Receiver<()>,
    out: &UnboundedSender<News>,
) {
    // Until it is known what is there, nothing can be compared: no pause between directories, but idle priority.
    let options = PollOptions { budget: None, threads: 1, ..PollOptions::default() };
    let Ok(mut poller) = Poller::with_progress(roots, options, cancel, &Progress::default()) else { return };
    // What disappeared before it was read is not known.
    let first = poller.changed_between(since_ns.saturating_sub(1), i64::MAX);
    crate::memory::give_back();
    if out.send(News { differences: first, is_complete: false, is_answer: false }).is_err() {
        return;
    }
    // Somebody waits for what is asked from now on.
    poller.set_pace(None, false);
    while requests.recv().is_ok() {
        let news = match poller.audit(cancel, &Progress::default()) {
            Ok(audit) => {
                let is_complete = audit.is_complete;
                News { differences: audit.differences, is_complete, is_answer: true }
            }
            Err(_) => News::nothing(true),
        };
        if cancel.load(Ordering::Relaxed) || out.send(news).is_err() {
            return;
        }
    }
}
