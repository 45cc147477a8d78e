//! Watches on what a watched tree leads to: places outside it, and further hard links of its files.
//!
//! In: [`LinkPoints`]. Out: what may have changed. An inotify instance of its own watches the directories outside that hold a
//! point of a way, and the hard-linked files themselves, whose inode is notified whatever name was used. What notifies
//! nobody is found by a look every few seconds, as long as there is something outside.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::LinkPoints;
use hotr_events::Channel;

/// Between looks at what is outside.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was received.
#[derive(Debug)]
pub(in crate::watch) struct OutsideChanges {
    /// By which channel.
    pub(in crate::watch) by: Channel,
    /// Something on a way, or behind one, may have changed.
    pub(in crate::watch) behind: bool,
    /// These hard-linked files may have changed.
    pub(in crate::watch) files: Vec<PathBuf>,
}

/// See the module.
#[derive(Debug)]
pub(in crate::watch) struct Outside {
    ways: LinkPoints,
    inotify: Option<AsyncFd<OwnedFd>>,
    dirs: HashMap<i32, PathBuf>,
    files: HashMap<i32, PathBuf>,
    next: Instant,
}

impl Outside {
    /// Listens to nothing yet.
    pub(in crate::watch) fn new() -> Self {
        let (dirs, files) = (HashMap::new(), HashMap::new());
        Self { ways: LinkPoints::default(), inotify: None, dirs, files, next: Instant::now() }
    }

    /// Whether a change of a path in the tree concerns what is behind a link.
    pub(in crate::watch) fn concerns(&self, path: &std::path::Path) -> bool {
        self.ways.points.contains(path)
            || !self.ways.followed.is_empty()
                && path.ancestors().any(|above| self.ways.followed.contains(above))
    }

    /// Hard-linked files that were not listened to.
    pub(in crate::watch) fn new_hard(&self, ways: &LinkPoints) -> impl Iterator<Item = PathBuf> {
        let is_new = |(path, ino): &(&PathBuf, &u64)| self.ways.hard.get(*path) != Some(*ino);
        ways.hard.iter().filter(is_new).map(|(path, _)| path.clone()).collect::<Vec<_>>().into_iter()
    }

    /// Listens to these. Returns a sentence if that is not possible.
    pub(in crate::watch) fn listen(&mut self, ways: LinkPoints) -> Option<String> {
        let same = ways.outside == self.ways.outside && ways.hard == self.ways.hard;
        self.ways = ways;
        self.next = Instant::now() + INTERVAL;
        if same && !self.dirs.is_empty() {
            return None;
        }
        self.dirs.clear();
        self.files.clear();
        self.inotify = None;
        if self.ways.outside.is_empty() && self.ways.hard.is_empty() {
            return None;
        }
        let why = self.watch().err()?;
        Some(format!(
            "watch what symbolic and hard links lead to: {why}; checked every {} s instead, raise \
             fs.inotify.max_user_watches and max_user_instances",
            INTERVAL.as_secs()
        ))
    }

    fn watch(&mut self) -> std::io::Result<()> {
        let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let content = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let mut result = Ok(());
        for dir in &self.ways.outside {
            match add_watch(&fd, dir, content | names | WatchFlags::ONLYDIR) {
                Ok(wd) => drop(self.dirs.insert(wd, dir.clone())),
                // It is not there, or not a directory: the looks find it when it is.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(errno) => result = Err(errno.into()),
            }
        }
        for file in self.ways.hard.keys() {
            if let Ok(wd) = add_watch(&fd, file, content | WatchFlags::DONT_FOLLOW) {
                self.files.insert(wd, file.clone());
            }
        }
        // SAFETY: the descriptor is moved into the `AsyncFd`, which keeps it open.
        self.inotify = Some(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? });
        result
    }

    /// What may have changed; may be dropped and called again.
    pub(in crate::watch) async fn changed(&mut self) -> OutsideChanges {
        let is_outside = !self.ways.outside.is_empty();
        loop {
            let Some(inotify) = &self.inotify else {
                if !is_outside {
                    return std::future::pending().await;
                }
                tokio::time::sleep_until(self.next).await;
                self.next = Instant::now() + INTERVAL;
                return OutsideChanges { by: Channel::Poll, behind: true, files: Vec::new() };
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.next), if is_outside => {
                    self.next = Instant::now() + INTERVAL;
                    return OutsideChanges { by: Channel::Poll, behind: true, files: Vec::new() };
                }
                ready = inotify.readable() => {
                    let heard = self.read();
                    if let Ok(mut guard) = ready {
                        guard.clear_ready();
                    }
                    if heard.behind || !heard.files.is_empty() {
                        return heard;
                    }
                }
            }
        }
    }

    fn read(&self) -> OutsideChanges {
        let mut heard = OutsideChanges { by: Channel::Inotify, behind: false, files: Vec::new() };
        let Some(inotify) = &self.inotify else { return heard };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify.get_ref(), &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                heard.behind = true;
                heard.files.extend(self.files.values().cloned());
            } else if let Some(file) = self.files.get(&event.wd()) {
                if !heard.files.contains(file) {
                    heard.files.push(file.clone());
                }
            } else if let Some(dir) = self.dirs.get(&event.wd()) {
                use std::os::unix::ffi::OsStrExt;
                let name = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()));
                let is_point = name.is_none_or(|name| self.ways.points.contains(&dir.join(name)));
                heard.behind |= is_point || self.ways.followed.contains(dir);
            }
        }
        heard
    }
}
