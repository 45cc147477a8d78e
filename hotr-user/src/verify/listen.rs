//! The listeners: each starts, is given the same barriers, and tells what it received between two of them.

pub(super) mod delivery;
pub(super) mod fanotify;
pub(super) mod inotify;
pub(super) mod kernel;
pub(super) mod poll;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::evidence::Event;
use crate::ending;

/// A barrier that is not received by then never will be.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Appends an event, or counts it where an equal one stands. Events of a rename are never equal: they have cookies.
pub(super) fn put(events: &mut Vec<Event>, event: Event) {
    if event.cookie != 0 {
        events.push(event);
        return;
    }
    // Few kinds of events repeat, and those that do are old acquaintances: the search is short.
    let known = events.iter_mut().take(64).find(|known| {
        (known.at, &known.what, &known.name, known.cookie) == (event.at, &event.what, &event.name, 0)
    });
    match known {
        Some(known) => known.count += event.count,
        None => events.push(event),
    }
}

/// Waits until a descriptor is readable; false when the time is over or the run is to end.
fn wait(fd: BorrowedFd<'_>, over: Instant) -> bool {
    loop {
        let left = over.saturating_duration_since(Instant::now());
        if left.is_zero() || ending::is_asked() {
            return false;
        }
        let fd = fd.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let timeout = rustix::event::Timespec::try_from(left.min(Duration::from_millis(200))).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(1..) => return true,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
