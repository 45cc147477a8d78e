//! Confirmed changes for a program: a builder, and a stream of batches.
//!
//! In: paths. Out: [`Batch`]es, one for each save. The channels run on a thread of their own, so the stream can be
//! polled by any executor.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use globset::GlobSet;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::feed::{Fed, Feed};
use super::filter::FilterOptions;
use super::poller::Polling;
use super::{WatchOptions, no_thread};
use crate::error::Error;
use crate::options::{Channels, TierChoice, TraceOptions};
use crate::pipeline::confirm::{ConfirmOptions, Confirmed, HashKind};

/// Batches that wait to be taken before the next one is looked at.
const QUEUE: usize = 64;

/// What was changed by one save; never empty.
pub type Batch = Vec<Confirmed>;

/// Says what to watch.
///
/// ```no_run
/// use hotr_user::watch::Builder;
/// # async fn example() -> Result<(), hotr_user::error::Error> {
/// let mut changes = Builder::new("/etc/app").extensions(["toml"]).start()?;
/// while let Some(batch) = changes.next().await {
///     for change in batch? {
///         println!("{} {}", change.kind.as_str(), change.path.display());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) options: WatchOptions,
}

impl Builder {
    /// Watches a directory with everything below it, or a file. Relative paths are of the current directory.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let trace = TraceOptions {
            paths: vec![absolute(path.as_ref())],
            recursive: true,
            channels: Channels { ebpf: true, inotify: true, required: false },
            tier: TierChoice::Auto,
            duration: None,
            ops: Vec::new(),
            pids: Vec::new(),
            comms: Vec::new(),
            exclude: GlobSet::empty(),
            raw: false,
            at_once: false,
            audited: false,
        };
        let filter = FilterOptions { vcs_ignore: true, default_ignore: true, ..FilterOptions::default() };
        Self {
            options: WatchOptions {
                trace,
                filter,
                confirm: ConfirmOptions::default(),
                debounce: Duration::from_millis(50),
                settle_max: Duration::from_secs(5),
                whole_baseline: false,
                polling: Polling::default(),
            },
        }
    }

    /// One more path; none may be inside another.
    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.options.trace.paths.push(absolute(path.as_ref()));
        self
    }

    /// Only files with one of these extensions.
    #[must_use]
    pub fn extensions<S: AsRef<str>>(mut self, exts: impl IntoIterator<Item = S>) -> Self {
        self.options.filter.exts = exts.into_iter().map(|ext| ext.as_ref().into()).collect();
        self
    }

    /// Which channels to run; both where they can by default.
    #[must_use]
    pub fn channels(mut self, channels: Channels) -> Self {
        self.options.trace.channels = channels;
        self
    }

    /// The poller that checks the channels, and stands in for them; on by default.
    #[must_use]
    pub fn polling(mut self, polling: Polling) -> Self {
        self.options.polling = polling;
        self
    }

    /// The digest; SHA-256 by default.
    #[must_use]
    pub fn hash(mut self, hash: HashKind) -> Self {
        self.options.confirm.hash = hash;
        self
    }

    /// How long nothing must change before a batch is told; 50 ms by default.
    #[must_use]
    pub fn debounce(mut self, debounce: Duration) -> Self {
        self.options.debounce = debounce;
        self
    }

    /// Starts the channels; when this returns, no change is missed any more.
    ///
    /// # Errors
    /// When a path cannot be watched, or no channel can run.
    pub fn start(self) -> Result<Changes, Error> {
        let (batches, receiver) = channel(QUEUE);
        let (started, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(source) => return drop(started.send(Err(no_thread(source)))),
            };
            runtime.block_on(async {
                match Feed::start(self.options, None).await {
                    Ok(feed) => {
                        let _ = started.send(Ok(()));
                        serve(feed, &batches).await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        ready.recv().map_err(|_| no_thread(std::io::ErrorKind::Other.into()))??;
        Ok(Changes { batches: receiver })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

async fn serve(mut feed: Feed, batches: &Sender<Result<Batch, Error>>) {
    loop {
        let fed = tokio::select! {
            fed = feed.next() => fed,
            () = batches.closed() => return,
        };
        let message = match fed {
            Ok(Fed::Batch(batch)) => Ok(batch),
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        let is_end = message.is_err();
        if batches.send(message).await.is_err() || is_end {
            return;
        }
    }
}

/// Confirmed changes, batch by batch; dropping it ends the watch.
#[derive(Debug)]
pub struct Changes {
    batches: Receiver<Result<Batch, Error>>,
}

impl Changes {
    /// The next batch; `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        self.batches.recv().await
    }

    /// As [`Self::next`], for a thread that may block.
    pub fn next_blocking(&mut self) -> Option<Result<Batch, Error>> {
        self.batches.blocking_recv()
    }
}

impl Stream for Changes {
    type Item = Result<Batch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(context)
    }
}
