//! What has changed since a point in time, without a baseline: every file whose change time is not before it.
//!
//! In: a root and an inode-clock time. Out: one call for each file or directory. Deleted names leave no trace of
//! their own; their directory's change time shows that something in it happened.

use hotr_common::uapi::INODE_TICK_NS;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use globset::GlobSet;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, open, statx};
use rustix::io::Errno;

use crate::source::difference::nanos;
use crate::source::fsinfo::{Fs, device};
use crate::source::walk::{Descend, Entry, Visitor, Walk, stat_at};
use hotr_events::FileType;

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
#[non_exhaustive]
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
    /// Birth time, nanoseconds since 1970, when the filesystem keeps one: not before the given point in time means that
    /// the file is new.
    pub btime_ns: Option<i64>,
}

/// Walks the tree and calls `found` for everything with a change time not before `since_ns` (nanoseconds since 1970, of
/// `CLOCK_REALTIME`; the coarseness of inode times is allowed for) that `is_known(dev, ino, ctime_ns)` does not know.
/// Directories that cannot be read are passed over. Returns how many entries were read.
///
/// # Errors
/// When the root itself cannot be opened.
pub fn changed_since(
    root: &Path,
    options: &SearchOptions,
    since_ns: i64,
    mut is_known: impl FnMut(u64, u64, i64) -> bool,
    mut found: impl FnMut(Changed),
) -> io::Result<u64> {
    let mut search = Search::new(root, options, since_ns, &mut found)?;
    while search.step(&mut is_known, &mut found) {}
    Ok(search.seen())
}

/// Such a search, which can be gone on with.
pub(crate) struct Search {
    place: SearchPosition,
    walk: Option<Walk<u32>>,
}

impl Search {
    /// Looks at the root, which is not known yet.
    ///
    /// # Errors
    /// As [`changed_since`].
    pub(crate) fn new(
        root: &Path,
        options: &SearchOptions,
        since_ns: i64,
        found: &mut dyn FnMut(Changed),
    ) -> io::Result<Self> {
        let mut place = SearchPosition {
            root: root.to_owned(),
            options: options.clone(),
            since_ns: since_ns.saturating_sub(INODE_TICK_NS),
            dirs: HashMap::from([(0, (0, Box::default()))]),
            next: 1,
            device: None,
            seen: 1,
            too_deep: 0,
        };
        let stat = statx(CWD, root, AtFlags::empty(), WANTED)?;
        let is_known = &mut |_, _, _| false;
        let mut looking = Looking { place: &mut place, is_known, found };
        looking.look(&stat, |place| place.root.clone());
        let mut walk = None;
        if u32::from(stat.stx_mode) & 0o170_000 == 0o040_000 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            walk = Some(Walk::new(&mut looking, open(root, flags, Mode::empty())?, 0));
        }
        Ok(Self { place, walk })
    }

    /// Continues for some entries; `false` when all is done.
    pub(crate) fn step(
        &mut self,
        is_known: &mut dyn FnMut(u64, u64, i64) -> bool,
        found: &mut dyn FnMut(Changed),
    ) -> bool {
        let Self { place, walk } = self;
        walk.as_mut().is_some_and(|walk| walk.step(&mut Looking { place, is_known, found }))
    }

    /// Entries that were read.
    pub(crate) fn seen(&self) -> u64 {
        self.place.seen
    }

    /// Directories that were not looked into because their path is too long.
    pub(crate) fn too_deep(&self) -> u64 {
        self.place.too_deep
    }
}

/// Where a search is.
struct SearchPosition {
    root: PathBuf,
    options: SearchOptions,
    since_ns: i64,
    /// Directories that are open or waiting: number → (parent's number, name). The root is 0.
    dirs: HashMap<u32, (u32, Box<[u8]>)>,
    next: u32,
    device: Option<u64>,
    seen: u64,
    too_deep: u64,
}

/// The visitor of its walk.
struct Looking<'a> {
    place: &'a mut SearchPosition,
    is_known: &'a mut dyn FnMut(u64, u64, i64) -> bool,
    found: &'a mut dyn FnMut(Changed),
}

impl Looking<'_> {
    fn look(&mut self, stat: &Statx, path: impl FnOnce(&SearchPosition) -> PathBuf) {
        let (device, ctime_ns) = (device(stat), nanos(stat.stx_ctime));
        if ctime_ns < self.place.since_ns || (self.is_known)(device, stat.stx_ino, ctime_ns) {
            return;
        }
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let changed = Changed {
            path: path(self.place),
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
}

impl SearchPosition {
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
            path.strip_prefix(&self.root).is_ok_and(|relative| self.options.exclude.is_match(relative))
        }
    }
}

impl Visitor for Looking<'_> {
    type Key = u32;

    fn open(&mut self, _: u32, dir: BorrowedFd<'_>) -> Descend {
        let Ok(stat) = crate::source::walk::stat_fd(dir, StatxFlags::TYPE) else {
            return Descend::Nothing;
        };
        let device = device(&stat);
        if self.place.device.replace(device) != Some(device)
            && Fs::of(dir).is_ok_and(|fs| fs.pseudo.is_some())
        {
            self.place.device = None;
            return Descend::Nothing;
        }
        Descend::Entries
    }

    fn entry(&mut self, parent: u32, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<u32> {
        let name = entry.name.to_bytes();
        if self.place.is_excluded(parent, name) {
            return None;
        }
        let stat = stat_at(dir, entry.name, WANTED).ok()?;
        self.place.seen += 1;
        self.look(&stat, |place| place.path_of(parent, name));
        let is_dir = u32::from(stat.stx_mode) & 0o170_000 == 0o040_000;
        if !is_dir || !self.place.options.recursive {
            return None;
        }
        let key = self.place.next;
        self.place.next = key.checked_add(1)?;
        self.place.dirs.insert(key, (parent, name.into()));
        Some(key)
    }

    fn closed(&mut self, key: u32) {
        self.place.dirs.remove(&key);
    }

    fn failed(&mut self, _: u32, error: Errno) {
        self.place.too_deep += u64::from(error == Errno::NAMETOOLONG);
    }

    fn name(&self, key: u32, name: &mut Vec<u8>) {
        name.extend_from_slice(self.place.dirs.get(&key).map_or(&[], |(_, name)| name));
    }

    fn path(&self, key: u32) -> PathBuf {
        match self.place.dirs.get(&key) {
            Some((parent, name)) if key != 0 => self.place.path_of(*parent, name),
            _ => self.place.root.clone(),
        }
    }
}
