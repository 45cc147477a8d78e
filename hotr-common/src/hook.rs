//! The places in the kernel where a change is seen, and what each needs from its function's prototype.

/// Number of hooks.
pub const HOOKS: usize = 34;

/// A hook. Its number is part of the record format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Hook {
    /// `vfs_write`: write, pwrite64.
    Write = 0,
    /// `vfs_writev`: writev, pwritev, pwritev2.
    Writev = 1,
    /// `vfs_iter_write`: writes made by kernel threads (nfsd).
    IterWrite = 2,
    /// `kiocb_done`: io_uring writes that end inside the call.
    UringDone = 3,
    /// `io_complete_rw`: io_uring writes that end later.
    UringComplete = 4,
    /// `io_complete_rw_iopoll`: the same on polled rings.
    UringIopoll = 5,
    /// `aio_complete_rw`: libaio.
    AioComplete = 6,
    /// `do_sendfile`, which notifies after the copying is done.
    Sendfile = 7,
    /// `do_splice`: splice into a file.
    Splice = 8,
    /// `vfs_copy_file_range`.
    CopyFileRange = 9,
    /// `vfs_clone_file_range`: FICLONE, FICLONERANGE.
    Clone = 10,
    /// `vfs_fallocate`.
    Fallocate = 11,
    /// `notify_change`: truncate, chmod, chown, utimes.
    NotifyChange = 12,
    /// `fault_dirty_shared_page`: the first store through a shared mapping.
    Mmap = 13,
    /// `do_filp_open` (`do_file_open` in later kernels): a file created by open.
    Open = 14,
    /// `vfs_create`: mknod of a regular file, nfsd.
    Create = 15,
    /// `vfs_mkdir`.
    Mkdir = 16,
    /// `vfs_mknod`.
    Mknod = 17,
    /// `vfs_symlink`.
    Symlink = 18,
    /// `vfs_link`.
    Link = 19,
    /// `vfs_unlink`.
    Unlink = 20,
    /// `vfs_rmdir`.
    Rmdir = 21,
    /// `vfs_rename`.
    Rename = 22,
    /// `vfs_setxattr`.
    SetXattr = 23,
    /// `vfs_removexattr`.
    RemoveXattr = 24,
    /// `vfs_set_acl`.
    SetAcl = 25,
    /// `vfs_remove_acl`.
    RemoveAcl = 26,
    /// `vfs_fileattr_set` (`vfs_ioc_setflags_prepare` in older kernels): chattr.
    FileAttr = 27,
    /// `sys_exit` tracepoint.
    SysExit = 28,
    /// `writeback_mark_inode_dirty` tracepoint.
    Dirty = 29,
    /// `io_uring_complete` tracepoint.
    UringTrace = 30,
    /// `__kernel_write_iter` (`__kernel_write` in older kernels): core dumps, process accounting, and what else the kernel
    /// itself writes in a task.
    KernelWrite = 31,
    /// `d_instantiate` in an ioctl: a btrfs subvolume or snapshot was made.
    SubvolumeMade = 32,
    /// `d_delete` in an ioctl: a btrfs subvolume was destroyed.
    SubvolumeGone = 33,
}

impl Hook {
    /// Every hook, in the order of its number.
    pub const ALL: [Self; HOOKS] = [
        Self::Write,
        Self::Writev,
        Self::IterWrite,
        Self::UringDone,
        Self::UringComplete,
        Self::UringIopoll,
        Self::AioComplete,
        Self::Sendfile,
        Self::Splice,
        Self::CopyFileRange,
        Self::Clone,
        Self::Fallocate,
        Self::NotifyChange,
        Self::Mmap,
        Self::Open,
        Self::Create,
        Self::Mkdir,
        Self::Mknod,
        Self::Symlink,
        Self::Link,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::SetXattr,
        Self::RemoveXattr,
        Self::SetAcl,
        Self::RemoveAcl,
        Self::FileAttr,
        Self::SysExit,
        Self::Dirty,
        Self::UringTrace,
        Self::KernelWrite,
        Self::SubvolumeMade,
        Self::SubvolumeGone,
    ];

    /// From the number in a record.
    #[must_use]
    pub fn from_u16(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether repeated changes of one file are counted in the kernel instead of each giving a record.
    #[must_use]
    pub const fn coalesces(self) -> bool {
        !matches!(
            self,
            Self::Open
                | Self::Create
                | Self::Mkdir
                | Self::Mknod
                | Self::Symlink
                | Self::Link
                | Self::Unlink
                | Self::Rmdir
                | Self::Rename
                | Self::SubvolumeMade
                | Self::SubvolumeGone
        )
    }
}

const _: () = {
    let mut index = 0;
    while index < HOOKS {
        assert!(Hook::ALL[index] as usize == index);
        index += 1;
    }
};
