//! Where a test works: a directory of its own, and filesystems that are gone at its end.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// A directory that is removed at the end of a test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotr-fault-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // What hotr reports is the path without links.
        Self(dir.canonicalize().unwrap())
    }

    /// A directory in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file or directory that is mounted on another one. To be dropped before that is removed.
pub(crate) struct Bind(PathBuf);

impl Bind {
    pub(crate) fn new(source: &Path, target: &Path) -> Self {
        mount_bind(source, target).unwrap();
        Self(target.to_path_buf())
    }

    /// Something above it was renamed: it is found there from now on.
    pub(crate) fn moved(&mut self, target: &Path) {
        self.0 = target.to_path_buf();
    }

    /// As `umount` does it.
    pub(crate) fn unmount(self) -> rustix::io::Result<()> {
        unmount(&self.0, UnmountFlags::empty())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A tmpfs on a directory. To be dropped before the directory is removed.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    pub(crate) fn on(dir: &Path) -> Self {
        let target = CString::new(dir.as_os_str().as_bytes()).unwrap();
        mount(c"hotr-fault", &target, c"tmpfs", MountFlags::empty(), c"size=1m").unwrap();
        Self(dir.to_path_buf())
    }

    /// As `umount` does it: an error when anything holds it.
    pub(crate) fn unmount(self) -> rustix::io::Result<()> {
        unmount(&self.0, UnmountFlags::empty())?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
