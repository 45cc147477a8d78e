//! A file's content, owner, mode, times and extended attributes, from one descriptor to another.
//!
//! In: two open files. Out: the second as the first. Rights that a file gives to those who run it are copied only on
//! request.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown, futimens, ioctl_ficlone};
use rustix::io::Errno;
use xattr::FileExt;

/// Bytes that are copied in one go.
const PIECE: u64 = 16 << 20;
/// The attribute that gives capabilities.
const CAPABILITY: &str = "security.capability";

/// Copies at most `most` bytes. `powers`: set-uid, set-gid and capabilities too, if the owner can be given.
///
/// # Errors
/// `FileTooLarge`, `ECANCELED` once `stop` is set, `EAGAIN` when the file changed meanwhile, and the system's.
pub(super) fn copy(
    source: &File,
    target: &File,
    most: u64,
    powers: bool,
    stop: Option<&AtomicBool>,
) -> io::Result<()> {
    let data = source.metadata()?;
    if data.len() > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    if ioctl_ficlone(target, source).is_err() {
        let mut left = most.saturating_add(1);
        loop {
            let piece = PIECE.min(left);
            let copied = io::copy(&mut source.take(piece), &mut &*target)?;
            left -= copied;
            if left == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if copied < piece {
                break;
            }
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Errno::CANCELED.into());
            }
        }
    }
    // Owner and rights must be of the same moment as the content.
    let after = source.metadata()?;
    let of = |data: &std::fs::Metadata| (data.ctime(), data.ctime_nsec(), data.len());
    if of(&after) != of(&data) {
        return Err(Errno::AGAIN.into());
    }
    // Without privileges the owner is ours already, or cannot be given.
    match fchown(target, Some(Uid::from_raw(data.uid())), Some(Gid::from_raw(data.gid()))) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let given = target.metadata()?;
    let powers = powers && (given.uid(), given.gid()) == (data.uid(), data.gid());
    let mode = data.mode() & if powers { 0o7777 } else { 0o1777 };
    fchmod(target, Mode::from_raw_mode(mode))?;
    copy_xattrs(source, target, powers)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let last_access = time(data.atime(), data.atime_nsec());
    let last_modification = time(data.mtime(), data.mtime_nsec());
    Ok(futimens(target, &Timestamps { last_access, last_modification })?)
}

fn copy_xattrs(source: &File, target: &File, powers: bool) -> io::Result<()> {
    let names = match source.list_xattr() {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.filter(|name| powers || name != CAPABILITY) {
        let Ok(Some(value)) = source.get_xattr(&name) else { continue };
        match target.set_xattr(&name, &value).map_err(|error| (error.kind(), error)) {
            // Attributes of namespaces that this user, or this filesystem, may not set.
            Ok(()) | Err((io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied, _)) => {}
            Err((_, error)) => return Err(error),
        }
    }
    Ok(())
}
