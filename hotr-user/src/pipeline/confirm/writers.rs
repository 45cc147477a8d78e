//! Whether somebody has a file open for writing: what it holds now may be half of what it will hold.
//!
//! The kernel grants a read lease on a file only while nobody has it open for writing (`fs/locks.c`,
//! `check_conflicting_open`). Where leases do not work, the descriptors of all processes are checked.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

use super::state::open_in;
use crate::beneath::Dir;
use crate::source::device;
use hotr_events::FileType;

/// Whether a regular file in a held directory is open for writing somewhere. What cannot be determined is reported as
/// `false`.
#[must_use]
pub fn is_being_written(dir: &Dir, name: &OsStr) -> bool {
    let Ok(fd) = open_in(dir.as_fd(), name) else { return false };
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    let Ok(stat) = statx(&fd, c"", AtFlags::EMPTY_PATH, wanted) else { return false };
    if FileType::from_mode(stat.stx_mode.into()) != Some(FileType::File) {
        return false;
    }
    by_lease(&fd).unwrap_or_else(|| by_descriptors(device(&stat), stat.stx_ino))
}

/// include/uapi/asm-generic/fcntl.h; the libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// `None` when this filesystem, or our privileges, allow no lease.
fn by_lease(fd: &OwnedFd) -> Option<bool> {
    let raw = fd.as_raw_fd();
    // A writer that comes while we hold the lease must not end us: SIGIO would, SIGURG is ignored by default.
    // SAFETY: fcntl with integer arguments on a descriptor that is open.
    let taken = unsafe {
        if libc::fcntl(raw, F_SETSIG, libc::SIGURG) != 0 {
            return None;
        }
        libc::fcntl(raw, libc::F_SETLEASE, libc::F_RDLCK)
    };
    if taken == 0 {
        // SAFETY: as above. The lease ends with the descriptor in any case.
        unsafe { libc::fcntl(raw, libc::F_SETLEASE, libc::F_UNLCK) };
        return Some(false);
    }
    let busy = std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    busy.then_some(true)
}

fn by_descriptors(dev: u64, ino: u64) -> bool {
    let Ok(processes) = procfs::process::all_processes() else { return false };
    processes.flatten().any(|process| {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{}/fd", process.pid())) else { return false };
        fds.flatten().any(|fd| {
            let wanted = StatxFlags::INO | StatxFlags::TYPE;
            let Ok(stat) = statx(rustix::fs::CWD, fd.path(), AtFlags::NO_AUTOMOUNT, wanted) else {
                return false;
            };
            (device(&stat), stat.stx_ino) == (dev, ino) && writes(process.pid(), &fd.file_name())
        })
    })
}

/// Whether a descriptor's flags say that it may write.
fn writes(pid: i32, fd: &OsStr) -> bool {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.display())).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0);
    OFlags::from_bits_retain(flags).intersects(OFlags::WRONLY | OFlags::RDWR)
}
