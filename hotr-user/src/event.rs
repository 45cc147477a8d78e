//! The one vocabulary of the pipeline: what a change is, who made it, who heard of it.
//!
//! Every source (eBPF, inotify, poll) turns its world into these types; everything after the sources works on
//! them alone. Paths are bytes (`PathBuf`), times are nanoseconds, and a file is (device, inode, generation).

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What happened to a name or to a file, in the five words of the output contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// A name appeared.
    Create,
    /// The content or the size changed.
    Write,
    /// Mode, owner, times, extended attributes or inode flags changed.
    Attrib,
    /// A name became another name.
    Rename,
    /// A name disappeared.
    Remove,
}

impl Op {
    /// Every operation, in the order of the contract.
    pub const ALL: [Self; 5] = [Self::Create, Self::Write, Self::Attrib, Self::Rename, Self::Remove];

    /// The word used in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Attrib => "attrib",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }
}

/// The kernel-level way of a change (`pwrite64`, `mmap`, `exchange`, …), as printed in `detail`.
pub type Detail = Cow<'static, str>;

/// The type of the changed file, from its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

impl FileType {
    /// From the `S_IFMT` bits of a mode; `None` when they are of no known type.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Dir,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o020_000 => Self::Char,
            0o060_000 => Self::Block,
            _ => return None,
        })
    }

    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Char => "char",
            Self::Block => "block",
        }
    }
}

/// A source of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// eBPF programs in the kernel's write and name paths.
    Ebpf,
    /// An inotify instance of hotr's own.
    Inotify,
    /// The polling audit.
    Poll,
}

impl Channel {
    /// The word used in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Inotify => "inotify",
            Self::Poll => "poll",
        }
    }
}

/// By which other way than the watched path a change came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Directly in the upperdir of a watched overlay mount.
    Upper,
    /// Directly in a lowerdir of a watched overlay mount.
    Lower,
    /// Through a bind mount of the watched directory or of something above or below it.
    Bind,
    /// Through another mount of the same filesystem.
    Mount,
}

impl Layer {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::Lower => "lower",
            Self::Bind => "bind",
            Self::Mount => "mount",
        }
    }
}

/// A file's identity; the inode number alone is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `s_dev` of the superblock (on btrfs not the `st_dev` that stat reports).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Inode generation; 0 where the filesystem has none (overlay).
    pub gen_: u32,
}

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Effective user id in the initial user namespace.
    pub uid: u32,
    /// Command name of the task, at most 15 bytes.
    pub comm: Vec<u8>,
    /// The program's path, when the process was still there to ask.
    pub exe: Option<Arc<Path>>,
    /// Path of the cgroup below the cgroup root, when known.
    pub cgroup: Option<Arc<str>>,
}

/// A channel that should have seen a change, and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The channel.
    pub channel: Channel,
    /// Cause id: one of docs/causes.md (`layer-bypass`, `never-watched`, …).
    pub cause: &'static str,
    /// One sentence for a person.
    pub why: Cow<'static, str>,
}

/// One change, as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the kernel made it.
    pub time: SystemTime,
    /// What happened.
    pub op: Op,
    /// By which kernel-level ways, without repeats, in order of appearance.
    pub detail: Vec<Detail>,
    /// The path as the user watches it (for a rename: the new name).
    pub path: PathBuf,
    /// The former name of a renamed file, or the other name of an exchanged one.
    pub old_path: Option<PathBuf>,
    /// The file's type, when known.
    pub file_type: Option<FileType>,
    /// The file, when known.
    pub id: Option<FileId>,
    /// Size in bytes after the change, for regular files.
    pub size: Option<u64>,
    /// Number of write operations this report stands for (0: not a write).
    pub writes: u64,
    /// Bytes written by them.
    pub bytes: u64,
    /// The other way it came in by.
    pub layer: Option<Layer>,
    /// Who made it, when known.
    pub actor: Option<Actor>,
    /// The channels that saw it.
    pub seen_by: Vec<Channel>,
    /// The channels that should have, and did not.
    pub missed_by: Vec<Missed>,
}
