//! The names in a held directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, statat};

use super::Dir;

/// Names, and what they are; `.` and `..` are left out.
#[derive(Debug)]
pub struct Names(rustix::fs::Dir);

impl Names {
    pub(super) fn of(dir: Dir) -> io::Result<Self> {
        Ok(Self(rustix::fs::Dir::new(OwnedFd::from(dir))?))
    }

    /// The directory.
    ///
    /// # Errors
    /// None on Linux.
    pub fn dir(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.0.fd()?)
    }
}

impl Iterator for Names {
    type Item = io::Result<(OsString, FileType)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.0.read()? {
                Ok(entry) => entry,
                Err(errno) => return Some(Err(errno.into())),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            // Some filesystems do not say it with the name.
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = self.0.fd().and_then(|dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
                    stat.map(|stat| FileType::from_raw_mode(stat.st_mode))
                }
                kind => Ok(kind),
            };
            return Some(kind.map(|kind| (name.to_owned(), kind)).map_err(io::Error::from));
        }
    }
}
