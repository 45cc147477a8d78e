//! A change as the kernel's records give it, before it is known who may learn of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotr_events::{Change, Op};

use super::literal::Reach;
use crate::pipeline::syscall::Opened;

/// A change, once for all subscribers; its paths are those of each [`Delivery`].
#[derive(Debug)]
pub(super) struct Seen {
    /// All but the paths and the actor.
    pub(super) change: Change,
    pub(super) actor: SeenActor,
    /// The name must still have the file: otherwise it is none of the file's.
    pub(super) must_match: bool,
    /// It was taken from what a call named, so the file is not known.
    pub(super) is_of_call: bool,
    /// A symbolic link with this name would have been followed.
    pub(super) follows: bool,
    /// An open that may have made its file.
    pub(super) opened: Option<Opened>,
    /// The time of day of the beginning of that, if there is one.
    pub(super) opened_at: Option<std::time::SystemTime>,
}

/// Who made it.
#[derive(Debug)]
pub(super) struct SeenActor {
    /// In the agent's PID namespace.
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) uid: u32,
    pub(super) comm: Vec<u8>,
    /// The inode of its own PID namespace and its number there, where somebody may want to know.
    pub(super) namespace: Option<(u64, u32)>,
}

/// The watched directory by which the kernel gave a change, where a subscriber has it by one of its own further up. That one
/// lies below the other is a guess from their paths, which the subscriber may have arranged: it is to be proved.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// So many names of the path lead to it.
    pub(super) depth: usize,
    /// The directory itself.
    pub(super) fd: Arc<OwnedFd>,
}

/// A change for one root of one subscriber, with those of its names that lie below the root.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) seen: Arc<Seen>,
    /// The subscriber's number of the root.
    pub(super) root: u32,
    /// The name, of a rename the new one.
    pub(super) new: Option<PathBuf>,
    /// The former name of a rename, or the other one of an exchange.
    pub(super) old: Option<PathBuf>,
    /// What the new name was found by, if not by the root itself.
    pub(super) new_base: Option<Base>,
    /// What the old name was found by, if not by the root itself.
    pub(super) old_base: Option<Base>,
    /// The subscriber may list the directory of the name, but not search it: it sees names there, and nothing of the files.
    pub(super) only_names: bool,
    /// A name was taken from a string that begins above the root: who may have changed the names there.
    pub(super) reach: Option<Arc<Reach>>,
}

impl Delivery {
    /// A change for a root; it has no name yet.
    pub(super) fn of(seen: &Arc<Seen>, root: u32) -> Self {
        let seen = Arc::clone(seen);
        Self {
            seen,
            root,
            new: None,
            old: None,
            new_base: None,
            old_base: None,
            only_names: false,
            reach: None,
        }
    }

    /// Names that lead to another file or directory since, or to one with other rights: what was asked of a directory on the way
    /// before is void.
    pub(super) fn changed_ways(&self) -> impl Iterator<Item = &Path> {
        let is_way = match self.seen.change.op {
            Op::Create | Op::Remove | Op::Rename => true,
            Op::Write => false,
            // Times and file attributes give no rights. An unknown word may.
            Op::Attrib => self.seen.change.detail.iter().any(|word| word != "utimes" && word != "chattr"),
        };
        self.new.iter().chain(&self.old).map(PathBuf::as_path).filter(move |_| is_way)
    }

    /// Bytes that it takes while it waits, about.
    pub(super) fn weight(&self) -> usize {
        let length = |path: &Option<PathBuf>| path.as_ref().map_or(0, |path| path.as_os_str().len());
        256 + length(&self.new) + length(&self.old)
    }
}
