//! A scratch directory, and ways to read what a source reports.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hotr_events::Op;
use hotr_user::pipeline::inotify_changes::{EventTranslator, ReceivedChange};
use hotr_user::source::inotify::{Coverage, InotifyEvent, InotifyOptions, InotifySource};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A directory of a test's own, removed at its end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hotr-inotify-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn source(root: &Path, options: InotifyOptions) -> InotifySource {
    let mut source = InotifySource::new(options).expect("an instance");
    source.add_root(root).expect("a root");
    source
}

/// All that is queued now. The kernel queues within the system call that makes a change: no waiting is needed for
/// changes that this thread has made.
pub(crate) fn drain(source: &mut InotifySource) -> Vec<InotifyEvent> {
    let mut events = Vec::new();
    while !source.drain(&mut events).expect("the queue can be read").emptied {}
    events
}

/// Drains whenever the descriptor is readable, until the events fulfil a condition.
pub(crate) fn drain_until(
    source: &mut InotifySource,
    done: impl Fn(&[InotifyEvent]) -> bool,
) -> Vec<InotifyEvent> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut events = Vec::new();
    while !done(&events) {
        assert!(Instant::now() < deadline, "still waiting; heard: {events:#?}");
        let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(&source.as_fd(), PollFlags::IN)], Some(&wait)).expect("poll");
        source.drain(&mut events).expect("the queue can be read");
    }
    events
}

pub(crate) fn heard(events: Vec<InotifyEvent>) -> Vec<ReceivedChange> {
    let (mut hearing, mut out) = (EventTranslator::new(), Vec::new());
    hearing.receive(events, &mut out);
    out.extend(hearing.finish());
    out
}

pub(crate) fn told(source: &mut InotifySource) -> Vec<(Op, PathBuf, Option<PathBuf>)> {
    let heard = heard(drain(source));
    heard.into_iter().map(|heard| (heard.change.op, heard.change.path, heard.change.old_path)).collect()
}

pub(crate) fn inode_clock() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

pub(crate) fn is_watched(source: &InotifySource, dir: &Path) -> bool {
    matches!(source.covers(dir), Coverage::Watched { .. })
}
