//! Numbers of the kernel that both the programs and userspace need, or several files of one of them.

/// Flags of a task (include/linux/sched.h).
pub mod task {
    /// It ends (`PF_EXITING`).
    pub const PF_EXITING: u32 = 0x4;
    /// A worker of io_uring (`PF_IO_WORKER`).
    pub const PF_IO_WORKER: u32 = 0x10;
    /// From the moment at which its threads are stopped for a core dump (`PF_DUMPCORE`; fs/coredump.c `zap_threads`).
    pub const PF_DUMPCORE: u32 = 0x200;
    /// A kernel thread (`PF_KTHREAD`).
    pub const PF_KTHREAD: u32 = 0x0020_0000;
}

/// Flags of an open file, and of the call that opens it (include/linux/fs.h, include/uapi/asm-generic/fcntl.h).
pub mod file {
    /// Open for reading (`FMODE_READ`).
    pub const FMODE_READ: u32 = 1;
    /// Made by the call that opened it (`FMODE_CREATED`).
    pub const FMODE_CREATED: u32 = 1 << 20;
    /// Make the file if it is not there.
    pub const O_CREAT: u32 = 0o100;
    /// Cut the file to nothing.
    pub const O_TRUNC: u32 = 0o1000;
    /// `__O_TMPFILE`: a file without a name. Without `O_DIRECTORY`, which the kernel demands beside it.
    pub const O_TMPFILE: u32 = 0o20_000_000;
    /// What is removed is a directory.
    pub const AT_REMOVEDIR: u64 = 0x200;
    /// Format bits of a mode: a regular file.
    pub const S_IFREG: u16 = 0o100_000;
}

/// Bits of a mask of inotify, of a mark, and of an event (include/uapi/linux/inotify.h, include/linux/fsnotify_backend.h).
#[expect(missing_docs, reason = "each is named as the kernel's, without IN_")]
pub mod inotify {
    pub const ACCESS: u32 = 0x1;
    pub const MODIFY: u32 = 0x2;
    pub const ATTRIB: u32 = 0x4;
    pub const CLOSE_WRITE: u32 = 0x8;
    pub const CLOSE_NOWRITE: u32 = 0x10;
    pub const OPEN: u32 = 0x20;
    pub const MOVED_FROM: u32 = 0x40;
    pub const MOVED_TO: u32 = 0x80;
    pub const CREATE: u32 = 0x100;
    pub const DELETE: u32 = 0x200;
    pub const DELETE_SELF: u32 = 0x400;
    pub const MOVE_SELF: u32 = 0x800;
    pub const UNMOUNT: u32 = 0x2000;
    pub const Q_OVERFLOW: u32 = 0x4000;
    pub const IGNORED: u32 = 0x8000;
    pub const EXCL_UNLINK: u32 = 0x0400_0000;
    /// `FS_EVENT_ON_CHILD` of a mark: the directory wants what happens to its entries.
    pub const ON_CHILD: u32 = 0x0800_0000;
    pub const ISDIR: u32 = 0x4000_0000;
    pub const ONESHOT: u32 = 0x8000_0000;
}

/// The clock of inode times advances with the timer tick, at the slowest 100 times a second (`CONFIG_HZ_100`): a change may
/// carry a time that is so many nanoseconds before it was made.
pub const INODE_TICK_NS: i64 = 10_000_000;
