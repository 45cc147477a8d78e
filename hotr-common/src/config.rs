//! Maps' keys and values, and the settings userspace writes while the programs run.

/// Superblocks that can be watched at a time.
pub const MAX_SUPERBLOCKS: usize = 16;
/// Root slots: watched roots and their aliases.
pub const MAX_ROOTS: usize = 1024;
/// Directories whose verdict is remembered.
pub const VERDICTS: u32 = 16384;
/// Files whose changes are being coalesced.
pub const STORMS: u32 = 16384;

/// The root is a layer of a watched overlay mount: operations the overlay itself makes there are not reported.
pub const ROOT_LAYER: u32 = 1 << 0;

/// Settings userspace changes at run time; lives alone in the `.bss` map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Live {
    /// Addresses of the watched superblocks, ended by 0.
    pub superblocks: [u64; MAX_SUPERBLOCKS],
    /// Address of the `fsnotify_group` of hotr's inotify instance, 0 when there is none.
    pub own_group: u64,
    /// Coalescing window in nanoseconds.
    pub window: u64,
    /// Third argument that marks hotr's registering `fcntl`.
    pub cookie: u64,
    /// Distance of a task's `pt_regs` from the base of its kernel stack, in bytes.
    pub regs_off: u64,
    /// hotr's own thread group id: its changes are not reported.
    pub own_tgid: u32,
    /// Changed by userspace when roots change; part of the verdict epoch.
    pub epoch: u32,
    /// 1 when some root is an overlay layer.
    pub layers: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Live>() == (MAX_SUPERBLOCKS + 4) * 8 + 16);

/// A watched root as the kernel side knows it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RootSlot {
    /// Address of the root's inode.
    pub inode: u64,
    /// `ROOT_*` bits.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

/// A directory's verdict, remembered by the address of its inode.
///
/// The memory of an entry may be given to another directory while a program reads it; `ino` comes first and is written
/// first, so a program that reads `epoch` and `root` in one word, and then compares `ino`, has either all of its own
/// directory or none.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Verdict {
    /// `inode.i_ino`: the address may have been given to another inode since.
    pub ino: u64,
    /// `inode.i_generation`.
    pub generation: u32,
    /// Index into [`Live::superblocks`].
    pub superblock: u16,
    /// Levels of directories between it and the root.
    pub depth: u16,
    /// The epoch it was found in.
    pub epoch: u32,
    /// Root slot, or [`crate::record::NO_ROOT`].
    pub root: u16,
    /// Bytes its path below the root takes in a record.
    pub len: u16,
}

const _: () = assert!(size_of::<Verdict>() == 24);

/// Key of the storm map: who changes which file by which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct StormKey {
    /// Address of the inode.
    pub inode: u64,
    /// Thread group id.
    pub pid: u32,
    /// [`crate::hook::Hook`] number.
    pub hook: u32,
}

/// A file under continuous change. Totals only grow while the entry lives; userspace takes differences.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Storm {
    /// `inode.i_ino`: the address may have been given to another file.
    pub ino: u64,
    /// When this entry was made: tells it from a later one with the same key.
    pub born: u64,
    /// Start of the current window, `CLOCK_MONOTONIC` nanoseconds.
    pub start: u64,
    /// Time of the last change.
    pub last: u64,
    /// Changes so far.
    pub writes: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// `inode.i_generation`.
    pub generation: u32,
    /// 0.
    pub reserved: u32,
}

/// The kernel side's `ask` program: copy the totals of a storm to the `ANSWER` map.
pub const ASK_READ: u64 = 1;
/// The same: delete a storm's entry.
pub const ASK_FORGET: u64 = 2;

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h): userspace reads the map's memory without system calls.
pub const MMAPABLE: u32 = 1 << 10;

/// The last delivery to hotr's inotify instance in a task.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Delivered {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// `fsnotify` mask.
    pub mask: u32,
    /// [`crate::record::Delivery`] number.
    pub state: u32,
}

/// What the registering program found behind a file descriptor of hotr's.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Registered {
    /// Address of the inode.
    pub inode: u64,
    /// Address of its superblock.
    pub superblock: u64,
    /// `file.private_data`: for an inotify descriptor its `fsnotify_group`.
    pub private_data: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// See [`Live::regs_off`].
    pub regs_off: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// hotr's thread group id in the initial pid namespace.
    pub tgid: u32,
    /// `inode.i_generation`.
    pub generation: u32,
    /// `mount.mnt_id`.
    pub mnt_id: u32,
    /// 1 when the program could be preempted: so can all on tracepoints.
    pub preemptible: u32,
    #[expect(missing_docs, reason = "padding")]
    pub reserved: u32,
}
