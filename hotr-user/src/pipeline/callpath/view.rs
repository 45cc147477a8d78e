//! How a process sees the file system: with our root directory, or with another; and where an open file lies.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::proc_path::{RootDir, inside_root, without_deleted};
use super::{Answer, CallResolver, Found};
use crate::mounts::{Location, Mount, MountTable, mount_id};

/// Which root directory a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The same as ours: the same mount, the same directory.
    Ours,
    /// Another: of another mount namespace, or after chroot. It is that of this process: the caller, or, when the
    /// caller has ended, one that still is in its namespace.
    Of(u32),
    /// The caller had another, and nobody is left in its namespace.
    Ended,
}

/// A root directory: the same ids mean the same mount, hence the same namespace.
type RootId = (u64, u32, u32, u64);

fn root_id(path: &str) -> Option<RootId> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
    Some((stat.stx_mnt_id, stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// Views by pid, remembered for a moment.
#[derive(Debug)]
pub(super) struct Views {
    ours: Option<RootId>,
    our_namespace: Option<u64>,
    known: HashMap<u32, (Option<RootId>, Instant)>,
    /// Mounts of other namespaces by id, as their processes see them.
    mounts: HashMap<u64, (Mount, Instant)>,
    /// A process of another mount namespace by its number; nothing when none was found.
    members: HashMap<u64, (Option<u32>, Instant)>,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            ours: root_id("/"),
            our_namespace: fs::metadata("/proc/thread-self/ns/mnt").ok().map(|ns| ns.ino()),
            known: HashMap::new(),
            mounts: HashMap::new(),
            members: HashMap::new(),
        }
    }
}

impl Views {
    /// chroot and setns are rare, and a reused pid needs `pid_max` forks: this is short enough.
    const TTL: Duration = Duration::from_secs(1);
    const MAX: usize = 4096;

    pub(super) fn of(&mut self, pid: u32, namespace: Option<u64>, now: Instant) -> View {
        let root = match self.known.get(&pid) {
            Some((root, since)) if now.saturating_duration_since(*since) < Self::TTL => *root,
            _ => {
                let root = root_id(&format!("/proc/{pid}/root"));
                if self.known.len() >= Self::MAX {
                    self.known.clear();
                }
                self.known.insert(pid, (root, now));
                root
            }
        };
        match (root, self.elsewhere(namespace)) {
            (Some(_), _) if root == self.ours => View::Ours,
            (Some(_), _) => View::Of(pid),
            (None, Some(theirs)) => self.member(theirs, now).map_or(View::Ended, View::Of),
            (None, None) => View::Ours,
        }
    }

    /// The process that shows how the caller sees the file system; the caller itself where no other can replace it.
    pub(super) fn witness(&mut self, pid: u32, namespace: Option<u64>, now: Instant) -> u32 {
        match self.elsewhere(namespace).map(|_| self.of(pid, namespace, now)) {
            Some(View::Of(witness)) => witness,
            _ => pid,
        }
    }

    /// The namespace, unless it is ours or unknown.
    fn elsewhere(&self, namespace: Option<u64>) -> Option<u64> {
        namespace.filter(|theirs| Some(*theirs) != self.our_namespace)
    }

    /// To be called when an operation in a process's name failed: whether the process used has exited since it was
    /// found, so that the next try uses another. When none was found, the search is not repeated before its time.
    pub(super) fn doubt(&mut self, pid: u32, namespace: Option<u64>) -> bool {
        let Some(theirs) = self.elsewhere(namespace) else { return false };
        let has_ended = |pid: u32| root_id(&format!("/proc/{pid}/root")).is_none();
        if matches!(self.known.get(&pid), Some((Some(_), _))) && has_ended(pid) {
            self.known.remove(&pid);
            return true;
        }
        match self.members.get(&theirs) {
            Some((Some(member), _)) if has_ended(*member) => self.members.remove(&theirs).is_some(),
            _ => false,
        }
    }

    /// A process that is in this mount namespace. Whoever enters a container ends soon; its first process stays, and
    /// has the lowest number, in whose order they are listed (fs/proc/base.c `proc_pid_readdir`).
    fn member(&mut self, namespace: u64, now: Instant) -> Option<u32> {
        if let Some((member, since)) = self.members.get(&namespace)
            && now.saturating_duration_since(*since) < Self::TTL
        {
            return *member;
        }
        let is_in = |pid: &u32| {
            fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|theirs| theirs.ino() == namespace)
        };
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let member = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_in);
        if self.members.len() >= Self::MAX {
            self.members.clear();
        }
        self.members.insert(namespace, (member, now));
        member
    }

    /// A mount that our namespace does not have, from the table of a process that does; `None` when that process has
    /// exited and no other was used lately.
    pub(super) fn mount(&mut self, id: u64, pid: u32, now: Instant) -> Option<&Mount> {
        let fresh = |(_, since): &(Mount, Instant)| now.saturating_duration_since(*since) < Self::TTL;
        if !self.mounts.get(&id).is_some_and(fresh) {
            self.mounts.remove(&id);
            let mount = MountTable::read_process(pid).ok()?.by_id(id)?.clone();
            if self.mounts.len() >= Self::MAX {
                self.mounts.clear();
            }
            self.mounts.insert(id, (mount, now));
        }
        self.mounts.get(&id).map(|(mount, _)| mount)
    }
}

impl CallResolver {
    /// Where an open file or directory lies; `rooted_at` says whose root directory it was reached from, `None` for ours.
    pub(super) fn locate(&self, fd: &OwnedFd, rooted_at: Option<&RootDir>) -> Answer<Found> {
        let real = path_of(fd).ok_or("/proc does not show the path of an open directory")?;
        let id = mount_id(fd).map_err(|_error| "the mount of a directory cannot be found out")?;
        if let Some(mount) = self.table.by_id(id) {
            let fs_path = mount.fs_path(&real).ok_or("the directory lies outside our root directory")?;
            let location = Location { dev: mount.dev, fs_path };
            return Ok(Found { location, real: Some(real), mount_id: Some(id) });
        }
        let Some(RootDir::Of(pid)) = rooted_at else {
            return Err("it lies on a mount that is newer than the mount table");
        };
        locate_foreign(*pid, &real, id).ok_or("the caller's mounts cannot be read")
    }
}

/// In the caller's table mount points are relative to the caller's root directory; `/proc/self/fd` shows a path from
/// the root of the caller's whole namespace.
fn locate_foreign(pid: u32, real: &Path, id: u64) -> Option<Found> {
    let inside = inside_root(pid, real)?;
    let theirs = MountTable::read_process(pid).ok()?;
    let mount = theirs.by_id(id)?;
    let location = Location { dev: mount.dev, fs_path: mount.fs_path(&inside)? };
    Some(Found { location, real: None, mount_id: Some(id) })
}

fn path_of(fd: &OwnedFd) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd())).ok()?;
    if !path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)") {
        return Some(path);
    }
    // That may also be the name.
    let stat = statx(fd.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::NLINK).ok()?;
    Some(if stat.stx_nlink == 0 { without_deleted(path) } else { path })
}
