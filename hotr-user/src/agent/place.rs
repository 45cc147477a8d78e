//! Where a held directory lies: among the mounts of a mount namespace, and in its filesystem.
//!
//! In: a descriptor and a mount table that has its mount. Out: its path there, which calls may name, and its [`Location`], by
//! which one directory is known to lie below another, whatever they are mounted as. A directory may be renamed: both are
//! looked up again then.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::mounts::{Location, Mount, MountTable, join};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The mounts of its namespace: the agent's own, or the subscriber's as they were when it passed the directory.
    pub(super) table: Rc<MountTable>,
    mount: Mount,
    /// Absolute, in that namespace.
    pub(super) path: PathBuf,
    pub(super) location: Location,
}

impl Place {
    /// Where a descriptor that was opened through this mount lies.
    pub(super) fn find(fd: BorrowedFd<'_>, mount_id: u64, table: &Rc<MountTable>) -> Option<Self> {
        let mount = table.by_id(mount_id)?.clone();
        let path = path_of(fd)?;
        let location = Location { dev: mount.dev, fs_path: mount.fs_path(&path)? };
        Some(Self { table: Rc::clone(table), mount, path, location })
    }

    pub(super) const fn mount(&self) -> &Mount {
        &self.mount
    }

    /// The same as it is now; it stays what it was where that cannot be found out.
    pub(super) fn refresh(&mut self, fd: BorrowedFd<'_>, table: Option<&Rc<MountTable>>) {
        let table = Rc::clone(table.unwrap_or(&self.table));
        if let Some(now) = Self::find(fd, self.mount.id, &table) {
            *self = now;
        }
    }

    /// Where a path relative to this directory lies.
    pub(super) fn location_of(&self, path: &Path) -> Location {
        Location { dev: self.location.dev, fs_path: join(&self.location.fs_path, path) }
    }

    /// The path from this directory to a place in it.
    pub(super) fn path_to(&self, place: &Location) -> Option<PathBuf> {
        if !place.is_within(&self.location) {
            return None;
        }
        place.fs_path.strip_prefix(&self.location.fs_path).ok().map(Path::to_path_buf)
    }

    /// What a call meant that started at `base` (a path in the filesystem of a mount of this place's namespace) and named
    /// `string`, taken as it is written: the path relative to this place.
    pub(super) fn named(&self, mount_id: u64, base: &Path, string: &Path) -> Option<PathBuf> {
        let start = self.table.by_id(mount_id)?.visible_path(base)?;
        let whole = join(&start, string);
        whole.strip_prefix(&self.path).ok().map(Path::to_path_buf)
    }
}

/// The path of an open directory from the root of its mount namespace; none when it has been deleted.
fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd())).ok()?;
    let is_there = path.is_absolute() && !path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    is_there.then_some(path)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::mounts::mount_id;

    #[test]
    fn a_directory_below_another_is_known_after_a_rename_too() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        let table = Rc::new(MountTable::read().unwrap());
        let held = |path: &Path| {
            let fd = File::open(path).unwrap();
            let found = Place::find(fd.as_fd(), mount_id(&fd).unwrap(), &table).unwrap();
            (fd, found)
        };
        let (_top, above) = held(place.path());
        let (fd, mut below) = held(&place.path().join("a/b"));
        let file = |of: &Place| of.location_of(Path::new("f"));
        assert_eq!(above.path_to(&file(&below)), Some("a/b/f".into()));
        assert_eq!(below.path_to(&file(&below)), Some("f".into()));
        assert_eq!(below.path_to(&file(&above)), None);
        fs::rename(place.path().join("a"), place.path().join("c")).unwrap();
        below.refresh(fd.as_fd(), None);
        assert_eq!(above.path_to(&file(&below)), Some("c/b/f".into()));
        assert_eq!(below.path, place.path().canonicalize().unwrap().join("c/b"));
    }
}
