//! Adding watches: one walk for a root, one for each directory that appears.
//!
//! In: an open directory and its node. Out: nodes with watches, synthetic creations, and what stays uncovered.
//! A watch is added through the open handle (`/proc/self/fd/N`), so it is on the very directory that is then read.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::fs::{StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::tree::{NodeId, flag};
use super::{InotifyEvent, InotifySource, Skipped, mask};
use crate::source::clock::mono_ns;
use crate::source::fsinfo::{Fs, device};
use crate::source::walk::{Descend, Entry, LONGEST_PATH, Visitor, stat_at, stat_fd};
use hotr_events::LossReason;

/// What is asked of every directory. Not `IN_CLOSE_WRITE` (it is no change, and doubles the events of a writer),
/// not `IN_EXCL_UNLINK` (writes to a file made by `O_TMPFILE` and linked later would go unheard), and never
/// `IN_MASK_ADD`: all watches have the same mask, so adding one a second time changes nothing.
const MASK: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Pseudo filesystems remembered.
const SKIPPED: usize = 64;

/// What a walk is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// A root: what is there already is not reported.
    Initial {
        /// Continue below.
        recursive: bool,
    },
    /// A new directory: every entry is reported as created.
    New,
    /// A directory moved in: only what has changed since is reported, by inode clock.
    MovedIn {
        /// Inode clock at a moment before the move.
        since: i64,
    },
    /// A known directory in which some subdirectory may have been missed: what lies below such a one is reported.
    Again {
        /// The known directory.
        top: NodeId,
    },
}

/// The visitor of such a walk.
pub(super) struct Watching<'a> {
    source: &'a mut InotifySource,
    mode: Mode,
    sink: Option<&'a mut Vec<InotifyEvent>>,
    read_mono_ns: u64,
    fs: Option<(u64, Fs)>,
    /// Directories without a watch: walked to be counted, then forgotten.
    without_watch: Vec<NodeId>,
    /// The directory that has the watch which the last one was about to get.
    pub(super) alias: Option<NodeId>,
}

impl<'a> Watching<'a> {
    pub(super) fn new(source: &'a mut InotifySource, mode: Mode) -> Self {
        Self { source, mode, sink: None, read_mono_ns: 0, fs: None, without_watch: Vec::new(), alias: None }
    }

    /// Where synthetic creations go, and the time they are reported with.
    pub(super) fn with_synthetic_creates(
        mut self,
        sink: &'a mut Vec<InotifyEvent>,
        read_mono_ns: u64,
    ) -> Self {
        self.sink = Some(sink);
        self.read_mono_ns = read_mono_ns;
        self
    }

    fn fs(&mut self, device: u64, dir: BorrowedFd<'_>) -> Result<Fs, Errno> {
        if let Some((known, fs)) = self.fs
            && known == device
        {
            return Ok(fs);
        }
        let fs = Fs::of(dir)?;
        self.fs = Some((device, fs));
        Ok(fs)
    }

    /// Gives the directory its watch; `false` when there is nothing more to do with it.
    fn watch(&mut self, key: NodeId, dir: BorrowedFd<'_>) -> bool {
        let source = &mut *self.source;
        if source.tree.wd(key).is_some() {
            return true;
        }
        let answer = if source.tree.watches() >= source.limit {
            Err(Errno::NOSPC)
        } else {
            source.watch_handle(dir, || source.tree.path(key, None))
        };
        let wd = match answer {
            Ok(wd) => wd,
            Err(error) => {
                source.leave_uncovered(key, error);
                self.without_watch.push(key);
                return !source.uncovered.more;
            }
        };
        match source.tree.by_wd(wd) {
            None => {
                source.adopt(key, wd);
                true
            }
            Some(other) => {
                self.alias = Some(other);
                let place = source.tree.parent(key).map(|parent| (parent, source.tree.name(key).to_vec()));
                source.forget(key);
                // Within a new directory: that one was moved here, and the event that reports it is still to come. In
                // the first walk: the same directory is mounted at two places, and has one watch.
                if let (Some((parent, name)), false) = (place, matches!(self.mode, Mode::Initial { .. })) {
                    source.has_moved |= source.tree.relocate(other, parent, &name);
                }
                false
            }
        }
    }

    fn report_create(&mut self, parent: NodeId, dir: BorrowedFd<'_>, entry: &Entry<'_>, is_dir: bool) {
        let is_told = match self.mode {
            Mode::Initial { .. } => false,
            Mode::New => true,
            Mode::Again { top } => parent != top,
            Mode::MovedIn { since } => stat_at(dir, entry.name, StatxFlags::CTIME)
                .is_ok_and(|stat| crate::source::difference::nanos(stat.stx_ctime) >= since),
        };
        let Some(sink) = self.sink.as_deref_mut().filter(|_| is_told) else { return };
        let Some(wd) = self.source.tree.wd(parent) else { return };
        let name = entry.name.to_bytes();
        if self.source.told.has(wd, name) {
            return;
        }
        let event = InotifyEvent {
            read_mono_ns: self.read_mono_ns,
            wd,
            mask: mask::CREATE | if is_dir { mask::ISDIR } else { 0 },
            cookie: 0,
            path: self.source.tree.path(parent, Some(name)),
            has_name: true,
            of_root: false,
            synthetic: true,
        };
        let at = sink.len();
        if self.source.push(sink, event) {
            self.source.told.insert(wd, name, at);
        }
    }
}

