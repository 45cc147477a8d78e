//! Reading the roots into nodes: one `statx` an entry, by directory handles.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;

use super::ScanOptions;
use super::nodes::{Id, Meta, Nodes};
use crate::source::fsinfo::Fs;
use crate::source::walk::{Descend, Entry, Visitor, stat_at, walk};

/// What a scan asks for.
pub(super) const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

struct Scan<'a> {
    nodes: Nodes,
    options: &'a ScanOptions,
    is_full: bool,
}

/// Reads all roots.
pub(super) fn read(roots: &[PathBuf], options: &ScanOptions) -> io::Result<Nodes> {
    let mut scan = Scan { nodes: Nodes::default(), options, is_full: false };
    for root in roots {
        scan.root(root);
    }
    if scan.is_full {
        let text = "the trees hold more names than a snapshot can; give smaller roots";
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    Ok(scan.nodes)
}

impl Scan<'_> {
    fn root(&mut self, path: &Path) {
        // The user named it: a symbolic link is followed here, and nowhere below.
        let Ok(stat) = statx(CWD, path, AtFlags::empty(), WANTED) else { return };
        let added = self.nodes.meta(&stat).and_then(|meta| Some((self.nodes.add_root(path, meta)?, meta)));
        let Some((id, meta)) = self.room(added) else { return };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if meta.is_dir()
            && let Ok(dir) = open(path, flags, Mode::empty())
        {
            walk(self, dir, id);
        }
    }

    fn room<T>(&mut self, added: Option<T>) -> Option<T> {
        self.is_full |= added.is_none();
        added
    }

    fn add(&mut self, parent: Id, name: &[u8], stat: &rustix::fs::Statx) -> Option<(Id, Meta)> {
        let added = self.nodes.meta(stat).and_then(|meta| Some((self.nodes.add(parent, name, meta)?, meta)));
        self.room(added)
    }

    fn is_excluded(&self, parent: Id, name: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        if self.options.exclude.is_empty() {
            return false;
        }
        let mut relative = vec![name];
        let mut at = parent;
        while let Some(upper) = self.nodes.parent(at) {
            relative.push(self.nodes.name(at));
            at = upper;
        }
        relative.reverse();
        self.options.exclude.is_match(Path::new(std::ffi::OsStr::from_bytes(&relative.join(&b'/'))))
    }
}

impl Visitor for Scan<'_> {
    type Key = Id;

    fn open(&mut self, key: Id, dir: BorrowedFd<'_>) -> Descend {
        let is_other_fs = match self.nodes.parent(key) {
            Some(parent) => self.nodes.device(parent) != self.nodes.device(key),
            None => true,
        };
        if is_other_fs && Fs::of(dir.as_fd()).is_ok_and(|fs| fs.pseudo.is_some()) {
            return Descend::Nothing;
        }
        Descend::Entries
    }

    fn entry(&mut self, parent: Id, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Option<Id> {
        let name = entry.name.to_bytes();
        if self.is_full || self.is_excluded(parent, name) {
            return None;
        }
        let stat = stat_at(dir, entry.name, WANTED).ok()?;
        let (id, meta) = self.add(parent, name, &stat)?;
        (meta.is_dir() && self.options.recursive).then_some(id)
    }

    /// It has gone since it was listed, or may not be read: the snapshot has the name and nothing below it.
    fn failed(&mut self, _: Id, _: Errno) {}

    fn name(&self, key: Id, name: &mut Vec<u8>) {
        name.extend_from_slice(self.nodes.name(key));
    }

    fn path(&self, key: Id) -> PathBuf {
        self.nodes.path(key)
    }
}
