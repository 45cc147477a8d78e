//! Walking directory trees by directory handles: no path is looked up twice, depth and path length have no limit,
//! and a renamed ancestor does not lead the walk astray.
//!
//! In: an open directory and a [`Visitor`]. Out: calls to the visitor. At most [`MAX_OPEN`] handles are open at a
//! time; the deepest chains reopen an upper directory by its path.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, openat, statx};
use rustix::io::{Errno, Result};

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

    /// An entry of a directory; a key for it means that it is a directory to go on with.
    fn entry(&mut self, parent: Self::Key, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<Self::Key>;

    /// A directory, and everything below it, is done.
    fn closed(&mut self, _key: Self::Key) {}

    /// A directory could not be opened or read to its end.
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
    pending: Vec<K>,
}

/// Walks the tree below an open directory, that directory included, depth first.
pub(crate) fn walk<V: Visitor>(visitor: &mut V, start: OwnedFd, key: V::Key) {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut frames: Vec<Frame<V::Key>> = Vec::new();
    let mut name = Vec::with_capacity(256);
    frames.extend(read_dir(visitor, start, key, &mut buffer));
    while let Some(frame) = frames.last_mut() {
        let Some(next) = frame.pending.pop() else {
            visitor.closed(frame.key);
            frames.pop();
            continue;
        };
        if frame.dir.is_none() {
            frame.dir = open_dir(&visitor.path(frame.key)).ok();
        }
        name.clear();
        visitor.name(next, &mut name);
        let opened = frame.dir.as_ref().map_or(Err(Errno::NOENT), |dir| open_at(dir.as_fd(), &name));
        match opened {
            Ok(dir) => {
                let Some(frame) = read_dir(visitor, dir, next, &mut buffer) else {
                    visitor.closed(next);
                    continue;
                };
                frames.push(frame);
                if let Some(depth) = frames.len().checked_sub(MAX_OPEN + 1) {
                    frames[depth].dir = None;
                }
            }
            Err(error) => {
                visitor.failed(next, error);
                visitor.closed(next);
            }
        }
    }
}

/// Shows one directory to the visitor; what is to be walked below it comes back as a frame.
fn read_dir<V: Visitor>(
    visitor: &mut V,
    dir: OwnedFd,
    key: V::Key,
    buffer: &mut Vec<u8>,
) -> Option<Frame<V::Key>> {
    if visitor.open(key, dir.as_fd()) == Descend::Nothing {
        return None;
    }
    let spare: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut listing = RawDir::new(dir.as_fd(), spare);
    let mut pending = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) => continue,
            Err(error) => {
                visitor.failed(key, error);
                break;
            }
        };
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let entry = Entry { name: entry.file_name(), listed_type: entry.file_type() };
        pending.extend(visitor.entry(key, dir.as_fd(), &entry));
    }
    (!pending.is_empty()).then_some(Frame { key, dir: Some(dir), pending })
}
