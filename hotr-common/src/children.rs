//! What the kernel side returns to the poller about a directory's files: the inodes of its names in the dentry cache.

/// Files returned at a time.
pub const AT_A_TIME: usize = 64;

/// A file as its inode has it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Child {
    /// `inode.i_ino`; 0 for a name without an inode.
    pub ino: u64,
    /// Seconds of the modification time.
    pub mtime: i64,
    /// Seconds of the change time.
    pub ctime: i64,
    /// Nanoseconds of the modification time.
    pub mtime_nsec: u32,
    /// Nanoseconds of the change time. Above 30 bits there may be a mark of the kernel's (include/linux/fs.h
    /// `I_CTIME_QUERIED`).
    pub ctime_nsec: u32,
    /// `inode.i_generation`.
    pub generation: u32,
    /// `inode.i_mode`.
    pub mode: u32,
}

/// Some of a directory's files.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Children {
    /// Where to continue; 0 at the end.
    pub next: u64,
    /// How many were returned.
    pub told: u64,
    /// These.
    pub files: [Child; AT_A_TIME],
}

const _: () = assert!(size_of::<Child>() == 40 && size_of::<Children>() == 16 + AT_A_TIME * 40);
