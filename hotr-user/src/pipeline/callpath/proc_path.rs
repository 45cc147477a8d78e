//! Paths as `/proc/PID` shows them, and whose root directory they start from.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A root directory that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RootDir {
    /// That of a process.
    Of(u32),
    /// This directory: the caller had it as its root when it made the call.
    At(PathBuf),
}

/// From the root of the caller's whole namespace, as `/proc/<pid>/fd` and `cwd` show it, to the caller's own root.
pub(super) fn inside_root(pid: u32, path: &Path) -> Option<PathBuf> {
    let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
    path.strip_prefix(root).ok().map(|inside| Path::new("/").join(inside))
}

/// Takes off what the kernel writes behind the path of a removed file.
pub(super) fn without_deleted(path: PathBuf) -> PathBuf {
    let mut bytes = path.into_os_string().into_vec();
    if bytes.ends_with(b" (deleted)") {
        bytes.truncate(bytes.len() - b" (deleted)".len());
    }
    PathBuf::from(OsString::from_vec(bytes))
}
