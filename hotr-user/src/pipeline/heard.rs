//! What inotify heard, in the words of the pipeline: one event a change, and one change for the two events of a
//! rename.
//!
//! In: [`InotifyEvent`]s in the order of the queue. Out: [`Heard`] changes. inotify knows no writer, no byte count
//! and no kernel-level way; type, inode and size are asked of the file now, so a file that has gone has none.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::event::{Change, Channel, FileId, FileType, Op};
use crate::source::device;
use crate::source::inotify::{InotifyEvent, mask};

/// How long the first half of a rename waits for the second, once the queue has been seen empty. The kernel queues
/// both in one system call (`fs/namei.c`, `vfs_rename` → `fsnotify_move`), so only a reader that is in between them
/// sees one alone; this is the time such a system call may be held up by the scheduler.
pub const HOLD_NS: u64 = 20_000_000;

/// A change as inotify told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The change; `seen_by` is inotify alone.
    pub change: Change,
    /// `CLOCK_MONOTONIC` when its (last) event was read.
    pub read_mono_ns: u64,
    /// Found in a new directory; no event told of it.
    pub synthetic: bool,
}

/// Translates events; holds the halves of renames.
#[derive(Debug, Default)]
pub struct Hearing {
    /// `IN_MOVED_FROM` without its `IN_MOVED_TO` so far, oldest first.
    held: Vec<InotifyEvent>,
}

impl Hearing {
    /// Holding nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Translates what one drain gave.
    pub fn hear(&mut self, events: impl IntoIterator<Item = InotifyEvent>, out: &mut Vec<Heard>) {
        let clocks = Clocks::now();
        for event in events {
            if event.path.as_os_str().is_empty() {
                continue;
            }
            let is_told_by_parent = !event.has_name && !event.of_root;
            if is_told_by_parent {
                continue;
            }
            if event.is(mask::MOVED_FROM) {
                self.held.push(event);
            } else if event.is(mask::MOVED_TO) {
                let from = self.held.iter().position(|held| held.cookie == event.cookie);
                let from = from.map(|at| self.held.remove(at));
                out.push(arrived(from, event, &clocks));
            } else {
                out.extend(translate(event, &clocks));
            }
        }
    }

    /// Halves of renames that are whole after all: the name moved out of the watched trees. Call it after a drain
    /// that saw the queue empty, with a monotonic time taken before that drain.
    pub fn due(&mut self, now_ns: u64, out: &mut Vec<Heard>) {
        let clocks = Clocks::now();
        let is_whole = |event: &mut InotifyEvent| event.read_mono_ns.saturating_add(HOLD_NS) <= now_ns;
        out.extend(self.held.extract_if(.., is_whole).map(|event| left(event, &clocks)));
    }

    /// When [`Self::due`] will have something to tell, in `CLOCK_MONOTONIC`; drain before calling it.
    pub fn next_deadline(&self) -> Option<u64> {
        self.held.first().map(|event| event.read_mono_ns.saturating_add(HOLD_NS))
    }

    /// All held halves, at the end of a run.
    pub fn finish(&mut self) -> Vec<Heard> {
        let clocks = Clocks::now();
        std::mem::take(&mut self.held).into_iter().map(|event| left(event, &clocks)).collect()
    }
}

/// The same moment on both clocks.
struct Clocks {
    mono_ns: u64,
    real: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        Self { mono_ns: crate::source::mono_ns(), real: SystemTime::now() }
    }

    fn real(&self, mono_ns: u64) -> SystemTime {
        let ago = Duration::from_nanos(self.mono_ns.saturating_sub(mono_ns));
        self.real.checked_sub(ago).unwrap_or(self.real)
    }
}

fn translate(event: InotifyEvent, clocks: &Clocks) -> Option<Heard> {
    let op = if event.is(mask::CREATE) {
        Op::Create
    } else if event.is(mask::MODIFY) {
        Op::Write
    } else if event.is(mask::ATTRIB) {
        Op::Attrib
    } else if event.is(mask::DELETE | mask::DELETE_SELF) {
        Op::Remove
    } else {
        return None;
    };
    Some(heard(op, event, clocks))
}

fn arrived(from: Option<InotifyEvent>, event: InotifyEvent, clocks: &Clocks) -> Heard {
    let mut heard = heard(Op::Rename, event, clocks);
    match from {
        Some(from) => heard.change.old_path = Some(from.path),
        None => heard.change.detail.push("moved-in".into()),
    }
    heard
}

fn left(event: InotifyEvent, clocks: &Clocks) -> Heard {
    let mut heard = heard(Op::Remove, event, clocks);
    heard.change.detail.push("moved-out".into());
    heard
}

fn heard(op: Op, event: InotifyEvent, clocks: &Clocks) -> Heard {
    let is_dir = event.is(mask::ISDIR);
    // A removed name may lead to another file by now, and a directory does not turn into a file.
    let stat = if op == Op::Remove { None } else { stat(&event.path) };
    let stat = stat.filter(|stat| is_dir == (file_type(stat) == Some(FileType::Dir)));
    let file_type = stat.as_ref().and_then(file_type).or(is_dir.then_some(FileType::Dir));
    let change = Change {
        time: clocks.real(event.read_mono_ns),
        op,
        detail: Vec::new(),
        path: event.path,
        old_path: None,
        file_type,
        id: stat.as_ref().map(|stat| FileId { dev: device(stat), ino: stat.stx_ino, gen_: 0 }),
        size: stat.filter(|_| file_type == Some(FileType::File)).map(|stat| stat.stx_size),
        writes: u64::from(op == Op::Write),
        bytes: 0,
        layer: None,
        actor: None,
        seen_by: vec![Channel::Inotify],
        missed_by: Vec::new(),
    };
    Heard { change, read_mono_ns: event.read_mono_ns, synthetic: event.synthetic }
}

fn stat(path: &Path) -> Option<Statx> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE;
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted).ok()
}

fn file_type(stat: &Statx) -> Option<FileType> {
    FileType::from_mode(u32::from(stat.stx_mode))
}
