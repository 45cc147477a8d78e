//! What has changed since a point in time, without a baseline: every file whose change time is not before it.
//!
//! In: a root and an inode-clock time. Out: one call for each file or directory. Deleted names leave no trace of
//! their own; their directory's change time shows that something in it happened.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use globset::GlobSet;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, open, statx};
use rustix::io::Errno;

use crate::event::FileType;
use crate::source::difference::nanos;
use crate::source::fsinfo::{Fs, device};
use crate::source::walk::{Descend, Entry, Visitor, stat_at, walk};

/// The clock of inode times advances with the timer tick, at the slowest 100 times a second: a change may carry
/// a time that is this much before it was made.
const TICK_NS: i64 = 10_000_000;

/// What is asked of each file.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What a search takes in.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Whole trees, not just the root directories.
    pub recursive: bool,
    /// Directories and files left out, by path relative to their root.
    pub exclude: GlobSet,
}

/// A file that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its path.
    pub path: PathBuf,
    /// Device as in the kernel's `s_dev` (on btrfs the subvolume's).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type.
    pub file_type: Option<FileType>,
    /// Size in bytes.
    pub size: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Birth time, nanoseconds since 1970, when the filesystem keeps one: not before the point in time asked for
    /// means that the file is new.
    pub btime_ns: Option<i64>,
}

/// Walks the tree and calls `found` for everything with a change time not before `since_ns` (nanoseconds since
/// 1970, of `CLOCK_REALTIME`; the coarseness of inode times is allowed for) that `is_known(dev, ino, ctime_ns)`
/// does not know. Directories that cannot be read are passed over. Returns how many entries were looked at.
///
/// # Errors
/// When the root itself cannot be opened.
pub fn changed_since(
    root: &Path,
    options: &SearchOptions,
    since_ns: i64,
    is_known: impl FnMut(u64, u64, i64) -> bool,
    found: impl FnMut(Changed),
) -> io::Result<u64> {
    let since_ns = since_ns.saturating_sub(TICK_NS);
    let mut search = Search {
        root,
        options,
        since_ns,
        is_known,
        found,
        dirs: HashMap::from([(0, (0, Box::default()))]),
        next: 1,
        device: None,
        seen: 1,
    };
    let stat = statx(CWD, root, AtFlags::empty(), WANTED)?;
    search.look(&stat, |_| root.to_owned());
    if u32::from(stat.stx_mode) & 0o170_000 == 0o040_000 {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let dir = open(root, flags, Mode::empty())?;
        walk(&mut search, dir, 0);
    }
    Ok(search.seen)
}

struct Search<'a, K, F> {
    root: &'a Path,
    options: &'a SearchOptions,
    since_ns: i64,
    is_known: K,
    found: F,
    /// Directories that are open or waiting: number → (parent's number, name). The root is 0.
    dirs: HashMap<u32, (u32, Box<[u8]>)>,
    next: u32,
    device: Option<u64>,
    seen: u64,
}

impl<K: FnMut(u64, u64, i64) -> bool, F: FnMut(Changed)> Search<'_, K, F> {
    fn look(&mut self, stat: &Statx, path: impl FnOnce(&Self) -> PathBuf) {
        let (device, ctime_ns) = (device(stat), nanos(stat.stx_ctime));
        if ctime_ns < self.since_ns || (self.is_known)(device, stat.stx_ino, ctime_ns) {
            return;
        }
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let changed = Changed {
            path: path(self),
            dev: device,
            ino: stat.stx_ino,
            file_type: FileType::from_mode(u32::from(stat.stx_mode)),
            size: stat.stx_size,
            ctime_ns,
            mtime_ns: nanos(stat.stx_mtime),
            btime_ns: has_birth.then(|| nanos(stat.stx_btime)),
        };
        (self.found)(changed);
    }

    fn path_of(&self, dir: u32, name: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let mut names = vec![name];
        let mut at = dir;
        while let Some((parent, name)) = self.dirs.get(&at).filter(|_| at != 0) {
            names.push(name);
            at = *parent;
        }
        names.reverse();
        let relative = names.join(&b'/');
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(&relative)))
    }

    fn is_excluded(&self, dir: u32, name: &[u8]) -> bool {
        !self.options.exclude.is_empty() && {
            let path = self.path_of(dir, name);
            path.strip_prefix(self.root).is_ok_and(|relative| self.options.exclude.is_match(relative))
        }
    }
}

impl<K: FnMut(u64, u64, i64) -> bool, F: FnMut(Changed)> Visitor for Search<'_, K, F> {
    type Key = u32;

    fn open(&mut self, _: u32, dir: BorrowedFd<'_>) -> Descend {
        let Ok(stat) = crate::source::walk::stat_fd(dir, StatxFlags::TYPE) else {
            return Descend::Nothing;
        };
        let device = device(&stat);
        if self.device.replace(device) != Some(device) && Fs::of(dir).is_ok_and(|fs| fs.pseudo.is_some()) {
            self.device = None;
            return Descend::Nothing;
        }
        Descend::Entries
    }

    fn entry(&mut self, parent: u32, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<u32> {
        let name = entry.name.to_bytes();
        if self.is_excluded(parent, name) {
            return None;
        }
        let stat = stat_at(dir, entry.name, WANTED).ok()?;
        self.seen += 1;
        self.look(&stat, |search| search.path_of(parent, name));
        let is_dir = u32::from(stat.stx_mode) & 0o170_000 == 0o040_000;
        if !is_dir || !self.options.recursive {
            return None;
        }
        let key = self.next;
        self.next = self.next.checked_add(1)?;
        self.dirs.insert(key, (parent, name.into()));
        Some(key)
    }

    fn closed(&mut self, key: u32) {
        self.dirs.remove(&key);
    }

    fn failed(&mut self, _: u32, _: Errno) {}

    fn name(&self, key: u32, name: &mut Vec<u8>) {
        name.extend_from_slice(self.dirs.get(&key).map_or(&[], |(_, name)| name));
    }

    fn path(&self, key: u32) -> PathBuf {
        match self.dirs.get(&key) {
            Some((parent, name)) if key != 0 => self.path_of(*parent, name),
            _ => self.root.to_owned(),
        }
    }
}
