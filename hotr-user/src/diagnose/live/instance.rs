//! An inotify instance of a target, and its watches as they were and are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::diagnose::finding::Target;
use crate::diagnose::process::Kind;
use crate::source::mono_ns;

/// A watch that an instance has, or had.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) wd: i32,
    pub(super) ino: u64,
    pub(super) mask: u32,
    pub(super) is_dir: bool,
    /// Where it was when it was first seen.
    pub(super) path: Option<PathBuf>,
    /// When it was first seen: from then on it is there.
    pub(super) since: u64,
    /// From when on a stand-in has it too; `None` when none does.
    pub(super) doubled: Option<u64>,
    /// When the kernel took it off, or a look did not see it any more.
    pub(super) gone: Option<u64>,
}

/// An instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) pid: u32,
    pub(super) comm: Vec<u8>,
    pub(super) container: Option<String>,
    pub(super) fd: i32,
    pub(super) watches: Vec<Watch>,
    pub(super) group: u64,
    pub(super) slot: u32,
    /// From when on its deliveries are seen.
    pub(super) since: u64,
    /// When it was closed.
    pub(super) closed: Option<u64>,
    /// When watches were set, by the system calls that did it.
    pub(super) added: HashMap<i32, u64>,
}

impl Instance {
    pub(super) fn target(&self, wd: Option<i32>) -> Target {
        Target {
            pid: Some(self.pid),
            comm: self.comm.clone(),
            mechanism: Some(Kind::Inotify),
            fd: Some(self.fd),
            wd,
            uid: None,
            container: self.container.clone(),
        }
    }

    pub(super) fn watch(&self, wd: i32) -> Option<&Watch> {
        self.watches.iter().rev().find(|watch| watch.wd == wd)
    }

    /// Names it among the stand-ins.
    pub(super) fn at(&self) -> (u32, i32) {
        (self.pid, self.fd)
    }

    /// Brings the watches up to what a look saw.
    pub(super) fn update(&mut self, seen: Vec<Watch>) {
        for known in &mut self.watches {
            let is_there = seen.iter().any(|watch| (watch.wd, watch.ino) == (known.wd, known.ino));
            if !is_there && known.gone.is_none() {
                known.gone = Some(mono_ns());
            }
        }
        for mut watch in seen {
            if let Some(&added) = self.added.get(&watch.wd) {
                watch.since = watch.since.min(added);
            }
            let same =
                |known: &&mut Watch| known.gone.is_none() && (known.wd, known.ino) == (watch.wd, watch.ino);
            match self.watches.iter_mut().find(same) {
                Some(known) => (known.mask, known.doubled) = (watch.mask, watch.doubled),
                None => self.watches.push(watch),
            }
        }
    }
}

/// The directory in which a watch's changes are made.
pub(super) fn directory(watch: &Watch) -> Option<&Path> {
    let path = watch.path.as_deref()?;
    if watch.is_dir { Some(path) } else { path.parent() }
}
