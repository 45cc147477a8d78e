//! Mount changes as a file descriptor, and the mount id of an open file.
//!
//! The kernel raises `POLLPRI | POLLERR` on an open mountinfo when a mount was added, removed or moved in its
//! namespace (fs/proc_namespace.c, `mounts_poll`), and each poll of that descriptor takes the news: also the one
//! that an epoll loop makes.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::retry_on_intr;

use super::MountTable;

/// Notices that the mounts of our namespace changed.
#[derive(Debug)]
pub struct MountWatch {
    file: File,
    /// The same, polled by [`Self::refresh`] alone: the news of `file` may have been taken by an epoll loop.
    news: File,
    text: Vec<u8>,
}

impl MountWatch {
    /// Starts to watch, and reads the table as it is now.
    ///
    /// # Errors
    /// When `/proc` is not mounted or not readable.
    pub fn new() -> io::Result<(Self, MountTable)> {
        let open = || File::open("/proc/thread-self/mountinfo");
        let mut watch = Self { file: open()?, news: open()?, text: Vec::new() };
        // Polled once before the first read: a change after this point is news.
        has_news(&watch.file)?;
        has_news(&watch.news)?;
        watch.text = watch.read()?;
        let table = MountTable::parse(&watch.text);
        Ok((watch, table))
    }

    /// The table, when it is another one than at the last call. Costs one system call when nothing was mounted or unmounted,
    /// unless it `is_old`: a directory was renamed, which moves what is mounted below it without news.
    ///
    /// # Errors
    /// When mountinfo cannot be polled or read.
    pub fn refresh(&mut self, is_old: bool) -> io::Result<Option<MountTable>> {
        if !has_news(&self.news)? && !is_old {
            return Ok(None);
        }
        let text = self.read()?;
        if text == self.text {
            return Ok(None);
        }
        self.text = text;
        Ok(Some(MountTable::parse(&self.text)))
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(self.text.len() + 1024);
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        Ok(text)
    }
}

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a mount changed since the last poll of this descriptor.
fn has_news(mountinfo: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(mountinfo, PollFlags::PRI)];
    // It waits for nothing, but a pending signal interrupts it.
    retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(fds[0].revents().intersects(PollFlags::PRI | PollFlags::ERR))
}

/// The id of the mount through which a file was opened (an `O_PATH` descriptor will do).
///
/// # Errors
/// When neither statx (Linux 5.8) nor `/proc/self/fdinfo` shows it.
pub fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let fd = fd.as_fd();
    if let Ok(stat) = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        && stat.stx_mask & StatxFlags::MNT_ID.bits() != 0
    {
        return Ok(stat.stx_mnt_id);
    }
    mount_id_from_fdinfo(fd)
}

pub(super) fn mount_id_from_fdinfo(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "fdinfo without mnt_id"))
}
