//! New files, and names that nobody can foresee.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};

/// Makes something under a name that nobody can foresee; another one when it is taken.
pub(super) fn with_new_name<T>(mut make: impl FnMut(&OsStr) -> io::Result<T>) -> io::Result<(OsString, T)> {
    for _ in 0..100 {
        // Keyed by the system's random numbers.
        let number = std::hash::RandomState::new().build_hasher().finish();
        let name = OsString::from(format!(".hotr-restore-{number:016x}"));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|made| (name, made)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A new file that only this user can open.
pub(super) fn create(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}
