//! The snapshot: for each directory one array of 24-byte records and one run of names, in the order the filesystem
//! lists them. No node has a parent, a sibling or a hash of its own, so a file costs 24 bytes and its name with a NUL;
//! 8 more in a directory where a file's modification time is not its change time.
//!
//! In: attributes. Out: attributes, and paths put together from names. Nothing is rounded or hashed: inode numbers
//! are kept as distances from their directory's (or whole, in a directory where those are too large), sizes of
//! 4 GiB and more in a list of their own.

use std::collections::HashMap;
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::attr::{Attr, Source};
use crate::source::fsinfo::Family;

/// No directory.
pub(super) const NONE: u32 = u32::MAX;
/// The directory above all: its names are the paths of the roots.
pub(super) const TOP: u32 = 0;

const RACY: u32 = 1 << 16;
const LARGE: u32 = 1 << 17;
const DEVICE_SHIFT: u32 = 18;

/// A file. `size` of a directory is its number in the tree.
#[derive(Clone, Copy, Debug)]
struct Record {
    ctime: i64,
    ino: u32,
    size: u32,
    ident: u32,
    /// Mode, flags, and 14 bits of the file's device: 0 for its directory's, else its number plus one.
    bits: u32,
}
const _: () = assert!(size_of::<Record>() == 24);

/// What few directories need.
#[derive(Debug, Default)]
struct Rare {
    /// Upper halves of inode numbers, by slot, when they are not near the directory's.
    high: Vec<u32>,
    large: HashMap<u32, u64>,
}

/// The entries of a directory.
#[derive(Debug, Default)]
pub(super) struct Body {
    records: Box<[Record]>,
    /// Modification times, by slot; none while each is the change time, as it is of files that were only written.
    mtimes: Option<Box<[i64]>>,
    names: Box<[u8]>,
    rare: Option<Box<Rare>>,
}

/// What the entries' encoding is relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base<'a> {
    pub(super) ino: u64,
    pub(super) dev: u64,
    pub(super) devices: &'a [Device],
}

/// A filesystem that has been met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) dev: u64,
    /// Known once one of its directories was opened.
    pub(super) facts: Option<Facts>,
}

/// What matters of a filesystem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) source: Source,
    /// A new or lost name always shows in the directory's times.
    pub(super) dates_names: bool,
    pub(super) is_pseudo: bool,
    /// Inodes can be read in bulk, see `bulk`.
    pub(super) family: Family,
}

impl Body {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn attr(&self, slot: u32, base: Base<'_>) -> Attr {
        let record = &self.records[slot as usize];
        let mode = (record.bits & 0xffff) as u16;
        let high = self.rare.as_ref().and_then(|rare| rare.high.get(slot as usize));
        let ino = match high {
            Some(high) => u64::from(*high) << 32 | u64::from(record.ino),
            None => base.ino.wrapping_add_signed(i64::from(record.ino.cast_signed())),
        };
        let size = match record.bits & LARGE {
            0 => u64::from(record.size),
            _ => self.rare.as_ref().and_then(|rare| rare.large.get(&slot)).copied().unwrap_or(0),
        };
        let dev = match record.bits >> DEVICE_SHIFT {
            0 => base.dev,
            number => base.devices.get(number as usize - 1).map_or(0, |device| device.dev),
        };
        let is_dir = mode & 0o170_000 == 0o040_000;
        Attr {
            dev,
            ino,
            ident: record.ident,
            mode,
            size: if is_dir { 0 } else { size },
            mtime: self.mtimes.as_ref().map_or(record.ctime, |mtimes| mtimes[slot as usize]),
            ctime: record.ctime,
            racy: record.bits & RACY != 0,
        }
    }

    /// Whether the record of a file says all this, but for `ident`: a quick answer for most, no where there is more to look
    /// at. It is what [`super::scan::judge`] calls the same.
    pub(super) fn says(&self, slot: u32, now: &Attr, base: Base<'_>) -> bool {
        let record = &self.records[slot as usize];
        let mtime = self.mtimes.as_ref().map_or(record.ctime, |mtimes| mtimes[slot as usize]);
        // Only the mode: no flag, and no device but its directory's.
        record.bits == u32::from(now.mode)
            && (record.ctime, mtime) == (now.ctime, now.mtime)
            && u64::from(record.size) == now.size
            && base.ino.wrapping_add_signed(i64::from(record.ino.cast_signed())) == now.ino
            && base.dev == now.dev
            && self.rare.is_none()
            && !now.is_dir()
            && !now.racy
    }

