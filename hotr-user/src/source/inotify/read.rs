//! Reading the queue: each event becomes a whole path, and keeps the tree of watched directories true.
//!
//! In: the instance's descriptor. Out: [`InotifyEvent`]s in the order of the queue.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::inotify::{Reader, remove_watch};
use rustix::io::{Errno, ioctl_fionread};

use super::tree::{NodeId, flag};
use super::watch::{Mode, Watching, too_long};
use super::{BATCH, CHUNK, Drained, InotifyEvent, InotifySource, mask};
use crate::ending;
use crate::error::Error;
use crate::source::clock::{inode_clock_ns, mono_ns};
use crate::source::walk::{LONGEST_PATH, open_dir, walk};
use hotr_events::LossReason;

/// Watches given up at a time. Each puts an `IN_IGNORED` into a queue of 16,384 events by default: giving up a
/// large tree at once would itself make the queue overflow.
const REMOVALS: usize = 1024;
/// Room for any event: no name is longer than a path may be. A read that leaves this much has found the queue empty
/// (fs/notify/inotify/inotify_user.c `inotify_read`).
const LARGEST_EVENT: usize = 16 + libc::PATH_MAX as usize;
/// Directory moves remembered until their `IN_MOVE_SELF`, which follows at once.
const MOVES: usize = 64;

/// A directory that moved, as far as the names show.
#[derive(Debug)]
pub(super) struct Move {
    cookie: u32,
    from: (NodeId, Box<[u8]>),
    to: Option<(NodeId, Box<[u8]>)>,
}

/// An event as the kernel gave it.
#[derive(Clone, Copy)]
struct Record<'a> {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Option<&'a [u8]>,
    read_mono_ns: u64,
}

