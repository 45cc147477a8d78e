//! One record of the ring buffer: a fixed header, then path components from the leaf to the watched root.

use crate::hook::Hook;

/// Command name length of a task (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// Levels of directories a path may have below its root.
pub const MAX_DEPTH: u32 = 128;
/// Longest path in bytes, terminators included (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;
/// Longest name in bytes with its terminator (`NAME_MAX` + 1).
pub const MAX_NAME: usize = 256;
/// Path bytes (both paths of a rename together) that fit the small record class.
pub const SMALL_PATHS: usize = 256;
/// Levels that fit the small record class.
pub const SMALL_DEPTH: u32 = 24;
/// Path bytes that fit the large record class.
pub const LARGE_PATHS: usize = 2 * MAX_PATH;

/// Value of [`Record::root`] when the path is outside every watched root; the components then go up to the
/// root of the filesystem.
pub const NO_ROOT: u16 = u16::MAX;

/// Instead of a root, of a directory that is deeper than [`MAX_DEPTH`] levels: in or out is not known.
pub const TOO_DEEP: u16 = NO_ROOT - 2;

/// Instead of a root, of a directory outside every watched root while files are roots: each file in it is checked.
pub const MAY_HOLD_ROOT: u16 = NO_ROOT - 1;

/// The old path is outside the watched roots.
pub const FLAG_OLD_OUTSIDE: u32 = 1 << 0;
/// The changed file was found through another name than the one that was used (hard link, `O_TMPFILE`).
pub const FLAG_OTHER_NAME: u32 = 1 << 1;
/// The change was made by a kernel thread.
pub const FLAG_KTHREAD: u32 = 1 << 2;
/// The change was made by an io_uring worker.
pub const FLAG_IO_WORKER: u32 = 1 << 3;
/// The paths are what the caller of a system call wrote: the user side finds out which file was meant. Each is a
/// NUL-terminated string; when that is relative, the names of the directory it starts from follow, from the leaf up
/// to (not including) the root of [`Record::root`], or of its filesystem with [`NO_ROOT`]. [`Record::mnt_id`] is the
/// mount of that directory. The file is not known (0), but for number, generation and mode of one that was removed,
/// on kernels that let it be seen. [`Record::inode`] is no address: see [`Record::mount_namespace`] and
/// [`Record::old_mnt_id`].
pub const FLAG_CALL: u32 = 1 << 4;
/// Through a file that stands for another one (`FMODE_BACKING`: an overlay's mapping).
pub const FLAG_BACKING: u32 = 1 << 6;
/// The name is one that the file has lost: another file, or none, has it now. For the filesystems that forget names of files
/// that have them, the user side looks.
pub const FLAG_NAME_GONE: u32 = 1 << 8;

/// An io_uring request that has been submitted: what it names, as with [`FLAG_CALL`]. [`Record::way`] is its opcode and
/// [`Record::victim`] its number, by which it is known when it has ended.
pub const FLAG_BEGUN: u32 = 1 << 5;
/// The request of the number in [`Record::victim`] has succeeded. Of an open, the second of [`Record::aux`] is one of
/// [`ENDED_BORN`], [`ENDED_FOUND`], or 0 when it is not known.
pub const FLAG_ENDED: u32 = 1 << 7;
/// The request made the file that it opened.
pub const ENDED_BORN: u64 = 1;
/// The file that the request opened was there.
pub const ENDED_FOUND: u64 = 2;

/// Above the hook in [`Record::way`] of [`Hook::Dirty`]: no store through a mapping, but the kernel itself.
pub const DIRTY_BY_KERNEL: u32 = 1;

/// What became of the event in hotr's own inotify instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// The delivery hooks are not attached, or saw nothing for this task.
    Unknown = 0,
    /// `inotify_handle_inode_event` ran; what the queue said is not known.
    Offered = 1,
    /// `fsnotify_insert_event` returned 0.
    Queued = 2,
    /// `fsnotify_insert_event` returned 1: merged with an equal unread event.
    Merged = 3,
    /// `fsnotify_insert_event` returned 2: the queue was full.
    Overflow = 4,
}

impl Delivery {
    /// From the byte of a record; unknown values are [`Delivery::Unknown`].
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Offered,
            2 => Self::Queued,
            3 => Self::Merged,
            4 => Self::Overflow,
            _ => Self::Unknown,
        }
    }
}

