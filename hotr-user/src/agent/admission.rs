//! Which descriptors are taken for directories.
//!
//! In: a descriptor that a subscriber passed. Out: what is needed to watch it, or a sentence why it is not. Whoever holds a
//! descriptor may have got it without any right: one that was opened with `O_PATH` proves nothing, so that is asked first.
//! Nothing here waits for a filesystem, for that may be served by the subscriber.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, statx};

use crate::mounts::Mount;

/// Filesystems whose directories are opened without waiting for another process or machine.
const LOCAL: [&str; 20] = [
    "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660",
    "jfs", "nilfs2", "ntfs3", "overlay", "ramfs", "squashfs", "tmpfs", "vfat", "xfs",
];

/// A descriptor that may become a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The mount it was opened through.
    pub(super) mount_id: u64,
}

/// Looks at a descriptor.
pub(super) fn admit(fd: BorrowedFd<'_>) -> Result<Admitted, &'static str> {
    let flags =
        fcntl_getfl(fd).map_err(|_errno| "the descriptor cannot be looked at; open the directory again")?;
    if flags.contains(OFlags::PATH) {
        return Err(
            "it was opened with O_PATH, which needs no right to read it; open the directory for reading",
        );
    }
    if !matches!(flags & OFlags::RWMODE, OFlags::RDONLY | OFlags::RDWR) {
        return Err("it was not opened for reading; open the directory for reading");
    }
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
    let stat = statx(fd, c"", flags, wanted)
        .map_err(|_errno| "the descriptor cannot be looked at; open the directory again")?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
        return Err("it is no directory; open the directory that the file is in");
    }
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err("the kernel does not say how it is mounted (Linux 5.8 does); use hotr trace as root");
    }
    Ok(Admitted { mount_id: stat.stx_mnt_id })
}

/// Whether directories of a mount are taken.
pub(super) fn is_watchable(mount: &Mount) -> Result<(), String> {
    let name = mount.fs_type.to_string_lossy();
    if mount.is_pseudo() {
        return Err(format!(
            "it is on {name}, where values change without a write that could be seen; name one on another filesystem"
        ));
    }
    if !LOCAL.contains(&&*name) {
        return Err(format!(
            "it is on {name}, which may make the agent wait for a server; name one on a local filesystem"
        ));
    }
    Ok(())
}

/// Whether a directory has no name any more.
pub(super) fn is_deleted(fd: impl AsFd) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(fd, c"", flags, StatxFlags::NLINK).is_ok_and(|stat| stat.stx_nlink == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn only_a_directory_that_was_opened_for_reading_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("f");
        std::fs::write(&file, "").unwrap();
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(place.path()).unwrap();
        assert!(admit(File::open(place.path()).unwrap().as_fd()).is_ok());
        assert!(admit(path.as_fd()).unwrap_err().contains("O_PATH"));
        assert!(admit(File::open(&file).unwrap().as_fd()).unwrap_err().contains("no directory"));
        let writes = OpenOptions::new().write(true).open(&file).unwrap();
        assert!(admit(writes.as_fd()).unwrap_err().contains("for reading"));
        let (pipe, _other) = std::io::pipe().unwrap();
        assert!(admit(pipe.as_fd()).unwrap_err().contains("no directory"));
    }

    #[test]
    fn a_deleted_directory_is_known_by_its_descriptor() {
        let place = tempfile::tempdir().unwrap();
        let held = File::open(place.path()).unwrap();
        assert!(!is_deleted(&held));
        place.close().unwrap();
        assert!(is_deleted(&held));
    }
}
