//! Says what a program, or the command line, watches.
//!
//! In: paths and choices. Out: [`WatchOptions`], or the running [`Changes`].

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use globset::GlobSet;

use super::changes::Changes;
use super::filter::VCS_DIRS;
use super::handle::absolute;
use super::poller::Polling;
use super::{WatchOptions, no_thread};
use crate::error::Error;
use crate::options::{Channels, TierChoice, patterns};
use crate::pipeline::confirm::HashKind;
use hotr_events::Kind;

/// Says what to watch. A setter that is called `add_…` adds to what was chosen before; any other replaces it.
///
/// ```no_run
/// use hotr_user::watch::{Builder, WatchEvent};
/// # async fn example() -> Result<(), hotr_user::error::Error> {
/// let mut changes = Builder::new("/etc/app").add_extensions(["toml"]).start().await?;
/// while let Some(event) = changes.next().await {
///     match event? {
///         WatchEvent::Batch(batch) => {
///             for change in &batch {
///                 let by: Vec<_> = change.actors.iter().map(|actor| actor.pid).collect();
///                 println!("{} {} by {by:?}", change.kind.as_str(), change.path.display());
///             }
///         }
///         WatchEvent::Degraded { channel, why, .. } => eprintln!("{}: {why}", channel.as_str()),
///         _ => {}
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
/// let mut changes = Builder::new(&dir).add_ignore(["*.log"]).start_blocking()?;
///
/// std::fs::write(&file, "9090")?;
/// while *port.get() != 9090 {
///     let Some(event) = changes.next_blocking() else { break };
///     // One batch for each save; the rest is about the channels.
///     let Some(batch) = event?.into_batch() else { continue };
///     assert_eq!(batch[0].path, file);
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
    options: WatchOptions,
    only: Vec<String>,
    ignore: Vec<String>,
}

impl Builder {
    /// Watches a directory with everything below it, or a file. Relative paths are of the current directory.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self::of([path])
    }

    /// As [`Self::new`] for several paths, at least one; none may be inside another.
    pub fn of<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(|path| absolute(path.as_ref())).collect();
        Self { options: WatchOptions::new(paths), only: Vec::new(), ignore: Vec::new() }
    }

    /// One more path; none may be inside another.
    #[must_use]
    pub fn add_path(mut self, path: impl AsRef<Path>) -> Self {
        self.options.trace.paths.push(absolute(path.as_ref()));
        self
    }

    /// Only files with one of these extensions, or one that was added before.
    #[must_use]
    pub fn add_extensions<S: Into<OsString>>(mut self, exts: impl IntoIterator<Item = S>) -> Self {
        self.options.filter.exts.extend(exts.into_iter().map(Into::into));
        self
    }

    /// Only files that match one of these patterns, as in `.gitignore`, or one that was added before; with
    /// [`Self::add_extensions`], either is enough.
    #[must_use]
    pub fn add_only<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.only.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Nothing that matches one of these patterns, as in `.gitignore`, nor one that was added before.
    #[must_use]
    pub fn add_ignore<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.ignore.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Only changes of these kinds, as the comparison found them; all by default.
    #[must_use]
    pub fn only_kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.options.kinds = kinds.into_iter().collect();
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

    /// Whether to watch all that is below the directories, or only what is in them; all by default.
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

    /// The poller that checks the channels, and replaces them when they fail; on by default.
    #[must_use]
    pub fn polling(mut self, polling: Polling) -> Self {
        self.options.polling = polling;
        self
    }

    /// Whether the start waits until the state of every file is known; no by default.
    #[must_use]
    pub fn whole_baseline(mut self, whole_baseline: bool) -> Self {
        self.options.whole_baseline = whole_baseline;
        self
    }

    /// The digest; SHA-256 by default.
    #[must_use]
    pub fn hash(mut self, hash: HashKind) -> Self {
        self.options.confirm.hash = hash;
        self
    }

    /// How long nothing must change before a batch is delivered; 50 ms by default.
    #[must_use]
    pub fn debounce(mut self, debounce: Duration) -> Self {
        self.options.debounce = debounce;
        self
    }

    /// For how long a batch is held at most, while changes continue or a file of it is open for writing; 5 s by
    /// default.
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

    /// Starts the channels; when this is ready, no change is missed any more. It does not block the executor: the channels
    /// run on a thread of their own, which ends when this future, or what it gives, is dropped.
    ///
    /// # Errors
    /// When a path cannot be watched, a pattern makes no sense, or no channel can run.
    pub async fn start(self) -> Result<Changes, Error> {
        let (started, ready) = tokio::sync::oneshot::channel();
        let changes = Changes::start(self.options()?, move |result| drop(started.send(result)))?;
        ready.await.map_err(|_| gone())??;
        Ok(changes)
    }

    /// As [`Self::start`], for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_blocking(self) -> Result<Changes, Error> {
        let (started, ready) = std::sync::mpsc::channel();
        let changes = Changes::start(self.options()?, move |result| drop(started.send(result)))?;
        ready.recv().map_err(|_| gone())??;
        Ok(changes)
    }

    /// What was chosen, checked: for [`super::run`].
    ///
    /// # Errors
    /// When a pattern makes no sense.
    pub fn options(mut self) -> Result<WatchOptions, Error> {
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
        Ok(self.options)
    }
}

/// The thread has ended without an answer.
fn gone() -> Error {
    no_thread(std::io::ErrorKind::BrokenPipe.into())
}

fn set(all: &[String]) -> Result<GlobSet, Error> {
    if let Some((pattern, cause)) =
        all.iter().find_map(|one| patterns([one.as_str()]).err().map(|cause| (one, cause)))
    {
        return Err(Error::Pattern { pattern: pattern.clone(), cause });
    }
    patterns(all.iter().map(String::as_str)).map_err(|cause| Error::Pattern { pattern: all.join(" "), cause })
}
