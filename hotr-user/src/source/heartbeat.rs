//! Heartbeats: changes that hotr makes in order to receive them.
//!
//! In: nothing. Out: a file that nobody else can reach, and a write to it ([`Heartbeat::beat`]). The file lies on a tmpfs
//! of its own that is mounted nowhere, so no tree holds it and it disappears with hotr. The kernel programs leave out
//! what hotr's own process changes (`own_tgid`); so the write is made by a child that shares hotr's memory and lives
//! for this one system call, as `vfork` makes one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::private_mount::private_mount;
use crate::vfork::ChildStack;

/// See the module.
pub struct Heartbeat {
    /// Root of the private filesystem; none where it could not be mounted.
    dir: Option<OwnedFd>,
    file: OwnedFd,
    stack: ChildStack,
}

impl Heartbeat {
    /// Makes the file. Without `CAP_SYS_ADMIN` it is a memory file without a name: [`Self::dir`] is then `None`, and
    /// only inotify can report it.
    ///
    /// # Errors
    /// When neither can be had.
    pub fn new() -> Result<Self, Errno> {
        let (dir, file) = match private_file() {
            Ok((dir, file)) => (Some(dir), file),
            Err(_) => (None, nameless_file()?),
        };
        Ok(Self { dir, file, stack: ChildStack::new() })
    }

    /// The directory that the file lies in, to be registered with the kernel programs.
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(AsFd::as_fd)
    }

    /// The file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes one byte. When this returns, the kernel has queued all that it reports of the write (see
    /// [`crate::pipeline::correlate`]).
    ///
    /// # Errors
    /// When no process can be made, or it cannot write.
    pub fn beat(&mut self) -> Result<(), Errno> {
        let mut fd = self.file.as_raw_fd();
        // SAFETY: it takes the descriptor, and makes one system call.
        let child = unsafe { self.stack.run(write_one, &mut fd, libc::CLONE_FILES) };
        let child = child.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        let mut status = 0;
        loop {
            // SAFETY: a pointer to a live number. The child sends no signal at its end, hence `__WCLONE`; nobody else
            // waits for it.
            let waited = unsafe { libc::waitpid(child, &raw mut status, libc::__WCLONE) };
            if waited == child {
                break;
            }
            if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                return Err(Errno::CHILD);
            }
        }
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 { Ok(()) } else { Err(Errno::IO) }
    }
}

/// Runs in the child: one system call.
extern "C" fn write_one(fd: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the descriptor that `beat` points to; the buffer is static.
    let written = unsafe { libc::pwrite(*fd.cast::<libc::c_int>(), c"x".as_ptr().cast(), 1, 0) };
    libc::c_int::from(written != 1)
}

/// A file on a tmpfs that has no mount point.
fn private_file() -> Result<(OwnedFd, OwnedFd), Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dir = private_mount("tmpfs", attributes)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&dir, "heartbeat", flags, Mode::RUSR | Mode::WUSR)?;
    Ok((dir, file))
}

/// A memory file, opened again by its link: the kernel sends no notification of what is done through the first
/// descriptor (`fs/file_table.c`, `alloc_file_pseudo`).
fn nameless_file() -> Result<OwnedFd, Errno> {
    let first = memfd_create("hotr-heartbeat", MemfdFlags::CLOEXEC)?;
    let link = format!("/proc/self/fd/{}", first.as_raw_fd());
    open(link, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::inotify::{InotifyOptions, InotifySource};

    fn works(mut heartbeat: Heartbeat) {
        let mut source = InotifySource::new(InotifyOptions::default()).unwrap();
        source.listen_to_heartbeat(heartbeat.file()).unwrap();
        let mut events = Vec::new();
        for beats in 1..=3 {
            source.drain(&mut events).unwrap();
            assert_eq!(source.beats(), Some(beats - 1), "nothing before the strike");
            heartbeat.beat().unwrap();
            source.drain(&mut events).unwrap();
            assert_eq!(source.beats(), Some(beats));
        }
        source.rebuild().unwrap();
        heartbeat.beat().unwrap();
        source.drain(&mut events).unwrap();
        assert_eq!(source.beats(), Some(4), "after a rebuild as well");
        assert!(events.is_empty() && source.take_lost().is_none(), "{events:?}");
    }

    #[test]
    fn inotify_hears_the_private_file() {
        let Ok((dir, file)) = private_file() else {
            eprintln!("not run: CAP_SYS_ADMIN is needed");
            return;
        };
        works(Heartbeat { dir: Some(dir), file, stack: ChildStack::new() });
    }

    #[test]
    fn inotify_hears_the_nameless_file() {
        works(Heartbeat { dir: None, file: nameless_file().unwrap(), stack: ChildStack::new() });
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let file = open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let mut heartbeat = Heartbeat { dir: None, file, stack: ChildStack::new() };
        assert_eq!(heartbeat.beat(), Err(Errno::IO));
    }
}
