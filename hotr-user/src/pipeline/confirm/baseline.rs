//! The states of all files before the first change, read by a thread while events are already heard.
//!
//! In: trees and the moment since which every change is told. Out: states, for [`super::Confirmer`]. A file that
//! was changed at or after that moment is left out: its content may be the new one, and its change is yet to come.
//! The start waits a little for the thread; from then on it runs at idle priority.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{ConfirmOptions, State};

/// States in one message, and messages that wait to be taken: few, for they are in memory twice.
const CHUNK: usize = 64;
const QUEUE: usize = 8;

/// What the thread says.
#[derive(Debug)]
pub enum Message {
    /// States.
    States(Vec<(PathBuf, State)>),
    /// The end; whether every path of the trees has been told.
    End {
        /// Nothing was left out: not for the bound, not for a change, not for an error.
        complete: bool,
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
    /// Starts to read the trees. `since_ns`: every change from this inode time on (nanoseconds since 1970) is told by
    /// a channel. `wanted` says which paths matter; the second argument tells whether it is a directory.
    pub fn start(
        roots: Vec<PathBuf>,
        since_ns: i64,
        options: ConfirmOptions,
        wanted: impl FnMut(&Path, bool) -> bool + Send + 'static,
    ) -> Self {
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
            wanted: Box::new(wanted),
        };
        std::thread::spawn(move || {
            for root in roots {
                if !reader.look(root) {
                    return;
                }
            }
            reader.flush();
            let _ = reader.sender.blocking_send(Message::End { complete: reader.complete });
        });
        Self { messages, idle, stop }
    }

    /// From now on the thread runs at idle priority.
    pub fn relax(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// The next message; may be dropped and called again.
    pub async fn next(&mut self) -> Message {
        // A thread that ended without a word has not told all.
        self.messages.recv().await.unwrap_or(Message::End { complete: false })
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

/// Looks at one path.
type Look = fn(&Path, Option<&State>, ConfirmOptions, &AtomicBool) -> State;

/// Says which paths matter; the second argument tells whether it is a directory.
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
    wanted: Box<Wanted>,
}

impl Reader {
    /// Reads a tree; `false` when nobody wants it any more.
    fn look(&mut self, root: PathBuf) -> bool {
        // The named path itself may be a link; below it, links are not followed.
        let mut pending = Vec::new();
        if root.is_dir() {
            pending.push(root)
        } else {
            return self.tell(root, State::look_named);
        }
        while let Some(dir) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else {
                self.complete = false;
                continue;
            };
            // A name may have gone before it could be listed.
            self.complete &= changed_ns(&dir).is_some_and(|changed| changed < self.since_ns);
            for entry in entries {
                let Ok((entry, kind)) = entry.and_then(|entry| Ok((entry.file_type()?, entry))) else {
                    self.complete = false;
                    continue;
                };
                let (is_dir, path) = (entry.is_dir(), kind.path());
                if !(self.wanted)(&path, is_dir) {
                    continue;
                }
                if is_dir {
                    pending.push(path);
                } else if !self.tell(path, State::look) {
                    return false;
                }
            }
        }
        true
    }

    fn tell(&mut self, path: PathBuf, look: Look) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        if !self.is_idle && self.idle.load(Ordering::Relaxed) {
            self.is_idle = true;
            lower_priority();
        }
        if self.told >= self.options.entries.get() {
            self.complete = false;
            return true;
        }
        let state = look(&path, None, self.options, &self.stop);
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let is_old = match &state {
            State::File(file) => file.ctime_ns() < self.since_ns,
            State::Link(_) => changed_ns(&path).is_some_and(|changed| changed < self.since_ns),
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

/// Change time of the name itself.
fn changed_ns(path: &Path) -> Option<i64> {
    let stat = std::fs::symlink_metadata(path).ok()?;
    Some(stat.ctime().saturating_mul(1_000_000_000).saturating_add(stat.ctime_nsec()))
}

/// This thread alone: runs when nothing else wants to, on processor and disk.
fn lower_priority() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: the parameter lives as long as the call; 0 names the calling thread in both.
    unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE);
    }
}
