//! Mounts: which directory inodes lead to the watched files, and through which mount a change came.
//!
//! In: `/proc/<pid>/mountinfo`, the watched directories, the mount id of a change. Out: a [`MountTable`], the
//! [`aliases`] of a root, the [`Layer`](hotr_events::Layer) of a change.
//!
//! **Locations.** A dentry is named by its superblock and its path from that superblock's root ([`Location`]):
//! this is what a `d_parent` walk in the kernel sees, whatever the mount. Two paths lead to one dentry exactly
//! when their locations are equal, so bind mounts need no file system access to be understood.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod alias;
mod layer;
mod overlay;
mod parse;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use alias::{AliasRoot, Aliases, Pending, Unreachable, aliases};
pub use layer::{LayerCache, Through, layer_of_foreign_mount, layer_of_mount};
pub use overlay::{LayerKind, OverlayLayer, overlay_layers};
pub use watch::{MountWatch, mount_id};

/// Device number of a superblock (`s_dev`); on btrfs not the `st_dev` that stat reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevId {
    /// Major number; 0 for file systems without a block device of their own.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DevId {
    /// From the kernel's own form of a device number (include/linux/kdev_t.h `MINORBITS`).
    #[must_use]
    pub const fn from_kernel(dev: u32) -> Self {
        Self { major: dev >> 20, minor: dev & 0xf_ffff }
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Mount id; unique on the machine at a time, reused after an unmount.
    pub id: u64,
    /// Id of the mount it is mounted on.
    pub parent: u64,
    /// The superblock.
    pub dev: DevId,
    /// Which directory of the superblock is mounted (`/` for a whole file system).
    pub root: PathBuf,
    /// `root` has been removed since it was bind-mounted.
    pub deleted: bool,
    /// Where, relative to the root directory of the process whose mountinfo this is.
    pub mount_point: PathBuf,
    /// `ext4`, `overlay`, `fuse.sshfs`, …
    pub fs_type: OsString,
    /// Device, or whatever the mounter wrote.
    pub source: OsString,
    /// Options of this mount, comma-separated, as the kernel prints them.
    pub options: Vec<u8>,
    /// Options of the superblock, comma-separated, values still escaped in octal.
    pub super_options: Vec<u8>,
}

impl Mount {
    /// A file system whose content is the kernel's, not anybody's files: nothing below it is ever watched.
    #[must_use]
    pub fn is_pseudo(&self) -> bool {
        const PSEUDO: [&str; 25] = [
            "autofs",
            "binder",
            "binfmt_misc",
            "bpf",
            "cgroup",
            "cgroup2",
            "configfs",
            "debugfs",
            "devpts",
            "efivarfs",
            "functionfs",
            "fusectl",
            "mqueue",
            "nfsd",
            "nsfs",
            "proc",
            "pstore",
            "resctrl",
            "rpc_pipefs",
            "securityfs",
            "selinuxfs",
            "smackfs",
            "sysfs",
            "tracefs",
            "xenfs",
        ];
        self.fs_type.to_str().is_some_and(|name| PSEUDO.contains(&name))
    }

    /// An overlay mount.
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        self.fs_type == "overlay"
    }

    /// Where `path` (in the namespace of this table) lies in the superblock; `None` when it is not below the
    /// mount point.
    #[must_use]
    pub fn fs_path(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.mount_point).ok().map(|rel| join(&self.root, rel))
    }

    /// The reverse: the path in this table's namespace of a place in the superblock; `None` when this mount does
    /// not show that place.
    #[must_use]
    pub fn visible_path(&self, fs_path: &Path) -> Option<PathBuf> {
        fs_path.strip_prefix(&self.root).ok().map(|rel| join(&self.mount_point, rel))
    }
}

/// `Path::join` that adds no trailing slash for an empty second half.
#[must_use]
pub fn join(base: &Path, rel: &Path) -> PathBuf {
    if rel.as_os_str().is_empty() { base.to_path_buf() } else { base.join(rel) }
}

