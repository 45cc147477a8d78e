//! What is made beside a path, to change places with what is there.
//!
//! In: good content, and a held directory. Out: the same under a name that nobody can foresee, noted in the journal before
//! it is there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::journal::{self, For};
use super::new_name::{create, with_new_name};
use super::tree::Spot;
use super::{Vault, copy};

/// A name that hotr made beside a path, and the inode that it gave it.
pub(super) struct Beside {
    pub(super) name: OsString,
    pub(super) made: Stat,
}

impl Vault {
    /// The kept file, under a name of its own in the directory of its path.
    pub(super) fn beside_file(&self, spot: &Spot, kept: &str, powers: bool) -> io::Result<Beside> {
        let (source, _) = self.place.file(Path::new(kept))?;
        let (name, target) = self.new_name(spot, |name| Ok(create(spot.dir.as_fd(), name)?))?;
        let beside = Beside { name, made: fstat(&target)? };
        journal::made(&self.place, &beside.made).inspect_err(|_| remove(spot, &beside))?;
        copy::copy(&source, &target, u64::MAX - 1, powers, None).inspect_err(|_| remove(spot, &beside))?;
        Ok(beside)
    }

    /// A link with its owner, under a name of its own. The owner is given to the inode that was made, whatever the name
    /// leads to by then.
    pub(super) fn beside_link(&self, spot: &Spot, target: &Path, owner: (u32, u32)) -> io::Result<Beside> {
        let (name, ()) = self.new_name(spot, |name| Ok(symlinkat(target, &spot.dir, name)?))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = openat(&spot.dir, &name, flags, Mode::empty())?;
        let made = fstat(&link)?;
        let is_link = made.st_mode & libc::S_IFMT == libc::S_IFLNK;
        if !is_link || made.st_nlink != 1 || made.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("somebody else replaced the link that was being created"));
        }
        let beside = Beside { name, made };
        let owned = journal::made(&self.place, &beside.made).and_then(|()| {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            match chownat(&link, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
                Ok(()) | Err(Errno::PERM) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        });
        owned.inspect_err(|_| remove(spot, &beside))?;
        Ok(beside)
    }

    /// Makes something under a new name, which is noted before.
    fn new_name<T>(&self, spot: &Spot, make: impl Fn(&OsStr) -> io::Result<T>) -> io::Result<(OsString, T)> {
        let found = spot.stat().ok();
        with_new_name(|name| {
            journal::begin(&self.place, For::New, spot, name, found.as_ref())?;
            make(name)
        })
    }
}

/// Removes what hotr made, if it is still that.
pub(super) fn remove(spot: &Spot, beside: &Beside) {
    let now = statat(&spot.dir, &beside.name, AtFlags::SYMLINK_NOFOLLOW);
    if now.is_ok_and(|now| (now.st_dev, now.st_ino) == (beside.made.st_dev, beside.made.st_ino)) {
        let _ = unlinkat(&spot.dir, &beside.name, AtFlags::empty());
    }
}
