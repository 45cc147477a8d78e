//! The place of a run: a mount namespace that nobody else sees, with a tmpfs over a directory that is always there.
//!
//! In: nothing. Out: a directory in memory. On the machine itself nothing is created, so nothing can be left behind: the
//! namespace and all its mounts end with the process (kernel/nsproxy.c, `exit_task_namespaces`), however it ends.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::fuse::Fuse;
use super::hidden_tree::HiddenTree;
use super::make_filesystem::{Disk, make_and_mount};
use super::nfs::Nfs;
use super::stop::Stop;
use crate::error::Error;

/// Directories to hide the laboratory over, the first that exists. What they hold is needed by no experiment.
const PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/mnt"];
const SIZE: &CStr = c"mode=0700,size=75%";

/// See the module.
pub(super) struct Lab {
    base: PathBuf,
    disks: HashMap<Disk, Result<PathBuf, String>>,
    keep: bool,
    /// Trees, by their levels, width and most directories.
    trees: HashMap<(u32, u64, u64), Rc<HiddenTree>>,
    /// What answers for FUSE and NFS filesystems that are kept.
    servers: Vec<Fuse>,
    exports: Vec<Nfs>,
}

impl Lab {
    /// Enters a new mount namespace with the calling thread, which must be the only one so far.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub(super) fn enter(keep: bool) -> Result<Self, Error> {
        let fault = |operation, object: &str, source: io::Error| Error::Os {
            operation,
            object: object.to_owned(),
            source,
            next: "run hotr verify as root, with CAP_SYS_ADMIN",
        };
        // SAFETY: descriptors stay shared; only where paths lead is this thread's own from now on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
            .map_err(|errno| fault("make", "a mount namespace", errno.into()))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(|errno| fault("make private", "the mounts", errno.into()))?;
        let base = PLACES.map(Path::new).into_iter().find(|place| place.is_dir());
        let base = base.unwrap_or(Path::new("/tmp")).to_path_buf();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("hotr-verify", &base, "tmpfs", flags, SIZE)
            .map_err(|errno| fault("mount a tmpfs on", &base.to_string_lossy(), errno.into()))?;
        for folder in [BARRIERS, IMAGES] {
            let made = fs::create_dir(base.join(folder));
            made.map_err(|source| fault("make", folder, source))?;
        }
        Ok(Self {
            base,
            disks: HashMap::new(),
            keep,
            trees: HashMap::new(),
            servers: Vec::new(),
            exports: Vec::new(),
        })
    }

    /// The root of everything.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Where barriers are made.
    pub(super) fn barriers(&self) -> PathBuf {
        self.base.join(BARRIERS)
    }

    /// The root of a filesystem, which is made when it is first asked for.
    ///
    /// # Errors
    /// A sentence: why there is none.
    pub(super) fn disk(&mut self, disk: Disk) -> Result<PathBuf, String> {
        if let Some(known) = self.disks.get(&disk) {
            return known.clone();
        }
        let image = self.base.join(IMAGES).join(disk.name());
        let target = self.base.join(disk.name());
        let made = fs::create_dir(&target).map_err(|error| format!("make a directory: {error}"));
        let made = made.and_then(|()| make_and_mount(disk, &image, &target)).map(|()| target);
        self.disks.insert(disk, made.clone());
        made
    }

    /// Whether mounts stay until the end of the process.
    pub(super) const fn keeps(&self) -> bool {
        self.keep
    }

    /// A tree that is made when it is first asked for.
    pub(super) fn hidden_tree(&mut self, levels: u32, width: u64, most: u64) -> Result<Rc<HiddenTree>, Stop> {
        if let Some(known) = self.trees.get(&(levels, width, most)) {
            return Ok(Rc::clone(known));
        }
        let tree = Rc::new(HiddenTree::new(levels, width, most)?);
        self.trees.insert((levels, width, most), Rc::clone(&tree));
        Ok(tree)
    }

    /// Lets servers go on until the end.
    pub(super) fn keep_servers(&mut self, fuse: Option<Fuse>, nfs: Option<Nfs>) {
        self.servers.extend(fuse);
        self.exports.extend(nfs);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep {
            // Takes all mounts below along; the end of the process would do it as well.
            let _ = unmount(&self.base, UnmountFlags::DETACH);
        }
    }
}

const BARRIERS: &str = "barriers";
const IMAGES: &str = "images";
