//! Walking directory trees by directory handles: no path is looked up twice, and a renamed ancestor does not lead the
//! walk astray. Paths have at most [`LONGEST_PATH`] bytes: a tree of 3,000 levels would take gigabytes to name.
//!
//! In: an open directory and a [`Visitor`]. Out: calls to the visitor. At most [`MAX_OPEN`] handles are open at a time;
//! the deepest chains reopen an upper directory by its path. A walk continues in steps ([`Walk::step`]), or runs at
//! once ([`walk`]): then it stops when a signal requests the end ([`ending`]), and what it did not reach is unknown.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, openat, statx};
use rustix::io::{Errno, Result};

use crate::ending;

/// Bytes of the longest path of a directory that is looked into: as many as a record of the kernel side takes.
pub(crate) const LONGEST_PATH: usize = hotr_common::record::LARGE_PATHS;
/// Directory handles held open at a time.
const MAX_OPEN: usize = 64;
/// Bytes of directory entries read at a time.
const BUFFER: usize = 64 * 1024;
/// Paths are looked up in pieces of this size: the kernel takes at most 4095 bytes at once.
const PIECE: usize = 2048;

/// What to read of an opened directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descend {
    /// Nothing: it is of no interest, or it is known to have no entries that are.
    Nothing,
    /// The entries.
    Entries,
}

/// What a walk is for.
pub(crate) trait Visitor {
    /// Names a directory.
    type Key: Copy;

    /// A directory was opened and is about to be read.
    fn open(&mut self, key: Self::Key, dir: BorrowedFd<'_>) -> Descend;

    /// An entry of a directory; a key for it means that it is a directory to enter.
    fn entry(&mut self, parent: Self::Key, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<Self::Key>;

    /// A directory, and everything below it, is done.
    fn closed(&mut self, _key: Self::Key) {}

    /// A directory could not be opened or read to its end; `NAMETOOLONG`: its path is longer than [`LONGEST_PATH`].
    fn failed(&mut self, key: Self::Key, error: Errno);

    /// The last component of a directory's path, appended to `name`.
    fn name(&self, key: Self::Key, name: &mut Vec<u8>);

    /// The whole path of a directory.
    fn path(&self, key: Self::Key) -> PathBuf;
}

/// An entry as the directory lists it.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name.
    pub(crate) name: &'a CStr,
    listed_type: FileType,
}

impl Entry<'_> {
    /// Whether it is a directory; asks the inode when the filesystem's listing does not say.
    pub(crate) fn is_dir(&self, dir: BorrowedFd<'_>) -> bool {
        match self.listed_type {
            FileType::Directory => true,
            FileType::Unknown => stat_at(dir, self.name, StatxFlags::TYPE)
                .is_ok_and(|stat| u32::from(stat.stx_mode) & 0o170_000 == 0o040_000),
            _ => false,
        }
    }
}

/// Attributes of a directory's entry; a symbolic link's own, and nothing gets mounted by asking.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr, want: StatxFlags) -> Result<Statx> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, want)
}

/// Attributes of an open file.
pub(crate) fn stat_fd(file: BorrowedFd<'_>, want: StatxFlags) -> Result<Statx> {
    statx(file, c"", AtFlags::EMPTY_PATH, want)
}

/// Opens a directory for reading; a symbolic link as the last component is refused (`NOTDIR` or `LOOP`).
/// The path may be longer than the kernel takes at once.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let mut base: Option<OwnedFd> = None;
    let mut rest = path.as_os_str().as_bytes();
    while rest.len() > PIECE {
        let Some(cut) = rest[..PIECE].iter().rposition(|byte| *byte == b'/').filter(|cut| *cut > 0) else {
            return Err(Errno::NAMETOOLONG);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let next = openat(base.as_ref().map_or(CWD, AsFd::as_fd), &rest[..cut], flags, Mode::empty())?;
        base = Some(next);
        let skip = rest[cut..].iter().take_while(|byte| **byte == b'/').count();
        rest = &rest[cut + skip..];
    }
    open_at(base.as_ref().map_or(CWD, AsFd::as_fd), if rest.is_empty() { b"." } else { rest })
}

