//! Changes of content and attributes by a writer.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{self as sys, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::{self, Errno, IoSlice};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use super::{Done, Writer};
use crate::fuzz::random::Random;

/// No file gets larger but by appending.
const LARGEST: u64 = 20_000;
const PAGE: usize = 4096;

/// One change of content or attributes.
pub(super) fn change(writer: &mut Writer, what: &mut String) -> Done {
    match writer.random.below(54) {
        0..30 => through_descriptor(writer, what),
        30..36 => {
            let given = writer.given();
            let _ = write!(what, "open-truncate {}", writer.shown(&given.path));
            let flags = OFlags::TRUNC | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | writer.follow();
            let file = File::from(sys::openat(given.at(), given.name(), flags, Mode::empty())?);
            write(&file, &mut writer.random)
        }
        36..40 if writer.paths() => {
            let given = writer.given();
            let length = writer.random.below(LARGEST);
            let _ = write!(what, "truncate {} {length}", writer.shown(&given.path));
            let path = std::ffi::CString::new(given.path.as_os_str().as_encoded_bytes())
                .map_err(|_| Errno::INVAL)?;
            let length = libc::off_t::try_from(length).map_err(|_| Errno::INVAL)?;
            // SAFETY: the path ends in NUL and lives over the call.
            if unsafe { libc::truncate(path.as_ptr(), length) } == 0 { Ok(()) } else { Err(last_error()) }
        }
        40..44 => {
            let given = writer.given();
            let mode = *writer.random.of(&[0o644, 0o600, 0o755, 0o4755]);
            if !writer.paths() {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(sys::openat(given.at(), given.name(), flags, Mode::empty())?);
                let _ = write!(what, "fchmod {} {mode:o}", writer.shown(&given.path));
                return sys::fchmod(&file, Mode::from(mode));
            }
            let _ = write!(what, "chmod {} {mode:o}", writer.shown(&given.path));
            sys::chmodat(given.at(), given.name(), Mode::from(mode), AtFlags::empty())
        }
        44..47 => {
            let given = writer.given();
            let _ = write!(what, "utimes {}", writer.shown(&given.path));
            let time = Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
            let times = Timestamps { last_access: time, last_modification: time };
            sys::utimensat(given.at(), given.name(), &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        47..49 if writer.paths() => {
            let path = writer.pick();
            let _ = write!(what, "setxattr {}", writer.shown(&path));
            sys::lsetxattr(path, "trusted.fuzz", b"value", sys::XattrFlags::empty())
        }
        _ => {
            let given = writer.given();
            let _ = write!(what, "append {}", writer.shown(&given.path));
            let flags =
                OFlags::APPEND | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | writer.follow();
            let file = File::from(sys::openat(given.at(), given.name(), flags, Mode::empty())?);
            write(&file, &mut writer.random)
        }
    }
}

/// On a file that is open: one that is held, or another.
fn through_descriptor(writer: &mut Writer, what: &mut String) -> Done {
    if writer.held.is_empty() || writer.random.percent(30) {
        let given = writer.given();
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let _ = write!(what, "open {}; ", writer.shown(&given.path));
        let file = File::from(sys::openat(given.at(), given.name(), flags, Mode::empty())?);
        if !file.metadata().is_ok_and(|data| data.is_file()) {
            return Err(Errno::INVAL);
        }
        writer.hold(file, given.path);
    }
    let index = usize::try_from(writer.random.below(1 << 16)).unwrap_or(0) % writer.held.len();
    let path: PathBuf = writer.held[index].1.clone();
    let file = writer.held[index].0.try_clone().map_err(|_| Errno::MFILE)?;
    let shown = writer.shown(&path);
    let inode = file.metadata().map(|data| data.ino()).unwrap_or_default();
    let mut say = |word: &str| {
        let _ = write!(what, "{word} {shown} ino={inode}");
    };
    let random = &mut writer.random;
    let (at, length) = (random.below(LARGEST), random.below(5000) + 1);
    match random.below(30) {
        0..8 => {
            say("write");
            write(&file, random)
        }
        8..13 => {
            say("pwrite");
            io::pwrite(&file, &bytes(random), at).map(drop)
        }
        13..15 => {
            say("writev");
            let (one, two) = (bytes(random), bytes(random));
            io::writev(&file, &[IoSlice::new(&one), IoSlice::new(&two)]).map(drop)
        }
        15..18 => {
            say("ftruncate");
            sys::ftruncate(&file, at)
        }
        18..22 => {
            let (word, mode) = *random.of(&[
                ("fallocate", FallocateFlags::empty()),
                ("fallocate-keep", FallocateFlags::KEEP_SIZE),
                ("punch", FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE)),
                ("zero", FallocateFlags::ZERO_RANGE),
            ]);
            say(word);
            sys::fallocate(&file, mode, at, length)
        }
        22..24 => {
            say("copy");
            let (mut from, mut to) = (0, at);
            sys::copy_file_range(
                &file,
                Some(&mut from),
                &file,
                Some(&mut to),
                usize::try_from(length).unwrap_or(1),
            )
            .map(drop)
        }
        24 => {
            say("fchmod");
            sys::fchmod(&file, Mode::from(0o640))
        }
        _ => {
            say("mmap");
            store(&file, random)
        }
    }
}

/// A few bytes, seldom none of them new.
fn bytes(random: &mut Random) -> Vec<u8> {
    let length = usize::try_from(random.below(300) + 1).unwrap_or(1);
    let byte = *random.of(b"0123456789");
    vec![byte; length]
}

/// Writes a few bytes at the file's position.
pub(super) fn write(file: &File, random: &mut Random) -> Done {
    if random.percent(20) {
        sys::seek(file, SeekFrom::Start(random.below(LARGEST)))?;
    }
    io::write(file, &bytes(random)).map(drop)
}

/// Stores a byte through a shared mapping. The page is made clean before: a later store is seen by no channel.
fn store(file: &File, random: &mut Random) -> Done {
    let size = usize::try_from(file.metadata().map_err(|_| Errno::IO)?.len()).unwrap_or(0);
    if size == 0 {
        return Err(Errno::NODATA);
    }
    sys::fdatasync(file)?;
    let place = usize::try_from(random.below(u64::try_from(size).unwrap_or(1))).unwrap_or(0);
    let offset = u64::try_from(place - place % PAGE).unwrap_or(0);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe {
        mmap(std::ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, offset)
    }?;
    let byte = *random.of(b"xyz");
    // Another writer may cut the file: the process would be ended by SIGBUS, so the kernel makes the store.
    let stored = by_kernel(address.cast::<u8>().wrapping_add(place % PAGE), byte);
    // SAFETY: the page is that of the mapping above.
    let _ = unsafe { msync(address, PAGE, MsyncFlags::SYNC) };
    // SAFETY: as above; nobody refers to it any more.
    let _ = unsafe { munmap(address, PAGE) };
    stored
}

/// Has the kernel store a byte: where the page is gone, that is an error and no signal.
fn by_kernel(address: *mut u8, byte: u8) -> Done {
    let (reader, sender) = rustix::pipe::pipe()?;
    io::write(&sender, &[byte])?;
    use std::os::fd::AsRawFd as _;
    // SAFETY: one byte of a mapping that lives over the call.
    let read = unsafe { libc::read(reader.as_raw_fd(), address.cast(), 1) };
    if read == 1 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
