//! Asking the kernel about a file: attributes, generation, and an open directory.
//!
//! In: a directory handle and a name. Out: [`Attr`]. A generation comes by `name_to_handle_at`: one call with no
//! open file, where `FS_IOC_GETVERSION` takes open, ioctl and close, and would open pipes and devices.

use hotr_common::uapi::INODE_TICK_NS;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2};
use rustix::io::{Errno, Result};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use rustix::time::{ClockId, clock_gettime};

use crate::source::difference::nanos;
use crate::source::fsinfo::device;

/// What a scan asks for. Synchronisation with a server is left to the filesystem, as it is for `stat`.
pub(super) const WANTED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::INO)
    .union(StatxFlags::SIZE)
    .union(StatxFlags::MTIME)
    .union(StatxFlags::CTIME)
    .union(StatxFlags::BTIME);

const HANDLE_MAX: usize = 128;

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attr {
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Distinguishes files that have had the same inode number: see [`Source`].
    pub(super) ident: u32,
    pub(super) mode: u16,
    /// Bytes; 0 for a directory.
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    /// The file was changed in the tick in which it was read: another change may carry the same times.
    pub(super) racy: bool,
}

impl Attr {
    /// All but `ident`, which is 0.
    pub(super) fn of(stat: &Statx, now_ns: i64) -> Self {
        let is_dir = stat.stx_mode & 0o170_000 == 0o040_000;
        let ctime = nanos(stat.stx_ctime);
        Self {
            dev: device(stat),
            ino: stat.stx_ino,
            ident: 0,
            mode: stat.stx_mode,
            size: if is_dir { 0 } else { stat.stx_size },
            mtime: nanos(stat.stx_mtime),
            ctime,
            racy: ctime >= now_ns.saturating_sub(INODE_TICK_NS),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// The same file, whatever it is called and holds.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.ident, self.is_dir()) == (other.dev, other.ino, other.ident, other.is_dir())
    }
}

/// Where [`Attr::ident`] comes from on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The inode's generation, from its file handle.
    Generation,
    /// The birth time folded to 32 bits, where there is no generation to be had (overlay); 0 where there is neither.
    Birth,
}

/// Which of the two an open directory's filesystem has.
pub(super) fn source(dir: BorrowedFd<'_>) -> Source {
    if generation(dir, c"").is_some() { Source::Generation } else { Source::Birth }
}

/// The value of [`Attr::ident`].
pub(super) fn ident(source: Source, dir: BorrowedFd<'_>, name: &CStr, stat: &Statx) -> u32 {
    let known = if source == Source::Generation { generation(dir, name) } else { None };
    known.unwrap_or_else(|| {
        let birth = nanos(stat.stx_btime).cast_unsigned();
        ((birth >> 32) ^ (birth & 0xffff_ffff)) as u32
    })
}

/// The clock that inode times are taken from.
pub(super) fn coarse_now() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

#[repr(C, align(8))]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u8; HANDLE_MAX],
}

/// An inode's generation; an empty name asks for the directory itself.
fn generation(dir: BorrowedFd<'_>, name: &CStr) -> Option<u32> {
    let mut handle = MaybeUninit::new(Handle { bytes: HANDLE_MAX as u32, kind: 0, data: [0; HANDLE_MAX] });
    let (mut mount, flags) = (0, if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 });
    // SAFETY: the name ends with NUL; the handle has room for the number of bytes it states; both outlive the call.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            flags,
        ) != 0
    };
    // SAFETY: it was initialised above, and any bytes the kernel wrote make valid numbers.
    let handle = unsafe { handle.assume_init_ref() };
    if refused { None } else { decode(handle.kind, handle.data.get(..handle.bytes as usize)?) }
}

/// The generation in a handle of a known layout: `generic_encode_ino32_fh`, `shmem_encode_fh`,
/// `xfs_fs_encode_fh`, `btrfs_encode_fh`.
fn decode(kind: i32, data: &[u8]) -> Option<u32> {
    let at = match (kind, data.len()) {
        (0x01, 8) => 4,
        (0x01, 12) => 0,
        (0x81, 12) => 8,
        (0x4d, 20) => 16,
        _ => return None,
    };
    data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Gives the calling thread a working directory of its own; whether it has one.
pub(super) fn own_cwd() -> bool {
    // SAFETY: with this flag nothing changes for the memory of the process, nor for its other threads.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.is_ok()
}

static OPENAT2_WORKS: AtomicBool = AtomicBool::new(true);

/// Opens a directory below another; never through a symbolic link. Falls back to `openat` where `openat2` is not
/// there (before 5.6) or not allowed (system call filters).
pub(super) fn open_below(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if OPENAT2_WORKS.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => OPENAT2_WORKS.store(false, Ordering::Relaxed),
            Err(Errno::AGAIN) => {}
            answer => return answer,
        }
    }
    openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn generations_are_found_in_handles() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let table = [
            ("ext4", 0x01, words(&[11, 77]), Some(77)),
            ("tmpfs", 0x01, words(&[77, 11, 0]), Some(77)),
            ("xfs", 0x81, words(&[11, 0, 77]), Some(77)),
            ("btrfs", 0x4d, words(&[11, 0, 5, 0, 77]), Some(77)),
            ("overlay", 0xf8, words(&[1, 2, 3]), None),
            ("unknown", 0x01, words(&[1, 2, 3, 4]), None),
        ];
        for (name, kind, data, expected) in table {
            assert_eq!(decode(kind, &data), expected, "{name}");
        }
    }
}
