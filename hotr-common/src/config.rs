//! Maps' keys and values, and the settings userspace writes while the programs run.

/// Superblocks that can be watched at a time.
pub const MAX_SUPERBLOCKS: usize = 16;
/// Root slots: watched roots and their aliases.
pub const MAX_ROOTS: usize = 1024;
/// Sets of the table of verdicts.
pub const VERDICT_SETS: usize = 4096;
/// Directories of a set whose verdict is remembered.
pub const VERDICT_WAYS: usize = 2;
/// Files whose changes are being coalesced: the slots of the table of storms.
pub const STORMS: u32 = 16384;
/// Slots in which a storm may be.
pub const STORM_WAYS: u32 = 4;

/// The root is a layer of a watched overlay mount: operations the overlay itself makes there are not reported.
pub const ROOT_LAYER: u32 = 1 << 0;
/// The root is no directory: a file that is mounted by itself. Its directory need not be watched, nor be visible.
pub const ROOT_FILE: u32 = 1 << 1;

/// Settings userspace changes at run time; lives alone in the `.bss` map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Live {
    /// Address of the watched superblock with the lowest one; above every address when none is watched.
    pub lowest: u64,
    /// Address of the watched superblock with the highest one.
    pub highest: u64,
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
    /// 1 when some root is an overlay layer.
    pub layers: u16,
    /// 1 when some root is no directory.
    pub files: u16,
    /// Changed by userspace when roots change; part of the verdict epoch.
    pub epoch: u64,
    /// 0, which the verifier does not know.
    pub zero: u64,
}

impl Live {
    /// Nothing is set.
    pub const ZERO: Self = Self {
        lowest: 0,
        highest: 0,
        superblocks: [0; MAX_SUPERBLOCKS],
        own_group: 0,
        window: 0,
        cookie: 0,
        regs_off: 0,
        own_tgid: 0,
        layers: 0,
        files: 0,
        epoch: 0,
        zero: 0,
    };
}

const _: () = assert!(size_of::<Live>() == (MAX_SUPERBLOCKS + 7) * 8 + 16);

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

/// A try-lock: a program that finds it taken does without. It consists of counters only, because the only atomic
/// instruction that every kernel's verifier knows is an addition without a result.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TryLock {
    /// Programs that entered.
    pub entered: u64,
    /// Programs that left.
    pub left: u64,
}

/// A directory's verdict. A writer begins by clearing `inode` and counting `version` up, and sets `inode` last; a reader
/// that finds its own inode between two equal versions has read an entry that is whole.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Verdict {
    /// Changes of this entry.
    pub version: u64,
    /// Address of the directory's inode.
    pub inode: u64,
    /// `inode.i_ino`: the address may have been given to another inode since.
    pub ino: u64,
    /// Address of the superblock.
    pub superblock: u64,
    /// The epoch it was found in.
    pub epoch: u64,
    /// `inode.i_generation`.
    pub generation: u64,
    /// Root slot, or one of the numbers from [`crate::record::TOO_DEEP`] on, in the low 16 bits; above them in 16 bits each the
    /// bytes that its path below the root takes in a record, and the levels of directories between them.
    pub spot: u64,
}

const _: () = assert!(size_of::<Verdict>() == 64);

/// The table of verdicts.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Verdicts {
    /// Who changes an entry.
    pub turn: TryLock,
    /// By inode number and generation, see [`verdict_set`].
    pub sets: [[Verdict; VERDICT_WAYS]; VERDICT_SETS],
}

/// Index of the set for a directory: the upper bits of a product, into which all bits of both numbers go.
#[inline(always)]
#[must_use]
pub const fn verdict_set(ino: u64, generation: u32) -> usize {
    let product = ino.wrapping_add(generation as u64).wrapping_mul(MIX);
    (product >> (64 - VERDICT_SETS.trailing_zeros())) as usize
}

/// 2^64 divided by the golden ratio: numbers that lie close together come far apart.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A file under continuous change by one process in one way. Totals only grow; userspace takes differences.
///
/// A free slot is taken by a program, which writes `inode` last, and given up by userspace: it closes the slot, so that
/// no program comes any more, waits until `busy` is 0, reads the last totals, and frees it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Storm {
    /// Address of the file's inode, [`STORM_FREE`] or [`STORM_CLOSED`].
    pub inode: u64,
    /// Who and how: see [`storm_who`].
    pub who: u64,
    /// `inode.i_ino`: the address may have been given to another file.
    pub ino: u64,
    /// Programs that are counting here.
    pub busy: u64,
    /// When this slot was taken: distinguishes the storm from a later one.
    pub born: u64,
    /// Start of the current window, `CLOCK_MONOTONIC` nanoseconds.
    pub start: u64,
    /// Time of the last change.
    pub last: u64,
    /// Changes so far.
    pub writes: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// `inode.i_generation`; where that is 0, the hash of the file's name.
    pub generation: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Storm>() == 80);

/// [`Storm::inode`] of a slot that may be taken.
pub const STORM_FREE: u64 = 0;
/// [`Storm::inode`] of a slot that userspace is about to free.
pub const STORM_CLOSED: u64 = 1;

/// [`Storm::who`]: thread group id and way (see [`crate::record::Record::way`]).
#[inline(always)]
#[must_use]
pub const fn storm_who(pid: u32, way: u32) -> u64 {
    (pid as u64) << 32 | way as u64
}

/// The first of the [`STORM_WAYS`] slots in which a storm may be.
#[inline(always)]
#[must_use]
pub const fn storm_slot(ino: u64, who: u64) -> u32 {
    let product = (ino ^ who.rotate_left(24)).wrapping_mul(MIX);
    (product >> (64 - STORMS.trailing_zeros())) as u32 & !(STORM_WAYS - 1)
}

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

/// What the registering program found behind one of hotr's file descriptors.
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
    /// `inode.i_fsnotify_mask`: what any mark on the inode asks for; 0 where the kernel's BTF has no such field.
    pub fsnotify_mask: u32,
    /// Marks on the inode, at most [`MOST_MARKS`]; [`NO_MARKS_FIELD`] where BTF does not have the fields.
    pub marks: u32,
    #[expect(missing_docs, reason = "padding")]
    pub reserved: u32,
}

/// Marks of an inode that are counted.
pub const MOST_MARKS: u32 = 32;
/// [`Registered::marks`] when they cannot be counted.
pub const NO_MARKS_FIELD: u32 = u32::MAX;

/// What hotr and its programs hand to each other about roots, in memory that both have mapped.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Exchange {
    /// Settings for `adjust` to take over.
    pub settings: Live,
    /// What `register` or `adjust` found.
    pub found: Registered,
    /// 1 when `adjust` succeeded.
    pub done: u64,
}

/// First argument of the program `adjust`: it resolves a descriptor, the second.
pub const ADJUST_RESOLVE: u64 = 0;
/// It takes over the settings.
pub const ADJUST_PUBLISH: u64 = 1;
/// It adds a root, and takes over the settings. Arguments: address of the inode, slot, `ROOT_*` bits.
pub const ADJUST_ADD: u64 = 2;
/// It removes a root, and takes over the settings. Argument: address of the inode.
pub const ADJUST_REMOVE: u64 = 3;
/// It follows another process's inotify instance. Arguments: address of the group, slot.
pub const ADJUST_FOLLOW: u64 = 4;
/// It follows it no longer. Argument: address of the group.
pub const ADJUST_LEAVE: u64 = 5;
