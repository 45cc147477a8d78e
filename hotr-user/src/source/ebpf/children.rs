//! Reads the files of a directory from the kernel's memory, many at a time, by a program that is run and not attached.
//!
//! In: an open directory, which the program finds by its descriptor. Out: [`Children`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aya::{Ebpf, Pod};
use hotr_common::children::Children;
use hotr_common::offsets::{ABSENT, Offsets};

use super::run::{self, run};
use super::shared::Shared;
use crate::kernel::load::{self, LoadError};

/// Name of the program.
const PROGRAM: &str = "read_children";
/// Name of the map with its answers.
const ANSWERS: &str = "CHILDREN";

#[derive(Clone, Copy)]
#[repr(transparent)]
struct ChildrenPod(Children);
// SAFETY: `Children` is `repr(C)`, made of integers, without padding.
unsafe impl Pod for ChildrenPod {}

/// The program, for all threads that want to run it. It works on when hotr's hooks are taken off.
pub struct ChildReader {
    program: OwnedFd,
    answers: Shared<ChildrenPod>,
    /// Entries that no thread has.
    free: Mutex<Vec<u32>>,
    told: AtomicU64,
}

/// Loads the program when it is first needed.
pub(super) struct Lazy {
    /// The kernel has all fields that it reads.
    is_known: bool,
    reader: Option<Arc<ChildReader>>,
}

impl Lazy {
    pub(super) fn of(offsets: &Offsets) -> Self {
        let fields = [offsets.dentry_children, offsets.inode_mtime, offsets.inode_ctime];
        Self { is_known: !fields.contains(&ABSENT), reader: None }
    }

    pub(super) fn get(&mut self, ebpf: &mut Ebpf) -> Option<Arc<ChildReader>> {
        if self.reader.is_none() && self.is_known {
            self.reader = ChildReader::load(ebpf).ok().map(Arc::new);
        }
        self.reader.clone()
    }
}

impl ChildReader {
    /// Loads the program.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn load(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let program = run::load(ebpf, PROGRAM)?;
        let entries = load::scanners();
        let answers = super::shared(ebpf, ANSWERS, entries as usize)?;
        let free = (0..entries).collect();
        Ok(Self { program, answers, free: Mutex::new(free), told: AtomicU64::new(0) })
    }

    /// A thread's own way to ask; `None` when as many threads as there can be have one ([`load::scanners`]).
    pub(crate) fn lane(self: &Arc<Self>) -> Option<Lane> {
        let entry = self.free().pop()?;
        Some(Lane { reader: Arc::clone(self), entry })
    }

    /// Files that were returned so far.
    #[must_use]
    pub fn files_returned(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChildReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChildReader").field("program", &self.program).finish_non_exhaustive()
    }
}

/// See [`ChildReader::lane`].
#[derive(Debug)]
pub(crate) struct Lane {
    reader: Arc<ChildReader>,
    entry: u32,
}

impl Lane {
    /// Some of a directory's files: the first ones with `from` 0, and those after an answer with its `next`.
    ///
    /// # Errors
    /// `EINVAL` on kernels that run no program of this kind.
    pub(crate) fn read(&self, dir: BorrowedFd<'_>, from: u64) -> io::Result<Children> {
        let descriptor = u64::try_from(dir.as_raw_fd()).unwrap_or(u64::MAX);
        run(self.reader.program.as_fd(), &[descriptor, u64::from(self.entry), from])?;
        let answer = self.reader.answers.get(self.entry).ok_or(io::ErrorKind::NotFound)?.0;
        self.reader.told.fetch_add(answer.told, Ordering::Relaxed);
        Ok(answer)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reader.free().push(self.entry);
    }
}
