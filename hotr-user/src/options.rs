//! What a run is asked to do, already checked: the command line fills it, the engine reads it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{fstat, major, minor};

use hotr_events::Op;

/// Which channels to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Run the eBPF channel.
    pub ebpf: bool,
    /// Run the inotify channel.
    pub inotify: bool,
    /// The user named the channels: one that cannot run is an error. Otherwise (`auto`) hotr says so and continues.
    pub required: bool,
}

impl Channels {
    /// Those that work on this machine.
    pub const AUTO: Self = Self { ebpf: true, inotify: true, required: false };
}

/// Which kind of program a hook may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TierChoice {
    /// The best that attaches, for each hook on its own.
    Auto,
    /// fentry and fexit only.
    Fentry,
    /// kprobe and kretprobe only.
    Kprobe,
    /// Tracepoints only.
    Tracepoint,
}

/// Processes that belong together, by their cgroup in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// Those of a systemd unit; `.service` may be left out.
    Unit(String),
    /// Those of this cgroup and of the ones below it. Without a slash at its begin, the name may be anywhere in a path.
    Cgroup(String),
    /// Those of a container, by the beginning of its id.
    Container(String),
}

/// Files that a run writes its reports to, beside stdout and stderr: changes of these are not reported, or reporting would
/// never end. Clones share what is added.
#[derive(Clone, Debug, Default)]
pub struct OwnFiles(Arc<Mutex<Vec<(u64, u64)>>>);

impl OwnFiles {
    /// Files that are remembered: events of former ones may still be unread.
    const MOST: usize = 8;

    /// From now on this file is one of them.
    ///
    /// # Errors
    /// When the file cannot be asked what it is.
    pub fn add(&self, file: impl AsFd) -> io::Result<()> {
        let stat = fstat(file)?;
        // As the kernel encodes a device.
        let dev = (u64::from(major(stat.st_dev)) << 20) | u64::from(minor(stat.st_dev));
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() == Self::MOST {
            files.remove(0);
        }
        files.push((dev, stat.st_ino));
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether a file, by device and inode, is one of them.
    pub(crate) fn contains(&self, id: (u64, u64)) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

/// Options of `hotr trace`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TraceOptions {
    /// Paths to trace, as given (never empty: the command line defaults to `.`).
    pub paths: Vec<PathBuf>,
    /// Whole trees, not just the named directories.
    pub recursive: bool,
    /// Channels.
    pub channels: Channels,
    /// Tier of the eBPF programs.
    pub tier: TierChoice,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// Report only these operations (empty: all).
    pub ops: Vec<Op>,
    /// Report only changes by these processes (empty: all).
    pub pids: Vec<u32>,
    /// Report only changes by tasks of these names (empty: all).
    pub comms: Vec<Vec<u8>>,
    /// Report only changes by these users (empty: all).
    pub uids: Vec<u32>,
    /// Report only changes by the processes of these groups (empty: all).
    pub groups: Vec<Group>,
    /// Report only changes that a channel missed.
    pub missed: bool,
    /// End after the first change that is reported; of raw records, after the first.
    pub once: bool,
    /// Report only changes of files with one of these extensions, or of those that `only` has (both empty: of all).
    pub exts: Vec<OsString>,
    /// Report only changes of paths that match, relative to their root, or that `exts` has.
    pub only: Option<GlobSet>,
    /// Leave out paths that match, relative to their root.
    pub exclude: GlobSet,
    /// Say where each writer belongs: user by name, login, parent, container, unit. Costs some system calls for each new writer.
    pub origins: bool,
    /// Every record by itself.
    pub raw: bool,
    /// Files whose changes are hotr's own.
    pub outputs: OwnFiles,
    /// Repeats of a write are reported one by one: the reader of the reports merges them, and must not wait for the
    /// last.
    pub at_once: bool,
    /// Every change as it was observed, as a raw report, with its losses searched for: the reader of the reports judges and
    /// filters them.
    pub observed: bool,
    /// A poller looks for what is lost: inotify, as the only channel, keeps no state to compare with.
    pub audited: bool,
}

impl TraceOptions {
    /// Everything below these paths, by the channels that work, until the end.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            recursive: true,
            channels: Channels::AUTO,
            tier: TierChoice::Auto,
            duration: None,
            ops: Vec::new(),
            pids: Vec::new(),
            comms: Vec::new(),
            uids: Vec::new(),
            groups: Vec::new(),
            missed: false,
            once: false,
            exts: Vec::new(),
            only: None,
            exclude: GlobSet::empty(),
            origins: false,
            raw: false,
            outputs: OwnFiles::default(),
            at_once: false,
            observed: false,
            audited: false,
        }
    }
}

/// Patterns as in `.gitignore`: one without a slash matches a name at any depth, one with a slash is relative to
/// the root; both also match everything below what they match.
///
/// # Errors
/// A sentence: what is wrong with one of them.
pub fn patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let name = pattern.strip_suffix('/').unwrap_or(pattern);
        let (prefix, name) = match name.strip_prefix('/') {
            Some(anchored) => ("", anchored),
            None if name.contains('/') => ("", name),
            None => ("**/", name),
        };
        if name.is_empty() {
            return Err("an empty pattern matches nothing".to_owned());
        }
        for whole in [format!("{prefix}{name}"), format!("{prefix}{name}/**")] {
            let glob = GlobBuilder::new(&whole)
                .literal_separator(true)
                .build()
                .map_err(|error| format!("bad pattern: {}", error.kind()))?;
            set.add(glob);
        }
    }
    set.build().map_err(|error| format!("bad pattern: {}", error.kind()))
}
