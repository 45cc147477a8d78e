//! The directory that holds kept contents: made, marked as in use, and removed when a killed hotr left it.
//!
//! In: the directory to make it in. Out: the held directory, with a lock. It is never looked for by its path again. The
//! kernel drops the lock (`flock`) with the process, however that ends, so a directory without one is nobody's. A
//! process id in a name would prove nothing: it may be given to another, and says nothing in another pid namespace.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, flock, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use super::tree::is_private;
use super::{journal, recovery};
use crate::beneath::Dir;

/// Begin of the names.
const PREFIX: &str = ".hotr-rollback-";

/// A directory that only this user can enter; removed with this.
#[derive(Debug)]
pub(super) struct VaultDirectory {
    parent: Dir,
    name: OsString,
    dir: Dir,
    /// What there is to say of what killed ones left.
    pub(super) news: Vec<String>,
}

impl std::ops::Deref for VaultDirectory {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.dir
    }
}

impl Drop for VaultDirectory {
    fn drop(&mut self) {
        remove(&self.parent, &self.name, &self.dir);
    }
}

impl VaultDirectory {
    /// Makes it in `parent`, unless somebody else could take it away there: root's goes to `/run/hotr` then, if
    /// `elsewhere` is allowed. What killed ones left there is removed first, and ended what they had begun.
    pub(super) fn new(parent: &Path, elsewhere: bool) -> io::Result<Self> {
        let mut parent = Dir::open(parent)?;
        if !is_safe(&parent) {
            if !elsewhere {
                return Err(io::Error::other(
                    "users other than root may write to it or to a directory above it",
                ));
            }
            parent = run_dir(Path::new("/run"))?;
        }
        let mut news = Vec::new();
        remove_left(&parent, &mut news);
        Self::make(parent, news)
    }

    /// The same in other places where one may have been left.
    pub(super) fn clear<'a>(&mut self, places: impl Iterator<Item = &'a Path>) {
        for place in places {
            if let Ok(place) = Dir::open(place)
                && is_safe(&place)
            {
                remove_left(&place, &mut self.news);
            }
        }
    }

    fn make(parent: Dir, mut news: Vec<String>) -> io::Result<Self> {
        for number in 0_u64.. {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let name = OsString::from(format!("{PREFIX}{}{suffix}", std::process::id()));
            match mkdirat(&parent, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let Some(dir) = own(&parent, &name) else { continue };
            // Where there are no locks (some network filesystems) nobody can take it for unused either.
            let _ = flock(&dir, FlockOperation::LockExclusive);
            // Somebody may have taken it for left over before it was locked.
            if is_at(&parent, &name, &dir) {
                journal::make(&dir, &mut news);
                return Ok(Self { parent, name, dir, news });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Whether nobody but this user can put something there in the place of what this user made; only root has to ask.
fn is_safe(parent: &Dir) -> bool {
    !rustix::process::geteuid().is_root() || is_private(parent)
}

/// `hotr` in a directory that is root's; made when it is not there.
fn run_dir(run: &Path) -> io::Result<Dir> {
    let run = Dir::open(run)?;
    match mkdirat(&run, "hotr", Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    own(&run, OsStr::new("hotr"))
        .ok_or_else(|| io::Error::other("/run/hotr is not a directory that only root can enter"))
}

/// A directory of this user that nobody else can enter.
fn own(parent: &Dir, name: &OsStr) -> Option<Dir> {
    let dir = parent.dir(Path::new(name)).ok()?;
    let stat = dir.stat().ok()?;
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    is_own.then_some(dir)
}

fn is_at(parent: &Dir, name: &OsStr, dir: &Dir) -> bool {
    let at = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((at, dir.stat()), (Ok(at), Ok(own)) if (at.st_dev, at.st_ino) == (own.st_dev, own.st_ino))
}

/// What is in it is removed through its own descriptor, and its name only if that is still its name.
fn remove(parent: &Dir, name: &OsStr, dir: &Dir) {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        // Fails for `.` and `..`; there are no other directories.
        let _ = unlinkat(dir, entry.file_name(), AtFlags::empty());
    }
    if is_at(parent, name, dir) {
        let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
    }
}

/// Removes directories of this user that nobody holds. One that cannot be removed is in nobody's way.
fn remove_left(parent: &Dir, news: &mut Vec<String>) {
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else { return };
    for entry in entries.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Some(dir) = own(parent, name) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            news.extend(recovery::clear(&dir));
            remove(parent, name, &dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hotr-place-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn what_is_held_stays_and_what_was_left_goes() {
        let parent = scratch("left");
        let held = VaultDirectory::make(Dir::open(&parent).unwrap(), Vec::new()).unwrap();
        let left = parent.join(".hotr-rollback-1");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0"), "x").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(parent.join("other")).unwrap();
        remove_left(&Dir::open(&parent).unwrap(), &mut Vec::new());
        assert!(parent.join(&held.name).exists() && parent.join("other").exists());
        assert!(!left.exists());
        drop(held);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_place_that_was_renamed_and_linked_elsewhere_removes_its_own_only() {
        let parent = scratch("linked");
        let other = parent.join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("0"), "mine").unwrap();
        let place = VaultDirectory::make(Dir::open(&parent).unwrap(), Vec::new()).unwrap();
        fs::rename(parent.join(&place.name), parent.join("moved")).unwrap();
        symlink(&other, parent.join(&place.name)).unwrap();
        let name = place.name.clone();
        drop(place);
        assert_eq!(fs::read_to_string(other.join("0")).unwrap(), "mine");
        assert!(parent.join(name).is_symlink());
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn what_is_not_only_roots_is_no_run_directory() {
        let run = scratch("run");
        fs::create_dir(run.join("other")).unwrap();
        symlink("other", run.join("hotr")).unwrap();
        assert!(run_dir(&run).is_err());
        fs::remove_file(run.join("hotr")).unwrap();
        assert!(run_dir(&run).is_ok());
        fs::set_permissions(run.join("hotr"), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(run_dir(&run).is_err());
        fs::remove_dir_all(&run).unwrap();
    }
}