/// A place in a superblock: what a `d_parent` walk in the kernel sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The superblock.
    pub dev: DevId,
    /// Path from the superblock's root directory, absolute.
    pub fs_path: PathBuf,
}

impl Location {
    /// Whether a `d_parent` walk from `self` meets `ancestor` (or is there already).
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.dev == ancestor.dev && self.fs_path.starts_with(&ancestor.fs_path)
    }
}

/// The mounts of one mount namespace, as one process sees them.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
    by_id: HashMap<u64, usize>,
    by_point: HashMap<PathBuf, Vec<usize>>,
    malformed: usize,
}

impl MountTable {
    /// Reads our own mounts.
    ///
    /// # Errors
    /// When `/proc` is not mounted or not readable.
    pub fn read() -> io::Result<Self> {
        // thread-self: a thread may have left the namespace of its process.
        fs::read("/proc/thread-self/mountinfo").map(|text| Self::parse(&text))
    }

    /// Reads the mounts as process `pid` sees them.
    ///
    /// # Errors
    /// `NotFound` when the process has ended; `PermissionDenied` without the right to inspect it.
    pub fn read_process(pid: u32) -> io::Result<Self> {
        fs::read(format!("/proc/{pid}/mountinfo")).map(|text| Self::parse(&text))
    }

    /// Parses the text of a mountinfo file. Lines that are not of the documented form are counted, not fatal: some
    /// out-of-tree file systems print raw newlines in their options.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut table = Self::default();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match parse::line(line) {
                Some(mount) => table.push(mount),
                None => table.malformed += 1,
            }
        }
        table
    }

    fn push(&mut self, mount: Mount) {
        let index = self.mounts.len();
        self.by_id.insert(mount.id, index);
        self.by_point.entry(mount.mount_point.clone()).or_default().push(index);
        self.mounts.push(mount);
    }

    /// Every mount, in the kernel's order.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Number of lines that could not be understood.
    #[must_use]
    pub const fn malformed(&self) -> usize {
        self.malformed
    }

    /// The mount of this id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.by_id.get(&id).map(|&index| &self.mounts[index])
    }

    /// The mount that shows `path`: an absolute path without symbolic links, `.` or `..`. Where mounts are stacked
    /// it is the top one; `None` only when the table does not hold the root directory's mount (chroot).
    #[must_use]
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let mut current = None;
        let mut prefixes: Vec<&Path> = path.ancestors().collect();
        prefixes.reverse();
        for prefix in prefixes {
            let Some(here) = self.by_point.get(prefix) else { continue };
            // More than once on one mount point: each further one is mounted on the root of the one before.
            for _ in 0..here.len() {
                let Some(&top) = here.iter().find(|&&index| self.is_on(index, current)) else { break };
                current = Some(top);
            }
        }
        current.map(|index| &self.mounts[index])
    }

    /// Whether anything is mounted at `path`.
    #[must_use]
    pub fn is_mount_point(&self, path: &Path) -> bool {
        self.by_point.contains_key(path)
    }

    /// Mounted directly on `base`; without a base, on a mount that this table does not show.
    fn is_on(&self, index: usize, base: Option<usize>) -> bool {
        let mount = &self.mounts[index];
        match base {
            Some(base) => index != base && mount.parent == self.mounts[base].id,
            None => mount.parent == mount.id || !self.by_id.contains_key(&mount.parent),
        }
    }

    /// Where an absolute path without symbolic links lies.
    #[must_use]
    pub fn locate(&self, path: &Path) -> Option<Location> {
        let mount = self.mount_of(path)?;
        Some(Location { dev: mount.dev, fs_path: mount.fs_path(path)? })
    }

    /// Mounts below `root` (not at it) that a path leads into: covered ones are left out.
    pub fn visible_below(&self, root: &Path) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| {
            mount.mount_point != root
                && mount.mount_point.starts_with(root)
                && self.mount_of(&mount.mount_point).is_some_and(|top| top.id == mount.id)
        })
    }

    /// Every mount of a superblock, covered ones too.
    pub fn other_mounts_of(&self, dev: DevId) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.dev == dev)
    }
}
