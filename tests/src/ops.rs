//! The operations of the matrix: for each its fixtures, its system calls and the lines that must report it.
//!
//! Fixtures are made before hotr starts, so that a cell costs one operation and one barrier. Every operation has
//! a directory of its own, by which late lines still find the cell they belong to.

mod absent;
mod aio;
mod alias;
mod attrs;
mod by_kernel;
mod compat;
mod content;
mod mapping;
mod names;
mod odd_names;
mod renames;
mod space;
mod subvolumes;
mod uring;
mod uring_names;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::expect::Expect;
use crate::place::{LowerFiles, Place};

/// What most operations write.
pub(crate) const DATA: &[u8] = b"hello";
/// Size of the files that fixtures make: four blocks.
const SIZE: usize = 16 * 1024;
/// One block of every filesystem of the matrix.
const BLOCK: u64 = 4096;

/// A part of an operation, ready to run.
pub(crate) type Act = Box<dyn FnOnce() -> Result<(), OpError>>;

/// Why fixtures or an operation failed.
#[derive(Debug)]
pub(crate) struct OpError {
    /// What was tried.
    pub(crate) what: String,
    /// The system's answer, when it was the system.
    pub(crate) errno: Option<i32>,
}

impl OpError {
    /// A failure that is not a system call's.
    pub(crate) fn other(what: impl Into<String>) -> Self {
        Self { what: what.into(), errno: None }
    }

    /// Whether the filesystem or kernel says that it has no such operation.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.errno.is_some_and(|errno| {
            [libc::EOPNOTSUPP, libc::ENOTTY, libc::EINVAL, libc::ENOSYS].contains(&errno)
        })
    }
}

impl From<io::Error> for OpError {
    fn from(error: io::Error) -> Self {
        Self { what: error.to_string(), errno: error.raw_os_error() }
    }
}

impl From<rustix::io::Errno> for OpError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Turns a C result into the count or the error of the calling thread.
pub(crate) fn checked(result: libc::c_long) -> Result<usize, OpError> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().into())
}

/// Fixtures are there: what to do, and what it must be reported as.
pub(crate) struct Prepared {
    /// Changes that belong to the preparation and must be made while hotr runs; not compared.
    pub(crate) before: Option<Act>,
    /// The operation.
    pub(crate) act: Act,
    /// Its lines, in order.
    pub(crate) expect: Vec<Expect>,
}

type Step = Result<Prepared, OpError>;

fn step(expect: Vec<Expect>, act: impl FnOnce() -> Result<(), OpError> + 'static) -> Step {
    Ok(Prepared { before: None, act: Box::new(act), expect })
}

/// Where an operation makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On every filesystem.
    All,
    /// On overlays only: it is about their layers.
    Overlay,
}

/// One operation.
pub struct Operation {
    /// Its name in results and in the table of exceptions.
    pub id: &'static str,
    /// Where it is run.
    pub on: On,
    /// Files that are made in the lower layer before anybody looks at the merged one.
    pub lower: &'static [&'static str],
    pub(crate) prepare: fn(&Cell<'_>) -> Step,
}

impl Operation {
    /// Whether it is run at a place.
    pub fn runs_at(&self, place: &Place) -> bool {
        self.on == On::All || place.is_overlay()
    }

    /// The files that it needs in the lower layer.
    pub const fn lower_files(&self) -> LowerFiles {
        (self.id, self.lower)
    }
}

const fn all_fs(id: &'static str, prepare: fn(&Cell<'_>) -> Step) -> Operation {
    Operation { id, on: On::All, lower: &[], prepare }
}

const fn overlay(
    id: &'static str,
    lower: &'static [&'static str],
    prepare: fn(&Cell<'_>) -> Step,
) -> Operation {
    Operation { id, on: On::Overlay, lower, prepare }
}

/// Every operation, in the order in which they are run.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    [
        content::OPS,
        space::OPS,
        mapping::OPS,
        uring::OPS,
        uring_names::OPS,
        aio::OPS,
        by_kernel::OPS,
        names::OPS,
        renames::OPS,
        subvolumes::OPS,
        attrs::OPS,
        alias::OPS,
        odd_names::OPS,
        compat::OPS,
        absent::OPS,
    ]
    .into_iter()
    .flatten()
}

/// Where one operation works: directories of its own inside and outside the traced tree.
pub(crate) struct Cell<'a> {
    place: &'a Place,
    id: &'static str,
    dir: PathBuf,
    out: PathBuf,
}

impl<'a> Cell<'a> {
    /// Makes the directories.
    pub(crate) fn new(place: &'a Place, operation: &Operation) -> Result<Self, OpError> {
        let id = operation.id;
        let (dir, out) = (place.traced().join(id), place.outside().join(id));
        for path in [&dir, &out] {
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Self { place, id, dir, out })
    }

    /// A name inside the traced tree.
    fn inside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// A name on the same filesystem outside the traced tree.
    fn outside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.out.join(name)
    }

    /// The same file as [`Self::inside`], by another way to the traced directory.
    fn by(&self, traced: &Path, name: &str) -> PathBuf {
        traced.join(self.id).join(name)
    }

    /// A file of [`SIZE`] bytes inside.
    fn file(&self, name: impl AsRef<Path>) -> Result<PathBuf, OpError> {
        make_file(self.inside(name))
    }

    /// A file of [`SIZE`] bytes inside, open for reading and writing.
    fn open(&self, name: &str) -> Result<(PathBuf, File), OpError> {
        let path = self.file(name)?;
        let file = open_rw(&path)?;
        Ok((path, file))
    }
}

fn make_file(path: PathBuf) -> Result<PathBuf, OpError> {
    std::fs::write(&path, [b'.'; SIZE])?;
    Ok(path)
}

fn open_rw(path: &Path) -> Result<File, OpError> {
    Ok(OpenOptions::new().read(true).write(true).open(path)?)
}

fn open_direct(path: &Path) -> Result<File, OpError> {
    Ok(OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?)
}

/// A short count is an operation that did not do what its cell is about.
fn exactly(count: usize, expected: usize) -> Result<(), OpError> {
    if count == expected {
        return Ok(());
    }
    Err(OpError::other(format!("the call moved {count} bytes instead of {expected}")))
}

/// A call that must fail in this way.
fn fails<T>(result: rustix::io::Result<T>, expected: rustix::io::Errno) -> Result<(), OpError> {
    match result {
        Err(error) if error == expected => Ok(()),
        Err(error) => Err(OpError::other(format!("failed with {error} instead of {expected}"))),
        Ok(_) => Err(OpError::other(format!("succeeded instead of failing with {expected}"))),
    }
}

/// The error of a call whose result is not needed.
fn done<T>(result: Result<T, impl Into<OpError>>) -> Result<(), OpError> {
    result.map(drop).map_err(Into::into)
}

/// Memory for O_DIRECT: one block, aligned to its size.
#[repr(C, align(4096))]
struct Aligned([u8; BLOCK as usize]);

fn aligned_block() -> Box<Aligned> {
    Box::new(Aligned([b'd'; BLOCK as usize]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_usable_as_file_names() {
        let mut seen = HashSet::new();
        for op in super::all() {
            assert!(seen.insert(op.id), "{} stands twice", op.id);
            assert!(op.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
        assert!(seen.len() > 100);
    }
}