/// Header of a ring buffer record. `path_len + old_len` payload bytes follow: for each path the names from the
/// leaf up to (not including) its root, each with a terminating NUL.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Record {
    /// `CLOCK_MONOTONIC` nanoseconds when the hook ran.
    pub time: u64,
    /// Address of the inode: an opaque number, never printed.
    pub inode: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// `inode.i_size` in bytes.
    pub size: u64,
    /// cgroup v2 id of the task.
    pub cgroup: u64,
    /// Changes of this storm so far, this one included; 0 when this one was not counted.
    pub writes: u64,
    /// Bytes of those changes, or of this one alone when it was not counted.
    pub bytes: u64,
    /// [`crate::config::Storm::born`] of the storm that counted them, 0 when none did.
    pub born: u64,
    /// Time of the last delivery to hotr's inotify instance in this task, 0 when none.
    pub delivery_time: u64,
    /// Hook dependent: attribute bits (`iattr.ia_valid`), rename flags, fallocate mode, system call arguments. The second
    /// of a rename or removal says which registered roots lost their name: see [`Record::lost_roots`].
    pub aux: [u64; 2],
    /// Inode number of the file a rename replaced, 0 when none.
    pub victim: u64,
    /// `inode.i_generation`.
    pub generation: u32,
    /// `super_block.s_dev` in the kernel's encoding (20 bits minor).
    pub dev: u32,
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Effective user id.
    pub uid: u32,
    /// System call number, -1 in an exception (page fault), [`NO_SYSCALL`] when not known.
    pub sysno: i32,
    /// `inode.i_mode`.
    pub mode: u32,
    /// `inode.i_nlink`.
    pub nlink: u32,
    /// `mount.mnt_id` the file was reached through, 0 when the hook has no mount.
    pub mnt_id: u32,
    /// `FLAG_*` bits.
    pub flags: u32,
    /// Command name of the task.
    pub comm: [u8; COMM_LEN],
    /// [`crate::hook::Hook`] number.
    pub hook: u16,
    /// Slot of the watched root, or [`NO_ROOT`].
    pub root: u16,
    /// Slot of the old path's root, or [`NO_ROOT`].
    pub old_root: u16,
    /// Bytes of the path.
    pub path_len: u16,
    /// Bytes of the old path.
    pub old_len: u16,
    /// [`Delivery`] number.
    pub delivery: u8,
    /// Tier of the program; its numbers are in [`crate::tier`].
    pub tier: u8,
    /// inotify mask of the delivery.
    pub delivery_mask: u32,
    /// Slot of the storm that counted this change; no meaning when none did.
    pub storm: u32,
    /// The kind of this change: hook, and above its eight bits what distinguishes the kinds that one hook sees; 0 for
    /// names.
    pub way: u32,
}

impl Record {
    /// Slots of the roots whose name this removal or rename took. The first is the root that was removed or renamed
    /// itself, the second the one that a rename replaced, or exchanged with it. A record with neither path reports
    /// nothing else.
    #[must_use]
    pub fn lost_roots(&self) -> [Option<u16>; 2] {
        let is_name =
            [Hook::Rename, Hook::Rmdir, Hook::SubvolumeGone].iter().any(|hook| *hook as u16 == self.hook);
        if !is_name || self.flags & FLAG_CALL != 0 {
            return [None, None];
        }
        [self.aux[1] & 0xffff, self.aux[1] >> 16 & 0xffff]
            .map(|number| u16::try_from(number).ok()?.checked_sub(1))
    }

    /// With [`FLAG_CALL`]: inode number of the caller's mount namespace.
    #[must_use]
    pub fn mount_namespace(&self) -> Option<u32> {
        if self.flags & FLAG_CALL == 0 {
            return None;
        }
        u32::try_from(self.inode & 0xffff_ffff).ok().filter(|number| *number != 0)
    }

    /// With [`FLAG_CALL`]: as [`Record::mnt_id`], for the old path; 0 when there is none.
    #[must_use]
    pub fn old_mnt_id(&self) -> u32 {
        if self.flags & FLAG_CALL == 0 {
            return 0;
        }
        u32::try_from(self.inode >> 32).unwrap_or(0)
    }
}

/// [`Record::sysno`] when it could not be read.
pub const NO_SYSCALL: i32 = i32::MIN;

const _: () = assert!(size_of::<Record>() == 176);
const _: () = assert!(align_of::<Record>() == 8);
