//! What the inotify channel reports: events, losses, and what it does not cover.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hotr_events::LossReason;

/// One event of the queue, or a synthetic creation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InotifyEvent {
    /// `CLOCK_MONOTONIC` right after the `read` that returned it. Whatever was queued before that `read` has been
    /// passed on by the time [`Drained::emptied`] is true.
    pub read_mono_ns: u64,
    /// `inotify_event.wd`; -1 for the overflow event.
    pub wd: i32,
    /// `inotify_event.mask`.
    pub mask: u32,
    /// `inotify_event.cookie`.
    pub cookie: u32,
    /// Watched directory joined with the name, as known when the event was read; empty for the overflow event.
    pub path: PathBuf,
    /// The event names an entry of the watched directory (otherwise it is about the directory itself).
    pub has_name: bool,
    /// It is about a root directory itself: no parent is watched that would report the same.
    pub of_root: bool,
    /// Not from the queue: the entry was found in a new directory before any event reported it.
    pub synthetic: bool,
}

impl InotifyEvent {
    /// The name in the event, when there is one.
    pub fn name(&self) -> Option<&OsStr> {
        if self.has_name { self.path.file_name() } else { None }
    }

    /// The watched directory.
    pub fn dir(&self) -> &Path {
        if self.has_name { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }

    /// Whether any of these bits is set.
    pub fn is(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }
}

/// How a call of `drain` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// The queue was seen empty. If not, and it is no part, all that was queued when the call began has been passed on, and
    /// more has come since.
    pub emptied: bool,
    /// Of what was queued when the call began there is more: the next call goes on with it.
    pub is_part: bool,
}

impl Drained {
    /// All that was queued when the call began, or when its first part did.
    pub(super) const ENOUGH: Self = Self { emptied: false, is_part: false };
}

/// Something was lost: paths or watches may be wrong until the watches are rebuilt and the roots rescanned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The first reason.
    pub reason: LossReason,
    /// The directory concerned, when it is one.
    pub path: Option<PathBuf>,
    /// Number of losses since they were last taken.
    pub count: u64,
}

/// Directories without a watch that should have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uncovered {
    /// How many were found.
    pub count: u64,
    /// The search ended before all were found: there are more.
    pub more: bool,
    /// The first few, and why.
    pub examples: Vec<(PathBuf, String)>,
}

/// Uncovered directories are counted up to here; a walk without watches must end some time.
const COUNTED: u64 = 100_000;
/// Paths kept as examples.
const EXAMPLES: usize = 8;

impl Uncovered {
    /// Counts one more; the path and the reason are recorded only while examples are wanted.
    pub(super) fn add(&mut self, example: impl FnOnce() -> (PathBuf, String)) {
        if self.count >= COUNTED {
            self.more = true;
            return;
        }
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }

    /// Counts one less: this directory has a watch now.
    pub(super) fn remove(&mut self, path: &Path) {
        self.count = self.count.saturating_sub(1);
        self.examples.retain(|(example, _)| example != path);
    }
}

/// A directory left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The directory.
    pub path: PathBuf,
    /// Name of its pseudo filesystem.
    pub fs: &'static str,
}

/// Whether a directory is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// There is a watch.
    Watched {
        /// `CLOCK_MONOTONIC` when it was there.
        since_mono_ns: u64,
    },
    /// There is none because a limit or a permission forbade it, here or above.
    Limit,
    /// There is none: no event reported the directory yet, it is excluded, or it lies outside the roots.
    Unwatched,
}
