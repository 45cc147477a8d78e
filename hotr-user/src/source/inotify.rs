//! The inotify channel: a reader that drains the kernel's queue and never waits for consumers.
//!
//! In: roots and the events of one inotify instance. Out: [`InotifyEvent`]s with whole paths, what was lost
//! ([`Lost`]), and which directories have no watch ([`Uncovered`], [`Coverage`]).
//!
//! A new directory is opened, watched, and then read: what lies in it and no event reported comes out as a synthetic
//! creation. A directory is known by its watch descriptor, which `inotify_add_watch` gives again for the same inode
//! (`fs/notify/inotify/inotify_user.c`, `inotify_update_existing_watch`): this, and not the order of names in events,
//! decides where a moved directory is.

mod event;
mod found;
mod heartbeat;
mod limits;
mod read;
mod roots;
mod tree;
mod watch;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::GlobSet;
use rustix::fs::inotify::{CreateFlags, init};

pub use event::{Coverage, Drained, InotifyEvent, Lost, Skipped, Uncovered};
pub use hotr_common::uapi::inotify as mask;
pub use limits::half_of_watches;

use crate::error::Error;
use hotr_events::LossReason;
use tree::{NodeId, Tree};

/// Events passed on by one call of [`InotifySource::drain`] before it stops at what was queued when it began.
const BATCH: usize = 1 << 13;
/// Events in the sink with which a call returns a part: what it found in new directories is more than it read.
const CHUNK: usize = BATCH;
/// Events the consumer may leave in the sink before more are given up.
const QUEUE: usize = 1 << 17;
/// The same in bytes of their paths.
const QUEUE_BYTES: usize = 16 << 20;

/// What an inotify channel is asked to do.
#[derive(Clone, Debug)]
pub struct InotifyOptions {
    /// Whole trees, not just the root directories.
    pub recursive: bool,
    /// Directories whose path relative to their root matches get no watch, nor does anything below them.
    pub exclude: GlobSet,
    /// Watches to use at most; default: half of `fs.inotify.max_user_watches`.
    pub max_watches: Option<usize>,
    /// Events that the sink of [`InotifySource::drain`] may hold before more are given up as
    /// [`LossReason::OwnQueue`]; default: 131,072.
    pub max_events: Option<usize>,
}

impl Default for InotifyOptions {
    fn default() -> Self {
        Self { recursive: true, exclude: GlobSet::empty(), max_watches: None, max_events: None }
    }
}

/// One inotify instance and the directories it watches. Its descriptor (`AsFd`) is readable when there are events.
#[derive(Debug)]
pub struct InotifySource {
    fd: Arc<OwnedFd>,
    options: InotifyOptions,
    limit: usize,
    roots: Vec<roots::Root>,
    tree: Tree,
    lost: Option<Lost>,
    uncovered: Uncovered,
    skipped: Vec<Skipped>,
    buffer: Vec<u8>,
    /// Watches to give up, some at a time: each one puts an event into the queue.
    removals: Vec<i32>,
    /// Watches given up whose `IN_IGNORED` is still to come.
    retired: HashSet<i32>,
    told: found::Found,
    /// Bytes that were queued when a drain began and that its first parts have not read.
    rest: Option<u64>,
    void: Vec<usize>,
    /// Directory moves whose `IN_MOVE_SELF` is still to come.
    moves: Vec<read::Move>,
    /// Directories in which a name had disappeared before it was opened; a rename of one of them or of a directory
    /// above would explain it.
    stale: HashSet<NodeId>,
    /// Inode clock when the queue was last seen empty.
    emptied_at: i64,
    beats: Option<heartbeat::Beats>,
    /// Bytes of paths in the sink.
    sunk: usize,
    /// Directories were moved: paths may have become longer than is watched.
    has_moved: bool,
}

