//! An inotify instance of the laboratory.
//!
//! In: paths to watch. Out: what was queued up to a barrier. An instance has one queue, so the event of a barrier in any
//! watched directory stands behind all earlier ones (fs/notify/notification.c, `fsnotify_insert_event`).

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use hotr_common::uapi::inotify::Q_OVERFLOW;
use hotr_events::mask;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use super::{PATIENCE, put, wait};
use crate::verify::evidence::{Account, Event, Listener, State};

/// The label of the watch for barriers.
const BARRIER: &str = "barrier";

/// See the module.
pub(in crate::verify) struct Inotify {
    fd: OwnedFd,
    /// Watch descriptors and what the experiment calls them. A file watched twice keeps its first name.
    watches: Vec<(i32, &'static str)>,
    events: Vec<Event>,
    state: State,
}

impl Inotify {
    /// An instance that watches the directory of barriers.
    pub(in crate::verify) fn new(barriers: &Path) -> io::Result<Self> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut inotify = Self { fd, watches: Vec::new(), events: Vec::new(), state: State::Listening };
        inotify.add(BARRIER, barriers, WatchFlags::CREATE)?;
        Ok(inotify)
    }

    /// Adds a watch; returns its descriptor.
    pub(in crate::verify) fn add(
        &mut self,
        at: &'static str,
        path: &Path,
        mask: WatchFlags,
    ) -> Result<i32, Errno> {
        let wd = add_watch(&self.fd, path, mask)?;
        if !self.watches.iter().any(|(known, _)| *known == wd) {
            self.watches.push((wd, at));
        }
        Ok(wd)
    }

    /// Number of watches that the kernel has for this instance, without that for barriers.
    pub(in crate::verify) fn live_watches(&self) -> u64 {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let info = std::fs::read_to_string(path).unwrap_or_default();
        let watches = info.lines().filter(|line| line.starts_with("inotify wd:")).count();
        u64::try_from(watches).unwrap_or(u64::MAX).saturating_sub(1)
    }

    /// Device number of the superblock, inode number and mask of each mark, without that for barriers: what the kernel says of them
    /// (fs/notify/fdinfo.c, `inotify_fdinfo`).
    pub(in crate::verify) fn marks(&self) -> Vec<(u64, u64, u32)> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let info = std::fs::read_to_string(path).unwrap_or_default();
        let mark = |line: &str| -> Option<(u64, u64, u32)> {
            let wd = line.strip_prefix("inotify wd:")?.split(' ').next()?;
            let wd = i32::from_str_radix(wd, 16).ok()?;
            let is_of_experiment = self.watches.iter().any(|(known, at)| *known == wd && *at != BARRIER);
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            let number = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
            let mark = (number("sdev:")?, number("ino:")?, u32::try_from(number("mask:")?).ok()?);
            Some(mark).filter(|_| is_of_experiment)
        };
        info.lines().filter_map(mark).collect()
    }

    /// Watch descriptors and what the experiment calls them, without that for barriers.
    pub(in crate::verify) fn watches(&self) -> HashMap<i32, &'static str> {
        self.watches.iter().filter(|(_, at)| *at != BARRIER).copied().collect()
    }

    /// Its descriptor.
    pub(in crate::verify) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Forgets what was received so far.
    pub(in crate::verify) fn forget(&mut self) {
        self.events.clear();
        self.state = State::Silent;
    }

    /// Whether it was received: reads up to the barrier of this name, or to the end of a queue that has overflowed: it has no room for a barrier.
    pub(in crate::verify) fn read_to(&mut self, barrier: &[u8]) -> bool {
        let over = Instant::now() + PATIENCE;
        self.state = State::Silent;
        let mut overflown = false;
        loop {
            match self.read(barrier, &mut overflown) {
                Ok(true) => {
                    self.state = State::Listening;
                    return true;
                }
                Ok(false) if overflown => {
                    self.state = State::Listening;
                    return true;
                }
                Ok(false) => {}
                Err(_) => return false,
            }
            if !wait(self.fd.as_fd(), over) {
                return false;
            }
        }
    }

    /// Reads what is queued; whether the barrier was in it.
    fn read(&mut self, barrier: &[u8], overflown: &mut bool) -> Result<bool, Errno> {
        let mut buffer = [const { MaybeUninit::uninit() }; 1 << 16];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let bits = event.events().bits();
            let name = event.file_name().map(|name| name.to_bytes().to_vec());
            let at = self.watches.iter().find(|(wd, _)| *wd == event.wd()).map_or("", |(_, at)| *at);
            if at == BARRIER {
                if name.as_deref() == Some(barrier) {
                    return Ok(true);
                }
                continue;
            }
            *overflown |= bits & Q_OVERFLOW != 0;
            let words = mask::names(bits);
            let what = words.iter().map(|word| word.trim_start_matches("IN_").to_owned()).collect();
            let event = Event { at, what, name, cookie: event.cookie(), count: 1 };
            put(&mut self.events, event);
        }
    }

    /// What was received.
    pub(in crate::verify) fn account(&self) -> Account {
        Account { listener: Listener::Inotify, state: self.state.clone(), events: self.events.clone() }
    }
}
