//! A mount that nobody else sees, and that disappears with its descriptor.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The root directory of a new mount of a filesystem that needs no device.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, or where the kernel does not have the filesystem.
pub(crate) fn private_mount(filesystem: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
