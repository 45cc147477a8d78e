//! Writes by other ways to a file than its path: /proc/self/fd, and a file handle.

use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::verify::bench::{During, holds, old_file, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::make_filesystem::Disk;
use crate::verify::rulings::receives;

const INOTIFY: &[Listener] = &[Listener::Inotify];

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "proc-fd-write",
        group: Group::Content,
        claim: "A write through /proc/self/fd is received by a watch on the file's directory.",
        source: "bug reports about containers that write to inherited descriptors",
        method: "Open a file of a watched directory again through /proc/self/fd, and write.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir("d")?;
            let path = dir.join("f");
            old_file(&path, b"1\n")?;
            let opened = File::open(&path)?;
            bench.watch("d", &dir)?;
            bench.compare("d/f", &path);
            let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
            bench.operate(|_| overwrite(Path::new(&link), b"22\n"))?;
            bench.done(holds(&path, b"22\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "handle-write",
        group: Group::Content,
        claim: "A write by open_by_handle_at is received by a watch on the file's directory.",
        source: "fs/exportfs/expfs.c: a file found by its handle may have no directory",
        method: "Open an ext4 file of a watched directory by its handle, and write.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir_on(Disk::Ext4)?;
            let path = dir.join("f");
            old_file(&path, b"1\n")?;
            let handle = Handle::of(&path).during("ask for a file handle")?;
            bench.watch("d", &dir)?;
            bench.compare("d/f", &path);
            let mount = File::open(&dir)?;
            bench.operate(|_| {
                let mut file = handle.open(&mount).during("open a file by its handle")?;
                file.write_all(b"22\n").during("write")
            })?;
            bench.done(holds(&path, b"22\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
];

/// `struct file_handle` of linux/fcntl.h with room for the longest handle.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; LONGEST],
}

const LONGEST: usize = 128;

impl Handle {
    fn of(path: &Path) -> Result<Self, Error> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let mut handle = Self { bytes: 128, kind: 0, handle: [0; LONGEST] };
        let mut mount = 0;
        // SAFETY: a live string that ends in NUL; the kernel writes at most `bytes` bytes into the handle, and a mount id.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                0,
            )
        };
        if result == 0 { Ok(handle) } else { Err(Error::last_os_error()) }
    }

    /// Opens the file for writing; `mount` is any file of its filesystem.
    fn open(&self, mount: &File) -> Result<File, Error> {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        // SAFETY: the handle is one that the kernel gave, and is only read.
        let fd =
            unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const *self, flags) };
        let fd = i32::try_from(fd).map_err(Error::other)?;
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}