impl Visitor for Watching<'_> {
    type Key = NodeId;

    fn open(&mut self, key: NodeId, dir: BorrowedFd<'_>) -> Descend {
        let answer = stat_fd(dir, StatxFlags::TYPE).and_then(|stat| Ok((stat, self.fs(device(&stat), dir)?)));
        let (stat, fs) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.failed(key, error);
                return Descend::Nothing;
            }
        };
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            self.source.tree.set(key, flag::MOUNTED);
        }
        if let Some(fs) = fs.pseudo {
            if self.source.skipped.len() < SKIPPED {
                self.source.skipped.push(Skipped { path: self.source.tree.path(key, None), fs });
            }
            self.source.forget(key);
            return Descend::Nothing;
        }
        if !self.watch(key, dir) {
            return Descend::Nothing;
        }
        let is_leaf = match self.mode {
            Mode::Initial { recursive: false } => true,
            // Asked after the watch was added: a subdirectory that is created later is reported by an event.
            Mode::Initial { .. } if fs.counts_subdirectories => {
                stat_fd(dir, StatxFlags::NLINK).is_ok_and(|stat| stat.stx_nlink == 2)
            }
            _ => false,
        };
        if is_leaf { Descend::Nothing } else { Descend::Entries }
    }

    fn entry(&mut self, parent: NodeId, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<NodeId> {
        let is_dir = entry.is_dir(dir);
        self.report_create(parent, dir, entry, is_dir);
        let name = entry.name.to_bytes();
        if !is_dir || self.source.is_excluded(parent, name) {
            return None;
        }
        match self.source.tree.child(parent, name) {
            Some(known) if self.source.tree.wd(known).is_some() => None,
            Some(known) => Some(known),
            None => self.source.tree.add(parent, name),
        }
    }

    fn failed(&mut self, key: NodeId, error: Errno) {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                self.source.stale.extend(self.source.tree.parent(key));
                self.source.forget(key);
            }
            error => {
                self.source.leave_uncovered(key, error);
                if self.source.tree.wd(key).is_none() {
                    self.source.forget(key);
                }
            }
        }
    }

    fn name(&self, key: NodeId, name: &mut Vec<u8>) {
        name.extend_from_slice(self.source.tree.name(key));
    }

    fn path(&self, key: NodeId) -> PathBuf {
        self.source.tree.path(key, None)
    }
}

/// Why a directory gets no watch whose path is too long.
pub(super) fn too_long() -> String {
    format!("its path has more than {LONGEST_PATH} bytes")
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        for key in std::mem::take(&mut self.without_watch) {
            let is_inner = self.source.tree.is_living(key) && self.source.tree.parent(key).is_some();
            if is_inner && self.source.tree.wd(key).is_none() {
                self.source.forget(key);
            }
        }
    }
}

impl InotifySource {
    /// Adds a watch on an open directory. By its path only where `/proc` is not mounted.
    pub(super) fn watch_handle(
        &self,
        dir: BorrowedFd<'_>,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<i32, Errno> {
        let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
        match add_watch(self.fd.as_fd(), link.as_str(), MASK) {
            Err(Errno::NOENT) => add_watch(self.fd.as_fd(), path(), MASK | WatchFlags::DONT_FOLLOW),
            answer => answer,
        }
    }

    /// Makes a watch a directory's own; one that was to be given up is kept.
    pub(super) fn adopt(&mut self, node: NodeId, wd: i32) {
        self.retired.remove(&wd);
        self.tree.set_watch(node, wd, mono_ns());
    }

    /// Counts a directory that gets no watch.
    pub(super) fn leave_uncovered(&mut self, key: NodeId, error: Errno) {
        if error == Errno::NOSPC {
            // The user's watches are used up by others: asking again for each directory would only take time.
            self.limit = self.limit.min(self.tree.watches());
        }
        if let Some(parent) = self.tree.parent(key) {
            self.tree.set(parent, flag::LIMITED);
        }
        let Self { uncovered, tree, limit, .. } = self;
        uncovered.add(|| {
            let why = match error {
                Errno::NOSPC => format!("the limit of {limit} watches is reached"),
                Errno::NAMETOOLONG => too_long(),
                error => error.to_string(),
            };
            (tree.path(key, None), why)
        });
    }

    /// Whether a directory of this name is excluded.
    pub(super) fn is_excluded(&self, parent: NodeId, name: &[u8]) -> bool {
        if self.options.exclude.is_empty() {
            return false;
        }
        let path = self.tree.path(parent, Some(name));
        let mut root = parent;
        while let Some(upper) = self.tree.parent(root) {
            root = upper;
        }
        let root = self.tree.path(root, None);
        path.strip_prefix(root).is_ok_and(|relative| self.options.exclude.is_match(relative))
    }

    /// Removes a node and all below it; their watches are given up.
    pub(super) fn forget(&mut self, node: NodeId) {
        let before = self.removals.len();
        self.tree.remove(node, &mut self.removals);
        self.retired.extend(&self.removals[before..]);
    }

    /// Hands an event over, unless the consumer has left too many.
    pub(super) fn push(&mut self, sink: &mut Vec<InotifyEvent>, event: InotifyEvent) -> bool {
        if sink.is_empty() {
            self.sunk = 0;
        }
        if sink.len() >= self.options.max_events.unwrap_or(super::QUEUE) || self.sunk > super::QUEUE_BYTES {
            self.lose(LossReason::OwnQueue, None);
            return false;
        }
        self.sunk += event.path.as_os_str().len();
        sink.push(event);
        true
    }
}
