//! Confirmed changes for a program: a builder, and a stream of batches.
//!
//! In: paths. Out: [`Batch`]es, one for each save. The channels run on a thread of their own, so the stream can be
//! polled by any executor.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use globset::GlobSet;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::feed::{Fed, Feed};
use super::filter::{FilterOptions, VCS_DIRS};
use super::poller::Polling;
use super::{WatchOptions, no_thread};
use crate::error::Error;
use crate::options::{Channels, TierChoice, TraceOptions, patterns};
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
///
/// Together with a value that follows a file:
///
/// ```
/// use hotr_user::reload::Live;
/// use hotr_user::watch::Builder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("hotr-builder-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// let file = dir.join("port");
/// std::fs::write(&file, "8080")?;
/// let path = file.clone();
/// let port = Live::new(move || -> Result<u16, String> {
///     let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
///     text.trim().parse().map_err(|_| format!("{text:?} is not a port"))
/// })?;
/// let mut changes = Builder::new(&dir).ignore(["*.log"]).start()?;
///
/// std::fs::write(&file, "9090")?;
/// while *port.get() != 9090 {
///     // One batch for each save.
///     let Some(batch) = changes.next_blocking() else { break };
///     assert_eq!(batch?[0].path, file);
///     // What cannot be loaded is not put in place.
///     if let Err(why) = port.reload() {
///         eprintln!("{why}");
///     }
/// }
/// assert_eq!(*port.get(), 9090);
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) options: WatchOptions,
    only: Vec<String>,
    ignore: Vec<String>,
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
            only: Vec::new(),
            ignore: Vec::new(),
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

    /// Only files that match one of these patterns, as in `.gitignore`; with [`Self::extensions`], either is enough.
    #[must_use]
    pub fn only<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.only.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Nothing that matches one of these patterns, as in `.gitignore`.
    #[must_use]
    pub fn ignore<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.ignore.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Whether to keep to `.gitignore` files and not to look into `.git` and its like; yes by default.
    #[must_use]
    pub fn vcs_ignore(mut self, vcs_ignore: bool) -> Self {
        self.options.filter.vcs_ignore = vcs_ignore;
        self
    }

    /// Whether to leave out what editors leave behind, and the staging names of Kubernetes; yes by default.
    #[must_use]
    pub fn default_ignore(mut self, default_ignore: bool) -> Self {
        self.options.filter.default_ignore = default_ignore;
        self
    }

    /// Whether to watch all that is below the directories, or what is in them alone; all by default.
    #[must_use]
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.options.trace.recursive = recursive;
        self
    }

    /// Which kind of eBPF programs to use; for each hook the best by default.
    #[must_use]
    pub fn tier(mut self, tier: TierChoice) -> Self {
        self.options.trace.tier = tier;
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

    /// For how long a batch is held at most, while changes go on or a file of it is open for writing; 5 s by default.
    #[must_use]
    pub fn settle_max(mut self, settle_max: Duration) -> Self {
        self.options.settle_max = settle_max;
        self
    }

    /// Larger files, in bytes, are compared by size and modification time; 64 MiB by default.
    #[must_use]
    pub fn hash_limit(mut self, bytes: u64) -> Self {
        self.options.confirm.hash_limit = bytes;
        self
    }

    /// Of so many files the content is remembered; 40,000 by default. One that was forgotten counts as changed.
    #[must_use]
    pub fn hash_entries(mut self, entries: NonZeroUsize) -> Self {
        self.options.confirm.entries = entries;
        self
    }

    /// Starts the channels; when this returns, no change is missed any more.
    ///
    /// # Errors
    /// When a path cannot be watched, a pattern makes no sense, or no channel can run.
    pub fn start(mut self) -> Result<Changes, Error> {
        let filter = &mut self.options.filter;
        filter.ignore = set(&self.ignore)?;
        filter.only = if self.only.is_empty() { None } else { Some(set(&self.only)?) };
        // Whole directories that do not matter are not watched at all.
        self.options.trace.exclude = if filter.vcs_ignore {
            let vcs = VCS_DIRS.iter().map(|dir| (*dir).to_owned());
            set(&self.ignore.iter().cloned().chain(vcs).collect::<Vec<_>>())?
        } else {
            filter.ignore.clone()
        };
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

fn set(all: &[String]) -> Result<GlobSet, Error> {
    if let Some((pattern, cause)) =
        all.iter().find_map(|one| patterns([one.as_str()]).err().map(|cause| (one, cause)))
    {
        return Err(Error::Pattern { pattern: pattern.clone(), cause });
    }
    patterns(all.iter().map(String::as_str)).map_err(|cause| Error::Pattern { pattern: all.join(" "), cause })
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