    /// The number of a directory among the entries; `NONE` for other files and for directories not looked into.
    pub(super) fn child(&self, slot: u32) -> u32 {
        let record = &self.records[slot as usize];
        if record.bits & 0o170_000 == 0o040_000 { record.size } else { NONE }
    }

    pub(super) fn set_child(&mut self, slot: u32, child: u32) {
        self.records[slot as usize].size = child;
    }

    pub(super) fn set(&mut self, slot: u32, attr: &Attr, child: u32, base: Base<'_>) {
        let delta = attr.ino.wrapping_sub(base.ino).cast_signed();
        let is_near = i32::try_from(delta).is_ok();
        if !is_near && self.rare.as_ref().is_none_or(|rare| rare.high.is_empty()) {
            self.widen(base);
        }
        let mut bits = u32::from(attr.mode) | if attr.racy { RACY } else { 0 };
        bits |= device_number(attr.dev, base) << DEVICE_SHIFT;
        let mut size = child;
        if !attr.is_dir() {
            size = u32::try_from(attr.size).unwrap_or_else(|_| {
                bits |= LARGE;
                self.rare.get_or_insert_default().large.insert(slot, attr.size);
                0
            });
        }
        let mut ino = (attr.ino.wrapping_sub(base.ino) & 0xffff_ffff) as u32;
        if let Some(rare) = self.rare.as_mut().filter(|rare| !rare.high.is_empty()) {
            rare.high[slot as usize] = (attr.ino >> 32) as u32;
            ino = (attr.ino & 0xffff_ffff) as u32;
        }
        if attr.mtime != attr.ctime && self.mtimes.is_none() {
            self.mtimes = Some(self.records.iter().map(|record| record.ctime).collect());
        }
        if let Some(mtimes) = &mut self.mtimes {
            mtimes[slot as usize] = attr.mtime;
        }
        self.records[slot as usize] = Record { ctime: attr.ctime, ino, size, ident: attr.ident, bits };
    }

    fn widen(&mut self, base: Base<'_>) {
        let mut high = vec![0; self.records.len()];
        for (record, high) in self.records.iter_mut().zip(&mut high) {
            let ino = base.ino.wrapping_add_signed(i64::from(record.ino.cast_signed()));
            *high = (ino >> 32) as u32;
            record.ino = (ino & 0xffff_ffff) as u32;
        }
        self.rare.get_or_insert_default().high = high;
    }

    /// Slots and where their names are, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = (u32, u32, &CStr)> {
        let mut at = 0;
        (0..self.records.len() as u32).map(move |slot| {
            let name = self.name(at);
            let here = at;
            at += name.count_bytes() as u32 + 1;
            (slot, here, name)
        })
    }

    pub(super) fn name(&self, at: u32) -> &CStr {
        CStr::from_bytes_until_nul(&self.names[at as usize..]).unwrap_or_default()
    }

    /// A body for these entries. Directories get their number later.
    pub(super) fn build(entries: &[(Attr, u32)], names: Box<[u8]>, base: Base<'_>) -> Self {
        let empty = Record { ctime: 0, ino: 0, size: 0, ident: 0, bits: 0 };
        let records = vec![empty; entries.len()].into();
        let mut body = Self { records, mtimes: None, names, rare: None };
        for (slot, (attr, child)) in (0..).zip(entries) {
            body.set(slot, attr, *child, base);
        }
        body
    }
}

/// 0 for the directory's own; the last number stands for what has no room, and then device 0 is reported.
fn device_number(dev: u64, base: Base<'_>) -> u32 {
    if dev == base.dev {
        return 0;
    }
    let last = (1 << (32 - DEVICE_SHIFT)) - 1;
    let index = base.devices.iter().position(|device| device.dev == dev);
    index.and_then(|index| u32::try_from(index + 1).ok()).unwrap_or(last).min(last)
}

/// A directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) body: Body,
    pub(super) ino: u64,
    pub(super) dev: u64,
    pub(super) parent: u32,
    /// Where its name is among the parent's.
    pub(super) name_at: u32,
    /// Its names are known as of the times that its record holds.
    pub(super) listed: bool,
}

