//! The one vocabulary of the pipeline: what a change is, who made it, which channels received it.
//!
//! Every source (eBPF, inotify, poll) converts what it reads into these types; everything after the sources uses only
//! them. Paths are bytes (`PathBuf`), times are nanoseconds, and a file is (device, inode, generation).

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words::words;
use crate::{Cause, Origin, Watcher, exact, json, origin};

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
    /// Every value.
    pub const ALL: [Self; 7] =
        [Self::File, Self::Dir, Self::Symlink, Self::Fifo, Self::Socket, Self::Char, Self::Block];

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
    /// hotr's own inotify instance, or those of the process that `hotr trace --watcher` names.
    Inotify,
    /// The polling audit.
    Poll,
}

impl Channel {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Ebpf, Self::Inotify, Self::Poll];

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
#[non_exhaustive]
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
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Upper, Self::Lower, Self::Bind, Self::Mount];

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

words!(Op, FileType, Channel, Layer);

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Effective user id in the initial user namespace.
    pub uid: u32,
    /// Command name of the task, at most 15 bytes.
    #[serde(flatten, with = "exact::comm")]
    pub comm: Vec<u8>,
    /// The program's path, when the process was still there to ask.
    #[serde(flatten, with = "exact::exe")]
    pub exe: Option<Arc<Path>>,
    /// Path of the cgroup below the cgroup root, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<str>>,
    /// Where it belongs, where that was asked for.
    #[serde(flatten, with = "origin::flat")]
    pub origin: Option<Arc<Origin>>,
}

/// A channel that should have seen a change, and did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The channel.
    pub channel: Channel,
    /// Why.
    pub cause: Cause,
    /// One sentence for humans.
    pub why: Cow<'static, str>,
}

/// Write operations, and what they wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// How many; 0: it is no write, or that is not known.
    pub writes: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One change, as reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When the kernel made it.
    #[serde(with = "json::time")]
    pub time: SystemTime,
    /// What happened.
    pub op: Op,
    /// By which kernel-level ways, without repeats, in order of appearance.
    pub detail: Vec<Detail>,
    /// The path as the user watches it (for a rename: the new name).
    #[serde(flatten, with = "exact::path")]
    pub path: PathBuf,
    /// The former name of a renamed file, or the other name of an exchanged one.
    #[serde(flatten, with = "exact::old_path")]
    pub old_path: Option<PathBuf>,
    /// The file's type, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<FileType>,
    /// The file, when known.
    #[serde(flatten, with = "inode")]
    pub id: Option<FileId>,
    /// Size in bytes after the change, for regular files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The writes that it stands for.
    #[serde(flatten, with = "written")]
    pub written: Written,
    /// The other way it came in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// Who made it, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The channels that saw it.
    pub seen_by: Vec<Channel>,
    /// The channels that should have, and did not.
    pub missed_by: Vec<Missed>,
    /// Whose instances the channel `inotify` is, when not hotr's own, and what became of the change there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watcher: Option<Box<Watcher>>,
}

impl Change {
    /// A change of which nothing more is known.
    #[must_use]
    pub const fn new(op: Op, path: PathBuf, time: SystemTime) -> Self {
        Self {
            time,
            op,
            detail: Vec::new(),
            path,
            old_path: None,
            file_type: None,
            id: None,
            size: None,
            written: Written { writes: 0, bytes: 0 },
            layer: None,
            actor: None,
            seen_by: Vec::new(),
            missed_by: Vec::new(),
            watcher: None,
        }
    }
}

/// The inode in a line, where the device is not written.
pub(crate) mod inode {
    use super::{Deserialize, Deserializer, FileId, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        #[serde(skip_serializing_if = "Option::is_none")]
        ino: Option<u64>,
        #[serde(rename = "gen", skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
    }

    pub(crate) fn serialize<S: Serializer>(id: &Option<FileId>, serializer: S) -> Result<S::Ok, S::Error> {
        let ino = id.map(|id| id.ino);
        let generation = id.map(|id| id.gen_).filter(|generation| *generation != 0);
        Fields { ino, generation }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<FileId>, D::Error> {
        let Fields { ino, generation } = Fields::deserialize(deserializer)?;
        Ok(ino.map(|ino| FileId { dev: 0, ino, gen_: generation.unwrap_or_default() }))
    }
}

/// Counts in a line, which are absent where they are not known.
pub(crate) mod written {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Written};

    #[derive(Serialize, Deserialize)]
    struct Fields {
        #[serde(skip_serializing_if = "Option::is_none")]
        writes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    }

    pub(crate) fn serialize<S: Serializer>(written: &Written, serializer: S) -> Result<S::Ok, S::Error> {
        let known = Some(written).filter(|written| written.writes > 0);
        let (writes, bytes) = (known.map(|known| known.writes), known.map(|known| known.bytes));
        Fields { writes, bytes }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        let Fields { writes, bytes } = Fields::deserialize(deserializer)?;
        Ok(Written { writes: writes.unwrap_or_default(), bytes: bytes.unwrap_or_default() })
    }
}
