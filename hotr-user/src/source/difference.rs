//! What is different in a tree: between two rounds of the poller, as a change for everybody else.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::StatxTimestamp;

use hotr_events::{Change, Channel, FileId, FileType, Op};

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name is new, or leads to a new file.
    Created,
    /// A name disappeared.
    Removed,
    /// A file has another name.
    Renamed {
        /// Its former path.
        old: PathBuf,
    },
    /// Modification time or size differ.
    Content,
    /// Mode differs, or the change time alone.
    Attrib,
}

/// One difference between two rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What.
    pub kind: Kind,
    /// The path now, or the former one when it was removed.
    pub path: PathBuf,
    /// Device as in the kernel's `s_dev` of `stat` (on btrfs the subvolume's).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Inode generation; 0 where it is not known.
    pub gen_: u32,
    /// Type.
    pub file_type: Option<FileType>,
    /// Size in bytes.
    pub size: u64,
    /// Change time in nanoseconds since 1970: when the difference was made, unless the file was removed.
    pub ctime_ns: i64,
}

impl Difference {
    /// As a change; `now` is the time of a removal, which leaves none behind.
    pub fn into_change(self, channel: Channel, now: SystemTime) -> Change {
        let (op, old_path) = match self.kind {
            Kind::Created => (Op::Create, None),
            Kind::Removed => (Op::Remove, None),
            Kind::Renamed { old } => (Op::Rename, Some(old)),
            Kind::Content => (Op::Write, None),
            Kind::Attrib => (Op::Attrib, None),
        };
        Change {
            old_path,
            file_type: self.file_type,
            id: Some(FileId { dev: self.dev, ino: self.ino, gen_: self.gen_ }),
            size: (op != Op::Remove && self.file_type == Some(FileType::File)).then_some(self.size),
            seen_by: vec![channel],
            ..Change::new(op, self.path, if op == Op::Remove { now } else { system_time(self.ctime_ns) })
        }
    }
}

/// An inode time in nanoseconds since 1970.
pub(crate) fn nanos(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

fn system_time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let moved = if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}
