//! What inotify received, in the words of the pipeline: one event per change, and one change for the two events of a
//! rename.
//!
//! In: [`InotifyEvent`]s in the order of the queue. Out: [`ReceivedChange`] changes. inotify knows no writer, no byte count and
//! no kernel-level way; type, inode and size are asked of the file now, so a file that no longer exists has none.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::ending;
use crate::source::difference::nanos;
use crate::source::inotify::{InotifyEvent, mask};
use crate::source::{Clock, device};
use hotr_events::{Change, Channel, FileId, FileType, Op};

/// How long the first half of a rename waits for the second, once the queue has been seen empty. The kernel queues both
/// in one system call (`fs/namei.c`, `vfs_rename` → `fsnotify_move`), so only a reader that reads between them sees
/// just one; this is the time such a system call may be held up by the scheduler.
pub const HOLD_NS: u64 = 20_000_000;

/// A change as inotify reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedChange {
    /// The change; `seen_by` is only inotify.
    pub change: Change,
    /// `CLOCK_MONOTONIC` when its (last) event was read.
    pub read_mono_ns: u64,
    /// Found in a new directory; no event reported it.
    pub synthetic: bool,
    /// The file's change time when it was read for this, nanoseconds since 1970.
    pub ctime_ns: Option<i64>,
}

/// Translates events; holds the halves of renames.
#[derive(Debug, Default)]
pub struct EventTranslator {
    /// `IN_MOVED_FROM` without its `IN_MOVED_TO` so far, oldest first.
    held: Vec<InotifyEvent>,
}

impl EventTranslator {
    /// Holding nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Translates what one drain gave.
    pub fn receive(&mut self, events: impl IntoIterator<Item = InotifyEvent>, out: &mut Vec<ReceivedChange>) {
        let clock = Clock::now();
        let mut events = events.into_iter();
        while let Some(event) = events.next() {
            if ending::is_over() {
                ending::cut(1 + events.count() as u64);
                break;
            }
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
                out.push(arrived(from, event, &clock));
            } else {
                out.extend(translate(event, &clock));
            }
        }
    }

    /// Halves of renames that are whole after all: the name moved out of the watched trees. Call it after a drain
    /// that saw the queue empty, with a monotonic time taken before that drain.
    pub fn due(&mut self, now_ns: u64, out: &mut Vec<ReceivedChange>) {
        let clock = Clock::now();
        let is_whole = |event: &mut InotifyEvent| event.read_mono_ns.saturating_add(HOLD_NS) <= now_ns;
        out.extend(self.held.extract_if(.., is_whole).map(|event| left(event, &clock)));
    }

    /// When [`Self::due`] will have something to report, in `CLOCK_MONOTONIC`; drain before calling it.
    pub fn next_deadline(&self) -> Option<u64> {
        self.held.first().map(|event| event.read_mono_ns.saturating_add(HOLD_NS))
    }

    /// All held halves, at the end of a run.
    pub fn finish(&mut self) -> Vec<ReceivedChange> {
        let clock = Clock::now();
        std::mem::take(&mut self.held).into_iter().map(|event| left(event, &clock)).collect()
    }
}

fn translate(event: InotifyEvent, clock: &Clock) -> Option<ReceivedChange> {
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
    Some(received_change(op, event, clock))
}

fn arrived(from: Option<InotifyEvent>, event: InotifyEvent, clock: &Clock) -> ReceivedChange {
    let mut heard = received_change(Op::Rename, event, clock);
    match from {
        Some(from) => heard.change.old_path = Some(from.path),
        None => heard.change.detail.push("moved-in".into()),
    }
    heard
}

fn left(event: InotifyEvent, clock: &Clock) -> ReceivedChange {
    let mut heard = received_change(Op::Remove, event, clock);
    heard.change.detail.push("moved-out".into());
    heard
}

fn received_change(op: Op, event: InotifyEvent, clock: &Clock) -> ReceivedChange {
    // Only a directory reports its own change.
    let is_dir = event.is(mask::ISDIR | mask::DELETE_SELF);
    // A removed name may lead to another file by now, and a directory does not turn into a file.
    let stat = if op == Op::Remove { None } else { stat(&event.path) };
    let stat = stat.filter(|stat| is_dir == (file_type(stat) == Some(FileType::Dir)));
    let ctime_ns = stat.as_ref().map(|stat| nanos(stat.stx_ctime));
    let file_type = stat.as_ref().and_then(file_type).or(is_dir.then_some(FileType::Dir));
    let change = Change {
        file_type,
        id: stat.as_ref().map(|stat| FileId { dev: device(stat), ino: stat.stx_ino, gen_: 0 }),
        size: stat.filter(|_| file_type == Some(FileType::File)).map(|stat| stat.stx_size),
        seen_by: vec![Channel::Inotify],
        // An event stands for one change or more, so the number of writes is not known.
        ..Change::new(op, event.path, clock.real(event.read_mono_ns))
    };
    ReceivedChange { change, read_mono_ns: event.read_mono_ns, synthetic: event.synthetic, ctime_ns }
}

fn stat(path: &Path) -> Option<Statx> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::CTIME;
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted).ok()
}

fn file_type(stat: &Statx) -> Option<FileType> {
    FileType::from_mode(u32::from(stat.stx_mode))
}
