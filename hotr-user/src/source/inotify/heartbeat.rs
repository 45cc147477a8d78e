//! The watch on the heartbeat file: its events are counted, and not passed on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::io::Errno;

use super::InotifySource;

/// The heartbeat file as this instance knows it.
#[derive(Debug)]
pub(super) struct Beats {
    file: Arc<OwnedFd>,
    wd: Option<i32>,
    heard: u64,
}

impl InotifySource {
    /// Watches the file of a [`crate::source::heartbeat::Heartbeat`]; its events are only counted.
    ///
    /// # Errors
    /// When it cannot be watched: the limit of watches, or no `/proc`.
    pub fn listen_to_heartbeat(&mut self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let file = Arc::new(rustix::io::fcntl_dupfd_cloexec(file, 0)?);
        self.beats = Some(Beats { file, wd: None, heard: 0 });
        self.watch_heart()
    }

    /// Heartbeats received so far; nothing when the file is not watched.
    pub fn beats(&self) -> Option<u64> {
        self.beats.as_ref().filter(|beats| beats.wd.is_some()).map(|beats| beats.heard)
    }

    /// In a new instance as well.
    pub(super) fn watch_heart(&mut self) -> Result<(), Errno> {
        let Some(beats) = &mut self.beats else { return Ok(()) };
        let link = format!("/proc/self/fd/{}", beats.file.as_raw_fd());
        beats.wd = None;
        beats.wd = Some(add_watch(self.fd.as_fd(), link.as_str(), WatchFlags::MODIFY)?);
        Ok(())
    }

    /// Whether an event is of the heartbeat file; counts it.
    pub(super) fn is_beat(&mut self, wd: i32) -> bool {
        let Some(beats) = self.beats.as_mut().filter(|beats| beats.wd == Some(wd)) else { return false };
        beats.heard += 1;
        true
    }
}
