//! A baseline of whole trees, and what has changed since: for the inotify channel after a loss, and for finding
//! what a full ring buffer did not tell.
//!
//! In: root paths. Out: [`Difference`]s between two scans ([`Snapshot::diff`]), or, without a baseline, all that
//! changed since a point in time ([`changed_since`]). A file takes 56 bytes and its name, about 75 in all.

mod compare;
mod nodes;
mod scan;
mod since;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use globset::GlobSet;
use rustix::fs::StatxTimestamp;

pub use since::{Changed, changed_since};

use crate::event::{Change, Channel, FileId, FileType, Op};
use nodes::Nodes;

/// What a scan takes in.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Whole trees, not just the root directories.
    pub recursive: bool,
    /// Directories and files left out, by path relative to their root.
    pub exclude: GlobSet,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { recursive: true, exclude: GlobSet::empty() }
    }
}

/// The state of the roots at the last scan.
#[derive(Debug)]
pub struct Snapshot {
    roots: Vec<PathBuf>,
    options: ScanOptions,
    nodes: Nodes,
}

impl Snapshot {
    /// Reads the roots. A root that does not exist is empty; directories that cannot be read are as well.
    ///
    /// # Errors
    /// `OutOfMemory` when there are more names than a snapshot can hold (16 GiB of them, or 4 billion).
    pub fn scan(roots: &[PathBuf], options: ScanOptions) -> io::Result<Self> {
        let nodes = scan::read(roots, &options)?;
        Ok(Self { roots: roots.to_vec(), options, nodes })
    }

    /// Reads the roots again and tells the differences: removals first (deepest first), then renames, creations
    /// (a directory before what it holds), changes of content, changes of attributes.
    ///
    /// # Errors
    /// As [`Self::scan`]; the snapshot is then as before.
    pub fn diff(&mut self) -> io::Result<Vec<Difference>> {
        let nodes = scan::read(&self.roots, &self.options)?;
        let differences = compare::compare(&self.nodes, &nodes);
        self.nodes = nodes;
        Ok(differences)
    }

    /// Number of files and directories.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name is new, or leads to a new file.
    Created,
    /// A name is gone.
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

/// One difference between two scans.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            time: if op == Op::Remove { now } else { system_time(self.ctime_ns) },
            op,
            detail: Vec::new(),
            path: self.path,
            old_path,
            file_type: self.file_type,
            id: Some(FileId { dev: self.dev, ino: self.ino, gen_: self.gen_ }),
            size: (op != Op::Remove && self.file_type == Some(FileType::File)).then_some(self.size),
            writes: 0,
            bytes: 0,
            layer: None,
            actor: None,
            seen_by: vec![channel],
            missed_by: Vec::new(),
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
