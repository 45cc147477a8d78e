//! Bad content that was taken out of its place: kept beside it.
//!
//! In: a name in a held directory. Out: the same inode as `.hotr-bad-NAME` there. Nothing is removed by this but an earlier
//! bad content of the same path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::journal::{self, For};
use super::new_name::with_new_name;
use super::tree::Spot;
use crate::beneath::Dir;

/// Begin of the names.
const PREFIX: &[u8] = b".hotr-bad-";
/// Bytes that a name may have.
const NAME_MAX: usize = 255;

/// The name for the bad content of a path: cut where it would be too long.
fn name_for(name: &OsStr) -> OsString {
    let mut bytes = [PREFIX, name.as_bytes()].concat();
    bytes.truncate(NAME_MAX);
    OsString::from_vec(bytes)
}

/// Gives what has the temporary name `aside` its lasting one. Where that cannot be, it stays as it is. Returns the name.
pub(super) fn keep(spot: &Spot, aside: OsString) -> OsString {
    let name = name_for(&spot.name);
    let moved = match renameat_with(&spot.dir, &aside, &spot.dir, &name, RenameFlags::NOREPLACE) {
        Ok(()) => true,
        // Where there is no such flag, the name may be free all the same.
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            is_replaceable(spot, &name) && renameat(&spot.dir, &aside, &spot.dir, &name).is_ok()
        }
        Err(_) => false,
    };
    if moved && is_same(spot, &name, &aside) {
        // Two names of one file change nothing when the one is renamed to the other.
        let _ = unlinkat(&spot.dir, &aside, AtFlags::empty());
    }
    if moved { name } else { aside }
}

fn is_same(spot: &Spot, one: &OsStr, other: &OsStr) -> bool {
    let id = |name| statat(&spot.dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

fn is_replaceable(spot: &Spot, name: &OsStr) -> bool {
    match statat(&spot.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => matches!(there.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFLNK),
        Err(errno) => errno == Errno::NOENT,
    }
}

/// A second name for what is in its place and will be replaced; None where there are no hard links.
pub(super) fn link(spot: &Spot, place: &Dir) -> Option<OsString> {
    let there = spot.stat().ok()?;
    let linked = with_new_name(|aside| {
        journal::begin(place, For::Found, spot, aside, Some(&there))?;
        Ok(linkat(&spot.dir, &spot.name, &spot.dir, aside, AtFlags::empty())?)
    });
    linked.ok().map(|(aside, ())| aside)
}
