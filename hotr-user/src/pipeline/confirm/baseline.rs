//! The states of all files before the first change, read by a thread while events are already received.
//!
//! In: trees and the moment since which every change is reported. Out: states, for [`super::Confirmer`]. A file that
//! was changed at or after that moment is left out: its content may be the new one, and its change is yet to come. The
//! start waits a little for the thread; from then on it runs at idle priority.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Stat, statat};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{ConfirmOptions, State};
use crate::beneath::Dir;
use crate::sched;

/// States in one message, and messages that wait to be taken: few, because they are in memory twice.
const CHUNK: usize = 64;
const QUEUE: usize = 8;
/// Links that are reported.
const MOST_LINKS: usize = 4096;

/// What the thread says.
#[derive(Debug)]
pub enum Message {
    /// States.
    States(Vec<(PathBuf, State)>),
    /// The end; whether every path of the trees has been reported.
    End {
        /// Nothing was left out: not for the bound, not for a change, not for an error.
        complete: bool,
        /// Symbolic links by which wanted files may be reached.
        links: Vec<PathBuf>,
    },
}

/// A running baseline.
#[derive(Debug)]
pub struct Baseline {
    messages: Receiver<Message>,
    idle: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Baseline {
    /// Starts to read the trees. `since_ns`: every change from this inode time on (nanoseconds since 1970) is reported
    /// by a channel. `wanted` says which paths matter; the second argument is whether it is a directory.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        roots: Vec<PathBuf>,
        since_ns: i64,
        options: ConfirmOptions,
        wanted: impl FnMut(&Path, bool) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, messages) = channel(QUEUE);
        let (idle, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut reader = Reader {
            sender,
            idle: Arc::clone(&idle),
            stop: Arc::clone(&stop),
            is_idle: false,
            options,
            since_ns,
            chunk: Vec::new(),
            told: 0,
            complete: true,
            links: Vec::new(),
            wanted: Box::new(wanted),
        };
        std::thread::Builder::new().name("hotr-baseline".to_owned()).spawn(move || {
            for root in roots {
                if !reader.look(root) {
                    return;
                }
            }
            reader.flush();
            let _ =
                reader.sender.blocking_send(Message::End { complete: reader.complete, links: reader.links });
        })?;
        Ok(Self { messages, idle, stop })
    }

    /// From now on the thread runs at idle priority.
    pub fn relax(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// The next message; may be dropped and called again.
    pub async fn next(&mut self) -> Message {
        // A thread that ended silently has not reported all.
        self.messages.recv().await.unwrap_or(Message::End { complete: false, links: Vec::new() })
    }

    /// The next message, if there is one already.
    pub fn next_now(&mut self) -> Option<Message> {
        self.messages.try_recv().ok()
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Says which paths matter; the second argument is whether it is a directory.
type Wanted = dyn FnMut(&Path, bool) -> bool + Send;

struct Reader {
    sender: Sender<Message>,
    idle: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    is_idle: bool,
    options: ConfirmOptions,
    since_ns: i64,
    chunk: Vec<(PathBuf, State)>,
    told: usize,
    complete: bool,
    links: Vec<PathBuf>,
    wanted: Box<Wanted>,
}

impl Reader {
    /// Reads a tree; `false` when nobody needs it any longer.
    fn look(&mut self, root: PathBuf) -> bool {
        // The named path itself may be a link; below it, links are not followed.
        if !root.is_dir() {
            return self.send(root, None);
        }
        let Ok(top) = Dir::open(&root) else {
            self.complete = false;
            return true;
        };
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let listed = top.dir(&below).and_then(|dir| {
                // A name may have gone before it could be listed.
                self.complete &= changed_ns(&dir.stat()?) < self.since_ns;
                dir.names()
            });
            let Ok(mut names) = listed else {
                self.complete = false;
                continue;
            };
            let dir = root.join(&below);
            while let Some(name) = names.next() {
                let Ok((name, kind)) = name else {
                    self.complete = false;
                    continue;
                };
                let Ok(fd) = names.dir() else { break };
                let (is_dir, path) = (kind == FileType::Directory, dir.join(&name));
                let is_wanted = (self.wanted)(&path, is_dir);
                if kind == FileType::Symlink
                    && self.links.len() <= MOST_LINKS
                    && (is_wanted || (self.wanted)(&path, true))
                {
                    self.links.push(path.clone());
                }
                if !is_wanted {
                    continue;
                }
                if is_dir {
                    pending.push(below.join(name));
                } else if !self.send(path, Some((fd, &name))) {
                    return false;
                }
            }
        }
        true
    }

    /// `at`: the directory that holds it, and its name there; none for a path that was named.
    fn send(&mut self, path: PathBuf, at: Option<(BorrowedFd<'_>, &OsStr)>) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        if !self.is_idle && self.idle.load(Ordering::Relaxed) {
            self.is_idle = true;
            sched::run_idle();
        }
        if self.told >= self.options.entries.get() {
            self.complete = false;
            return true;
        }
        let state = match at {
            Some((dir, name)) => State::look_in(dir, name, None, self.options, &self.stop),
            None => State::look_named(&path, None, self.options, &self.stop),
        };
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let is_old = match &state {
            State::File(file) => file.ctime_ns() < self.since_ns,
            State::Link(_) => at.is_some_and(|(dir, name)| {
                statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| changed_ns(&stat) < self.since_ns)
            }),
            State::Unknown(_) => false,
            _ => return true,
        };
        if !is_old {
            self.complete = false;
            return true;
        }
        self.told += 1;
        self.chunk.push((path, state));
        self.chunk.len() < CHUNK || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.sender.blocking_send(Message::States(std::mem::take(&mut self.chunk))).is_ok()
    }
}

/// Change time in nanoseconds since 1970.
fn changed_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
