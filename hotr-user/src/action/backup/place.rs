//! The directory that holds kept contents: made, marked as in use, and removed when a killed hotr left it.
//!
//! In: the directory to make it in. Out: its path, with a lock. The kernel drops the lock (`flock`) with the process,
//! however that ends, so a directory without one is nobody's. A process id in a name would not tell: it may be given
//! to another, and says nothing in another pid namespace.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

/// Begin of the names.
const PREFIX: &str = ".hotr-rollback-";

/// Makes a directory that only this user can enter, and locks it.
pub(super) fn make(parent: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0_u64.. {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let dir = parent.join(format!("{PREFIX}{}{suffix}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        let lock = open(&dir)?;
        // Where there are no locks (some network filesystems) nobody can take it for unused either.
        let _ = flock(&lock, FlockOperation::LockExclusive);
        // Somebody may have taken it for left over before it was locked.
        if fs::symlink_metadata(&dir)
            .is_ok_and(|data| lock.metadata().is_ok_and(|own| own.ino() == data.ino()))
        {
            return Ok((dir, lock));
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes directories of this user that nobody holds. One that cannot be removed is in nobody's way.
pub(super) fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(lock) = open(&entry.path()) else { continue };
        let is_ours = lock.metadata().is_ok_and(|data| data.uid() == own && data.mode() & 0o077 == 0);
        if is_ours && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn open(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, dir, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_and_what_was_left_goes() {
        let parent = std::env::temp_dir().join(format!("hotr-place-{}", std::process::id()));
        fs::create_dir(&parent).unwrap();
        let (held, lock) = make(&parent).unwrap();
        let (left, other) = make(&parent).unwrap();
        assert_ne!(held, left);
        fs::write(left.join("0"), "x").unwrap();
        fs::create_dir(parent.join("other")).unwrap();
        drop(other);
        remove_left(&parent);
        assert!(held.exists() && parent.join("other").exists());
        assert!(!left.exists());
        drop(lock);
        fs::remove_dir_all(&parent).unwrap();
    }
}