impl InotifySource {
    /// An instance without roots.
    ///
    /// # Errors
    /// [`Error::Channel`] when the kernel gives no instance (limit of instances or open files, no inotify).
    pub fn new(options: InotifyOptions) -> Result<Self, Error> {
        let limit = options.max_watches.unwrap_or_else(half_of_watches);
        Ok(Self {
            fd: open_instance()?,
            options,
            limit,
            roots: Vec::new(),
            tree: Tree::default(),
            lost: None,
            uncovered: Uncovered::default(),
            skipped: Vec::new(),
            buffer: Vec::with_capacity(64 * 1024),
            removals: Vec::new(),
            retired: HashSet::new(),
            told: found::Found::default(),
            rest: None,
            void: Vec::new(),
            moves: Vec::new(),
            stale: HashSet::new(),
            emptied_at: crate::source::clock::inode_clock_ns(),
            beats: None,
            sunk: 0,
            has_moved: false,
        })
    }

    /// Whether [`Self::take_lost`] has something to report.
    pub fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// What was lost since the last call. The remedy is [`Self::rebuild`] and a rescan.
    pub fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// Creates the instance and all watches again from the roots. Events between the loss and the end of this call are
    /// not reported: rescan afterwards. Returns the roots that cannot be watched now; they are tried again by the next
    /// call.
    ///
    /// # Errors
    /// [`Error::Channel`] when the kernel gives no instance.
    pub fn rebuild(&mut self) -> Result<Vec<Error>, Error> {
        let mut roots = std::mem::take(&mut self.roots);
        let fresh = Self::new(self.options.clone());
        match fresh {
            // The former instance is closed here, before any watch is added: its watches count for the limit.
            Ok(fresh) => {
                let (buffer, beats) = (std::mem::take(&mut self.buffer), self.beats.take());
                *self = Self { buffer, beats, ..fresh };
            }
            Err(error) => {
                self.roots = roots;
                return Err(error);
            }
        }
        // An upper directory first: what is below it then belongs to its tree.
        roots.sort_by(|one, other| one.path.cmp(&other.path));
        let mut failed = Vec::new();
        for root in roots {
            if let Err(error) = self.watch_root(&root.path) {
                failed.push(error);
                self.roots.push(roots::Root::absent(root.path));
            }
        }
        // If refused, no heartbeat is expected.
        let _ = self.watch_heart();
        Ok(failed)
    }

    /// Number of watches.
    pub fn watches(&self) -> usize {
        self.tree.watches()
    }

    /// Directories that should have a watch and have none.
    pub fn uncovered(&self) -> &Uncovered {
        &self.uncovered
    }

    /// Directories left out because nothing in them is a file on storage.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether there is a watch on a directory now and since when, or why not.
    pub fn covers(&self, dir: &Path) -> Coverage {
        let best = self
            .tree
            .roots()
            .iter()
            .filter_map(|(node, root)| Some((*node, root, dir.strip_prefix(root).ok()?)))
            .max_by_key(|(_, root, _)| root.as_os_str().len());
        let Some((mut node, _, rest)) = best else { return Coverage::Unwatched };
        for part in rest.components() {
            match self.tree.child(node, part.as_os_str().as_encoded_bytes()) {
                Some(child) => node = child,
                None if self.tree.has(node, tree::flag::LIMITED) => return Coverage::Limit,
                None => return Coverage::Unwatched,
            }
        }
        match self.tree.watched_since(node) {
            Some(since_mono_ns) => Coverage::Watched { since_mono_ns },
            None => Coverage::Unwatched,
        }
    }

    fn lose(&mut self, reason: LossReason, path: Option<PathBuf>) {
        match &mut self.lost {
            Some(lost) => lost.count += 1,
            None => self.lost = Some(Lost { reason, path, count: 1 }),
        }
    }
}

impl AsFd for InotifySource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_instance() -> Result<Arc<OwnedFd>, Error> {
    let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(limits::explain_no_instance)?;
    Ok(Arc::new(fd))
}