/// All directories, by number.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) dirs: Vec<Dir>,
    pub(super) free: Vec<u32>,
    pub(super) devices: Vec<Device>,
    /// Files and directories, roots included.
    pub(super) count: u64,
    /// The mount table as of the last round; none when it is not known.
    pub(super) mounts: Option<Vec<u8>>,
}

impl Tree {
    pub(super) fn dir(&self, id: u32) -> &Dir {
        &self.dirs[id as usize]
    }

    pub(super) fn dir_mut(&mut self, id: u32) -> &mut Dir {
        &mut self.dirs[id as usize]
    }

    pub(super) fn base(&self, id: u32) -> Base<'_> {
        let dir = self.dir(id);
        Base { ino: dir.ino, dev: dir.dev, devices: &self.devices }
    }

    pub(super) fn attr(&self, id: u32, slot: u32) -> Attr {
        self.dir(id).body.attr(slot, self.base(id))
    }

    /// Adds a directory with this device and inode; returns its number.
    pub(super) fn add(&mut self, parent: u32, name_at: u32, (dev, ino): (u64, u64)) -> u32 {
        let body = Body::default();
        let dir = Dir { body, ino, dev, parent, name_at, listed: false };
        self.note_device(dev);
        if let Some(id) = self.free.pop() {
            *self.dir_mut(id) = dir;
            return id;
        }
        self.dirs.push(dir);
        u32::try_from(self.dirs.len() - 1).unwrap_or(NONE)
    }

    /// Forgets a directory and all below it.
    pub(super) fn remove(&mut self, id: u32) {
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            let body = std::mem::take(&mut self.dir_mut(id).body);
            self.count -= body.len() as u64;
            left.extend((0..body.len() as u32).map(|slot| body.child(slot)).filter(|child| *child != NONE));
            self.dir_mut(id).parent = NONE;
            self.free.push(id);
        }
    }

    pub(super) fn note_device(&mut self, dev: u64) {
        if !self.devices.iter().any(|device| device.dev == dev) {
            self.devices.push(Device { dev, facts: None });
        }
    }

    pub(super) fn path(&self, id: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != TOP {
            let dir = self.dir(at);
            names.push(self.dir(dir.parent).body.name(dir.name_at).to_bytes());
            at = dir.parent;
        }
        let mut path: Vec<u8> = Vec::new();
        for name in names.iter().rev() {
            if !path.is_empty() && !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        PathBuf::from(OsString::from_vec(path))
    }

    pub(super) fn path_of(&self, id: u32, name_at: u32) -> PathBuf {
        let name = self.dir(id).body.name(name_at).to_bytes();
        join(if id == TOP { PathBuf::new() } else { self.path(id) }, name)
    }
}

/// A name below a path; an empty path is left out.
pub(super) fn join(path: PathBuf, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    path.join(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_comes_back_exactly() {
        let devices = [7, 9].map(|dev| Device { dev, facts: None });
        let base = Base { ino: 1 << 40, dev: 7, devices: &devices };
        let file = Attr {
            dev: 7,
            ino: (1 << 40) + 5,
            ident: u32::MAX,
            mode: 0o107_777,
            size: u64::from(u32::MAX),
            mtime: i64::MIN,
            ctime: i64::MAX,
            racy: true,
        };
        let large = Attr { size: 1 << 40, dev: 9, racy: false, ..file };
        let before = Attr { ino: (1 << 40) - 9, ..file };
        let far = Attr { ino: u64::MAX, ..large };
        let dir = Attr { mode: 0o040_755, size: 0, ..file };
        let written = Attr { mtime: 7, ctime: 7, ..file };
        for attrs in [
            vec![file, large, before, dir],
            vec![file, far, before, dir, large],
            vec![written; 3],
            vec![written, file, written],
        ] {
            let entries: Vec<(Attr, u32)> = attrs.iter().map(|attr| (*attr, 77)).collect();
            let names = b"a\0b\0\xff\0long name\0e\0";
            let body = Body::build(&entries, names.as_slice().into(), base);
            for (slot, attr) in (0..).zip(&attrs) {
                assert_eq!(body.attr(slot, base), *attr);
                assert_eq!(body.child(slot), if attr.is_dir() { 77 } else { NONE });
            }
            let listed: Vec<&[u8]> = body.names().map(|(_, _, name)| name.to_bytes()).collect();
            let all: [&[u8]; 5] = [b"a", b"b", b"\xff", b"long name", b"e"];
            assert_eq!(listed, all[..attrs.len()]);
        }
    }
}
