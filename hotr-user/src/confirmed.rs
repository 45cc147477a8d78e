//! A confirmed change with the state that was confirmed.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use hotr_events::{Actor, Channel};
pub use hotr_events::{ConfirmedChange, Evidence, Kind};

/// A change that changed something, and what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmed {
    /// What is reported of it: shared with the report of the reload, of which there may be many at a time.
    pub change: Arc<ConfirmedChange>,
    /// Who wrote, created, renamed or removed it since it was last confirmed, as far as the channels reported that: only
    /// eBPF does, and not for changes that the watching process makes itself. Empty where it is not known; at most
    /// [`Self::MOST_ACTORS`].
    pub actors: Vec<Arc<Actor>>,
    /// The state that was confirmed.
    pub state: State,
}

impl Confirmed {
    /// Actors of one path that are remembered.
    pub const MOST_ACTORS: usize = 16;

    /// A change to this state.
    #[must_use]
    pub fn new(kind: Kind, path: PathBuf, by: Evidence, seen_by: Vec<Channel>, state: State) -> Self {
        let size = if let State::File(file) = &state { Some(file.size) } else { None };
        let change = Arc::new(ConfirmedChange { kind, path, by, size, seen_by });
        Self { change, actors: Vec::new(), state }
    }
}

impl Deref for Confirmed {
    type Target = ConfirmedChange;

    fn deref(&self) -> &ConfirmedChange {
        &self.change
    }
}

/// A digest of a file's content.
pub type Digest = [u8; 32];

/// A regular file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileState {
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content; none when it was too large or could not be read.
    pub digest: Option<Digest>,
    /// As the kernel encodes it towards userspace: 12 bits and 20 (include/linux/kdev_t.h).
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    pub(crate) ctime_ns: i64,
    /// A later change would show in the times.
    pub(crate) settled: bool,
    /// It was changed while it was read: of an unknown moment in between.
    pub(crate) torn: bool,
    /// It has further hard links.
    pub(crate) has_links: bool,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Nothing.
    Absent,
    /// A regular file.
    File(FileState),
    /// A symbolic link and its target.
    Link(PathBuf),
    /// A directory; what it holds has states of its own.
    Dir,
    /// Something without content: a socket, a pipe, a device.
    Other,
    /// It could not be read, for this reason. It may be anything, and is never remembered.
    Unknown(Errno),
}

impl PartialEq for FileState {
    /// The same content, as far as is known.
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.digest, &other.digest) {
                (Some(one), Some(other)) => one == other,
                _ => self.mtime_ns == other.mtime_ns,
            }
    }
}

impl Eq for FileState {}