impl InotifySource {
    /// Reads until the queue is empty, or, under a storm, until everything that was queued at the call and many
    /// more events have been read. Never blocks, and never waits for the consumer of `sink`.
    ///
    /// # Errors
    /// [`Error::Os`] when the descriptor cannot be read.
    pub fn drain(&mut self, sink: &mut Vec<InotifyEvent>) -> Result<Drained, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let answer = self.read_all(buffer.spare_capacity_mut(), sink);
        self.buffer = buffer;
        self.remove_void(sink);
        match answer {
            Ok(drained) => Ok(drained),
            Err(error) => Err(Error::Os {
                operation: "read",
                object: "the inotify queue".into(),
                source: error.into(),
                next: "use --channels ebpf",
            }),
        }
    }

    fn read_all(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        sink: &mut Vec<InotifyEvent>,
    ) -> Result<Drained, Errno> {
        let fd = Arc::clone(&self.fd);
        let room = buffer.len();
        let mut reader = Reader::new(fd.as_fd(), buffer);
        let (mut count, mut read_mono_ns, mut before_read) = (0, 0, 0);
        let is_rest = self.rest.is_some();
        // Bytes of the last read that were returned, and bytes queued when a second one became necessary.
        let (mut taken, mut waiting) = (0, self.rest.take());
        loop {
            let refill = reader.is_buffer_empty();
            let is_empty = refill && taken > 0 && taken + LARGEST_EVENT <= room && self.is_settled();
            if refill && !is_empty {
                if count > 0 && waiting.is_none() {
                    waiting = Some(ioctl_fionread(fd.as_fd())?);
                    self.told.begin();
                }
                if ending::is_over() {
                    ending::cut(1);
                    return Ok(Drained::ENOUGH);
                }
                if (count > BATCH || is_rest) && waiting == Some(0) {
                    self.told.end();
                    return Ok(Drained::ENOUGH);
                }
                if count > 0 && waiting.is_some() && sink.len() >= CHUNK {
                    self.rest = waiting;
                    self.told.hand_over();
                    return Ok(Drained { emptied: false, is_part: true });
                }
                before_read = inode_clock_ns();
            }
            if refill {
                taken = 0;
            }
            match if is_empty { Err(Errno::AGAIN) } else { reader.next() } {
                Ok(event) => {
                    if refill {
                        read_mono_ns = mono_ns();
                    }
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    // The kernel pads names to the size of the header; this never takes more than was read.
                    let size = 16 + name.map_or(0, |name| (name.len() + 1).next_multiple_of(16));
                    waiting = waiting.map(|waiting| waiting.saturating_sub(size as u64));
                    taken += size;
                    count += 1;
                    let mask = event.events().bits();
                    let record = Record { wd: event.wd(), mask, cookie: event.cookie(), name, read_mono_ns };
                    self.take(record, sink);
                }
                Err(Errno::AGAIN) if self.removals.is_empty() => {
                    self.emptied_at = before_read;
                    self.told.clear();
                    self.stale.clear();
                    return Ok(Drained { emptied: true, is_part: false });
                }
                Err(Errno::AGAIN) => self.give_up_watches(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing was found out while events were read that later ones must be compared with.
    fn is_settled(&self) -> bool {
        self.told.is_empty() && self.stale.is_empty() && self.removals.is_empty()
    }

    fn give_up_watches(&mut self) {
        let rest = self.removals.len().saturating_sub(REMOVALS);
        for wd in self.removals.drain(rest..) {
            // One that is not retired any more belongs to a directory that came back.
            if self.retired.contains(&wd) {
                // INVAL: the kernel was first, and its IN_IGNORED is on the way.
                let _ = remove_watch(self.fd.as_fd(), wd);
            }
        }
    }

    /// Gives up a watch that was added to find out what a path leads to.
    fn give_back(&mut self, wd: i32) {
        self.retired.insert(wd);
        let _ = remove_watch(self.fd.as_fd(), wd);
    }

    fn take(&mut self, record: Record<'_>, sink: &mut Vec<InotifyEvent>) {
        if record.mask & mask::Q_OVERFLOW != 0 {
            self.lose(LossReason::QueueOverflow, None);
            self.push(sink, record.event(std::path::PathBuf::new(), false));
            return;
        }
        let Some(node) = self.tree.by_wd(record.wd) else {
            if self.is_beat(record.wd) {
                return;
            }
            if !self.retired.contains(&record.wd) {
                self.lose(LossReason::UnknownWatch, None);
            } else if record.mask & mask::IGNORED != 0 {
                self.retired.remove(&record.wd);
            }
            return;
        };
        if self.has_moved && self.tree.path_len(node) > LONGEST_PATH {
            // It was moved so far down that each event would name a path longer than is watched.
            self.leave_uncovered(node, Errno::NAMETOOLONG);
            return self.forget(node);
        }
        self.hand_over(node, record, sink);
        if record.mask & (mask::DELETE_SELF | mask::UNMOUNT) != 0 {
            self.tree.set(node, flag::GONE);
        }
        if record.mask & mask::UNMOUNT != 0 {
            // The kernel reports it of each inode, in no order of ours (fs/notify/fsnotify.c
            // `fsnotify_unmount_inodes`), and the first may be read long before the last.
            let mount = self.tree.mount_point(node);
            self.lose(LossReason::Unmounted, Some(self.tree.path(mount, None)));
        }
        if record.mask & mask::IGNORED != 0 {
            self.watch_ended(node, record.wd);
        } else if record.mask & mask::MOVE_SELF != 0 {
            self.moved_itself(node);
        } else if let Some(name) = record.name.filter(|_| record.mask & mask::ISDIR != 0) {
            self.directory_named(node, name, record, sink);
        }
    }

    fn hand_over(&mut self, node: NodeId, record: Record<'_>, sink: &mut Vec<InotifyEvent>) {
        let is_root = self.tree.parent(node).is_none();
        let names_only = self.tree.has(node, flag::NAMES_ONLY);
        let path = match record.name {
            Some(name) if names_only => match self.file_root(node, name) {
                Some(root) => root.to_owned(),
                None => return,
            },
            None if names_only => return,
            name => self.tree.path(node, name),
        };
        if let Some(name) = record.name.filter(|_| record.mask & (mask::CREATE | mask::MOVED_TO) != 0)
            && let Some(at) = self.told.take(record.wd, name)
        {
            if record.mask & mask::CREATE != 0 {
                // Reported already, as a synthetic creation.
                return;
            }
            // The entry came by a rename: the synthetic creation was a mistake.
            self.void.extend(at);
        }
        if let Some(name) = record.name.filter(|_| record.mask & (mask::DELETE | mask::MOVED_FROM) != 0) {
            // What gets this name now is another one.
            self.told.take(record.wd, name);
        }
        self.push(sink, record.event(path, is_root && record.name.is_none()));
    }

    /// A directory's name appeared, left or arrived.
    fn directory_named(
        &mut self,
        parent: NodeId,
        name: &[u8],
        record: Record<'_>,
        sink: &mut Vec<InotifyEvent>,
    ) {
        if !self.options.recursive || self.tree.has(parent, flag::NAMES_ONLY) {
            return;
        }
        if record.mask & mask::MOVED_FROM != 0 {
            if self.moves.len() >= MOVES {
                self.moves.remove(0);
            }
            self.moves.push(Move { cookie: record.cookie, from: (parent, name.into()), to: None });
        } else if record.mask & mask::MOVED_TO != 0 {
            let known = self.moves.iter_mut().find(|one| one.cookie == record.cookie);
            let mode = if known.is_some() { Mode::New } else { Mode::MovedIn { since: self.emptied_at } };
            if let Some(one) = known {
                one.to = Some((parent, name.into()));
            }
            if self.arrive(parent, name, mode, record.read_mono_ns, sink) {
                self.moves.retain(|one| one.cookie != record.cookie);
            }
        } else if record.mask & mask::CREATE != 0 {
            self.arrive(parent, name, Mode::New, record.read_mono_ns, sink);
        } else if record.mask & mask::ATTRIB != 0
            && self.tree.child(parent, name).is_none_or(|node| self.tree.wd(node).is_none())
        {
            self.look_at_unwatched(parent, name, record.read_mono_ns, sink);
        }
    }

    /// A directory without a watch got other attributes: it may be readable now. What it held before is not new.
    fn look_at_unwatched(
        &mut self,
        parent: NodeId,
        name: &[u8],
        read_mono_ns: u64,
        sink: &mut Vec<InotifyEvent>,
    ) {
        let path = self.tree.path(parent, Some(name));
        // Where it still cannot be watched it is counted already.
        if self.tree.watches() < self.limit && open_dir(&path).is_ok() {
            self.uncovered.remove(&path);
            self.arrive(parent, name, Mode::MovedIn { since: self.emptied_at }, read_mono_ns, sink);
        }
    }

    /// Finds out which directory a name leads to now. `true`: a known one, which is where it belongs now.
    fn arrive(
        &mut self,
        parent: NodeId,
        name: &[u8],
        mode: Mode,
        read_mono_ns: u64,
        sink: &mut Vec<InotifyEvent>,
    ) -> bool {
        if self.is_excluded(parent, name) {
            return false;
        }
        let path = self.tree.path(parent, Some(name));
        let is_too_long = path.as_os_str().len() > LONGEST_PATH;
        let dir = match if is_too_long { Err(Errno::NAMETOOLONG) } else { open_dir(&path) } {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.stale.insert(parent);
                return false;
            }
            Err(error) => {
                self.tree.set(parent, flag::LIMITED);
                let why = || if is_too_long { too_long() } else { error.to_string() };
                self.uncovered.add(|| (path, why()));
                return false;
            }
        };
        let wd = self.watch_handle(dir.as_fd(), || path).ok();
        if let Some(node) = wd.and_then(|wd| self.tree.by_wd(wd)) {
            if !self.tree.is_at(node, parent, name) && self.tree.relocate(node, parent, name) {
                self.has_moved = true;
                self.look_again_below(node, read_mono_ns, sink);
            }
            return true;
        }
        if let Some(former) = self.tree.child(parent, name) {
            self.tree.detach(former);
        }
        let has_room = self.tree.watches() < self.limit;
        let node = self.tree.add(parent, name);
        match (wd, node) {
            (Some(wd), Some(node)) if has_room => self.adopt(node, wd),
            (Some(wd), _) => self.give_back(wd),
            (None, _) => {}
        }
        if let Some(node) = node {
            walk(&mut Watching::new(self, mode).with_synthetic_creates(sink, read_mono_ns), dir, node);
        }
        false
    }

    /// A directory has a new path: names that were not found under the old one may be under this.
    fn look_again_below(&mut self, node: NodeId, read_mono_ns: u64, sink: &mut Vec<InotifyEvent>) {
        let (again, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stale).into_iter().partition(|stale| {
                self.tree.is_living(*stale) && (*stale == node || self.tree.is_below(*stale, node))
            });
        self.stale.extend(rest);
        for top in again {
            if let Ok(dir) = open_dir(&self.tree.path(top, None)) {
                walk(
                    &mut Watching::new(self, Mode::Again { top }).with_synthetic_creates(sink, read_mono_ns),
                    dir,
                    top,
                );
            }
        }
    }

    /// `IN_MOVE_SELF`: to where its name was last seen arriving, or out of all roots.
    fn moved_itself(&mut self, node: NodeId) {
        let Some(parent) = self.tree.parent(node) else {
            self.lose(LossReason::RootMoved, Some(self.tree.path(node, None)));
            return;
        };
        if self.is_where_believed(node) {
            return;
        }
        let name = self.tree.name(node);
        let is_this = |one: &Move| one.from.0 == parent && *one.from.1 == *name;
        let Some(at) = self.moves.iter().rposition(is_this) else { return };
        let Move { from, to, .. } = self.moves.remove(at);
        self.moves.retain(|one| one.from != from);
        match to {
            Some((parent, name)) if self.tree.is_living(parent) => {
                self.has_moved |= self.tree.relocate(node, parent, &name);
            }
            _ => self.forget(node),
        }
    }

    /// Whether the path of a directory leads to it. Names in events may be behind: what was found by opening a path
    /// for an earlier event may already be the outcome of this one.
    fn is_where_believed(&mut self, node: NodeId) -> bool {
        let path = self.tree.path(node, None);
        let Ok(dir) = open_dir(&path) else { return false };
        let Ok(wd) = self.watch_handle(dir.as_fd(), || path) else { return false };
        let found = self.tree.by_wd(wd);
        if found.is_none() && !self.retired.contains(&wd) {
            self.give_back(wd);
        }
        found == Some(node)
    }

    /// `IN_IGNORED` of a watch that was not given up by us.
    fn watch_ended(&mut self, node: NodeId, wd: i32) {
        let path = self.tree.path(node, None);
        if !self.tree.has(node, flag::GONE) {
            self.lose(LossReason::WatchRemoved, Some(path));
        } else if self.tree.parent(node).is_none() {
            self.lose(LossReason::RootDeleted, Some(path));
        }
        self.forget(node);
        self.retired.remove(&wd);
    }

    fn remove_void(&mut self, sink: &mut Vec<InotifyEvent>) {
        if self.void.is_empty() {
            return;
        }
        let mut void = std::mem::take(&mut self.void);
        void.sort_unstable();
        let mut at = 0;
        sink.retain(|_| {
            at += 1;
            void.binary_search(&(at - 1)).is_err()
        });
    }
}

impl Record<'_> {
    fn event(&self, path: std::path::PathBuf, of_root: bool) -> InotifyEvent {
        InotifyEvent {
            read_mono_ns: self.read_mono_ns,
            wd: self.wd,
            mask: self.mask,
            cookie: self.cookie,
            path,
            has_name: self.name.is_some(),
            of_root,
            synthetic: false,
        }
    }
}
