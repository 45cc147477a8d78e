//! What git says about files: its ignore rules, and where a repository keeps its state.
//!
//! In: directories, which may belong to anybody. Out: rules and the directory behind `.git`. Whoever owns a watched
//! tree wrote these files, so each is opened without following links or waiting, must be a regular file, and is read up
//! to a limit. A `.git` that leads elsewhere is followed only where its owner owns the place too: otherwise it would
//! say what is in directories that only root can read.

mod pattern;
pub(super) mod rules;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, readlinkat, statat};
use rustix::io::Errno;

use crate::beneath::{Dir, NoFile, regular};

/// Most bytes of a `.git` or `commondir` file: a path and a few words.
const POINTER_LIMIT: u64 = 8192;

/// Why a small file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// There is none.
    Absent,
    /// A symbolic link.
    Link,
    /// A directory, a pipe, a socket or a device.
    Irregular,
    /// It has more bytes than this.
    Large(u64),
    /// Its owner is not one of those that may decide.
    Owner(u32),
    /// The kernel refused.
    Refused(Errno),
}

impl Unread {
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Absent,
            Errno::LOOP => Self::Link,
            errno => Self::Refused(errno),
        }
    }

    /// A cause in words; none when the file is simply not there.
    pub(super) fn why(self) -> Option<String> {
        Some(match self {
            Self::Absent => return None,
            Self::Link => "it is a symbolic link, or behind one".to_owned(),
            Self::Irregular => "it is not a regular file".to_owned(),
            Self::Large(limit) => format!("it is larger than {} KiB", limit / 1024),
            Self::Owner(uid) => format!("it belongs to user {uid}"),
            Self::Refused(errno) => std::io::Error::from(errno).to_string(),
        })
    }
}

/// Reads a regular file of a directory, never more than `limit` bytes. `owners`: who may have written it; none: anybody.
pub(super) fn read_small(
    dir: BorrowedFd<'_>,
    name: &str,
    limit: u64,
    owners: Option<&[u32]>,
) -> Result<(Vec<u8>, u32), Unread> {
    let (file, stat) = regular(dir, OsStr::new(name)).map_err(|instead| match instead {
        NoFile::Link => Unread::Link,
        NoFile::Irregular => Unread::Irregular,
        NoFile::Refused(errno) => Unread::of(errno),
    })?;
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
        return Err(Unread::Large(limit));
    }
    if owners.is_some_and(|owners| !owners.contains(&stat.st_uid)) {
        return Err(Unread::Owner(stat.st_uid));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Unread::Refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    if bytes.len() as u64 > limit { Err(Unread::Large(limit)) } else { Ok((bytes, stat.st_uid)) }
}

/// Where a repository keeps the state of a working tree.
#[derive(Debug)]
pub(super) struct GitDir {
    /// The directory, held.
    pub(super) dir: Dir,
    /// Its path, for humans.
    pub(super) path: PathBuf,
    /// The owner of `.git`.
    pub(super) owner: u32,
}

impl GitDir {
    /// Of the working tree at `dir`, whose path is `path`: `.git` itself, or what it leads to (a submodule, a further
    /// worktree, a link).
    pub(super) fn of(dir: BorrowedFd<'_>, path: &Path) -> Option<Self> {
        let stat = statat(dir, ".git", AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).ok()?;
        let dot_git = path.join(".git");
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let dir = Dir::search_in(dir, OsStr::new(".git")).ok()?;
                Some(Self { owner: dir.stat().ok()?.st_uid, dir, path: dot_git })
            }
            FileType::Symlink => {
                let target = readlinkat(dir, ".git", Vec::new()).ok()?;
                Self::led(path, target.as_bytes(), stat.st_uid)
            }
            FileType::RegularFile => {
                let (text, owner) = read_small(dir, ".git", POINTER_LIMIT, None).ok()?;
                Self::led(path, text.strip_prefix(b"gitdir:")?.trim_ascii(), owner)
            }
            _ => None,
        }
    }

    /// What a pointer in the directory `from` leads to, if the pointer's owner may lead there.
    fn led(from: &Path, target: &[u8], owner: u32) -> Option<Self> {
        let path = from.join(OsStr::from_bytes(target));
        let dir = Dir::search(&path).ok()?;
        let is_his = owner == 0 || dir.stat().ok()?.st_uid == owner;
        is_his.then_some(Self { dir, path, owner })
    }

    /// Whether git would take it for a repository.
    pub(super) fn is_repository(&self) -> bool {
        statat(&self.dir, "HEAD", AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// What all worktrees of the repository share.
    fn common(self) -> Option<Self> {
        match read_small(self.dir.as_fd(), "commondir", POINTER_LIMIT, None) {
            Err(Unread::Absent) => Some(self),
            Ok((text, owner)) => Self::led(&self.path, text.trim_ascii(), owner),
            Err(_) => None,
        }
    }
}
