//! What the tracepoint tier does at the exit of each system call.
//!
//! System call numbers and the registers of their arguments are an architecture's; userspace writes them into
//! these rules, so the kernel side knows neither.

/// Entries of one table of system calls in the rule map, by number. The 32-bit table's follow those of the native one.
pub const RULES: u32 = 512;
/// Number of [`Class`]es.
pub const CLASSES: u32 = 12;
/// Opcodes of io_uring that may have a rule.
pub const URING_OPCODES: u32 = 64;

/// No register: the call has no such argument.
pub const NO_REGISTER: u8 = u8::MAX;
/// No register: a relative path starts from the working directory.
pub const WORKING_DIRECTORY: u8 = u8::MAX - 1;

/// The rule is in force; others only say what the call is.
pub const RULE_ENABLED: u8 = 1 << 0;
/// Pages this call makes dirty are the content change it reports (or that another hook does).
pub const RULE_CONTENT: u8 = 1 << 1;
/// A call that takes a path: with an empty or no string it is about the descriptor.
pub const RULE_MAY_BE_DESCRIPTOR: u8 = 1 << 2;
/// A call that takes a name away: the file is remembered while it runs, where the kernel lets that be seen.
pub const RULE_REMOVES: u8 = 1 << 3;
/// The call of this number in the 32-bit table is enabled.
pub const RULE_COMPAT: u8 = 1 << 4;

/// A call that may take a directory away: by flags (`aux0`) that have `AT_REMOVEDIR`, or always when it has none.
pub const RULE_REMOVES_DIRECTORY: u8 = 1 << 5;

/// `aux1` points to two times: when both are left out, the call does nothing (fs/utimes.c `do_utimes`).
pub const RULE_TIMES: u8 = 1 << 6;

/// Pages this call makes dirty are written by the kernel itself, not stored through a mapping.
pub const RULE_KERNEL_WRITES: u8 = 1 << 7;

/// What a system call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Nothing to report.
    None = 0,
    /// Writes through a descriptor; returns the bytes.
    Write = 1,
    /// Changes the file of a descriptor; returns 0. `aux0` goes into the record.
    File = 2,
    /// `ioctl`: a change when its command (`aux0`) is one of those that change files.
    Ioctl = 3,
    /// Returns a new descriptor; `aux0` holds the open flags.
    Open = 4,
    /// As [`Class::Open`]; `aux0` points to a `struct open_how`.
    OpenHow = 5,
    /// Creates: always truncates.
    Creat = 6,
    /// `io_submit`: `aux0` requests, pointers to them at `aux1`.
    Aio = 7,
    /// Takes one path or two.
    Path = 8,
    /// `bind` of a Unix socket: the name is in the address.
    Bind = 9,
    /// Second half of [`Class::Open`] and its like, for a file that was there: no system call is of this class.
    OpenTruncate = 10,
    /// Second half of [`Class::Ioctl`], for a command that names a btrfs subvolume: no system call is of this class.
    Subvolume = 11,
}

/// For an ioctl command that makes or destroys a btrfs subvolume in the directory of its descriptor: where its argument has
/// the name (include/uapi/linux/btrfs.h `btrfs_ioctl_vol_args`, `btrfs_ioctl_vol_args_v2`).
#[inline(always)]
#[must_use]
pub const fn subvolume_name(command: u32) -> Option<u64> {
    match command {
        SNAPSHOT | SUBVOLUME | SUBVOLUME_DESTROY => Some(8),
        SNAPSHOT_V2 | SUBVOLUME_V2 | SUBVOLUME_DESTROY_V2 => Some(56),
        _ => None,
    }
}

/// `BTRFS_IOC_SNAP_CREATE`.
pub const SNAPSHOT: u32 = 0x5000_9401;
/// `BTRFS_IOC_SNAP_CREATE_V2`.
pub const SNAPSHOT_V2: u32 = 0x5000_9417;
/// `BTRFS_IOC_SUBVOL_CREATE`.
pub const SUBVOLUME: u32 = 0x5000_940e;
/// `BTRFS_IOC_SUBVOL_CREATE_V2`.
pub const SUBVOLUME_V2: u32 = 0x5000_9418;
/// `BTRFS_IOC_SNAP_DESTROY`.
pub const SUBVOLUME_DESTROY: u32 = 0x5000_940f;
/// `BTRFS_IOC_SNAP_DESTROY_V2`.
pub const SUBVOLUME_DESTROY_V2: u32 = 0x5000_943f;

/// How the kernel side reads one system call: byte offsets of argument registers in `pt_regs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rule {
    /// A [`Class`] number.
    pub class: u8,
    /// `RULE_*` bits.
    pub flags: u8,
    /// The descriptor, or the directory descriptor of the path.
    pub descriptor: u8,
    /// The path's string.
    pub path: u8,
    /// Directory descriptor of the old path.
    pub old_descriptor: u8,
    /// The old path's string.
    pub old_path: u8,
    /// Goes into `aux[0]` of the record.
    pub aux0: u8,
    /// Goes into `aux[1]` of the record.
    pub aux1: u8,
}

impl Rule {
    /// A system call that changes nothing.
    pub const NONE: Self = Self {
        class: Class::None as u8,
        flags: 0,
        descriptor: NO_REGISTER,
        path: NO_REGISTER,
        old_descriptor: NO_REGISTER,
        old_path: NO_REGISTER,
        aux0: NO_REGISTER,
        aux1: NO_REGISTER,
    };
}

const _: () = assert!(size_of::<Rule>() == 8);