fn open_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

struct Frame<K> {
    key: K,
    dir: Option<OwnedFd>,
    /// Bytes of its path.
    len: usize,
    /// There is more to read of it.
    reading: bool,
    pending: Vec<K>,
}

/// Walks the tree below an open directory, that directory included, depth first.
pub(crate) fn walk<V: Visitor>(visitor: &mut V, start: OwnedFd, key: V::Key) {
    let mut walk = Walk::new(visitor, start, key);
    while walk.step(visitor) {
        if ending::is_asked() {
            return ending::cut(1);
        }
    }
}

/// A walk that can be gone on with.
pub(crate) struct Walk<K> {
    frames: Vec<Frame<K>>,
    buffer: Vec<u8>,
    name: Vec<u8>,
}

impl<K: Copy> Walk<K> {
    /// Opens the first directory to the visitor; nothing is read of it yet.
    pub(crate) fn new<V: Visitor<Key = K>>(visitor: &mut V, start: OwnedFd, key: K) -> Self {
        let mut walk =
            Self { frames: Vec::new(), buffer: Vec::with_capacity(BUFFER), name: Vec::with_capacity(256) };
        let len = visitor.path(key).as_os_str().len();
        walk.enter(visitor, start, key, len);
        walk
    }

    /// Reads some entries of a directory, or continues with the next one; `false` when all is done.
    pub(crate) fn step<V: Visitor<Key = K>>(&mut self, visitor: &mut V) -> bool {
        let Some(frame) = self.frames.last_mut() else { return false };
        if frame.reading {
            frame.read(visitor, &mut self.buffer);
            return true;
        }
        let Some(next) = frame.pending.pop() else {
            visitor.closed(frame.key);
            self.frames.pop();
            return !self.frames.is_empty();
        };
        self.name.clear();
        visitor.name(next, &mut self.name);
        let len = frame.len + 1 + self.name.len();
        let opened = if len > LONGEST_PATH {
            Err(Errno::NAMETOOLONG)
        } else {
            if frame.dir.is_none() {
                frame.dir = open_dir(&visitor.path(frame.key)).ok();
            }
            frame.dir.as_ref().map_or(Err(Errno::NOENT), |dir| open_at(dir.as_fd(), &self.name))
        };
        match opened {
            Ok(dir) => self.enter(visitor, dir, next, len),
            Err(error) => {
                visitor.failed(next, error);
                visitor.closed(next);
            }
        }
        true
    }

    fn enter<V: Visitor<Key = K>>(&mut self, visitor: &mut V, dir: OwnedFd, key: K, len: usize) {
        if visitor.open(key, dir.as_fd()) == Descend::Nothing {
            visitor.closed(key);
            return;
        }
        self.frames.push(Frame { key, dir: Some(dir), len, reading: true, pending: Vec::new() });
        if let Some(depth) = self.frames.len().checked_sub(MAX_OPEN + 1) {
            self.frames[depth].dir = None;
        }
    }
}

impl<K: Copy> Frame<K> {
    /// Shows a buffer's worth of the directory to the visitor.
    fn read<V: Visitor<Key = K>>(&mut self, visitor: &mut V, buffer: &mut Vec<u8>) {
        self.reading = false;
        let Some(dir) = &self.dir else { return };
        let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
        let mut listing = RawDir::new(dir.as_fd(), spare);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(error) => return visitor.failed(self.key, error),
            };
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                let entry = Entry { name: entry.file_name(), listed_type: entry.file_type() };
                self.pending.extend(visitor.entry(self.key, dir.as_fd(), &entry));
            }
            if listing.is_buffer_empty() {
                self.reading = true;
                return;
            }
        }
    }
}
