//! What the tracepoint tier does at the exit of each system call.
//!
//! System call numbers and the registers of their arguments are an architecture's; userspace writes them into
//! these rules, so the kernel side knows neither.

/// Entries of one table of system calls in the rule map, by number. The 32-bit table's follow those of the native one.
pub const RULES: u32 = 512;
/// Number of [`Class`]es.
pub const CLASSES: u32 = 11;

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
}

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
