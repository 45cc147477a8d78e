//! What the event channels reported lately: shows what only an audit has found.
//!
//! In: changes as reported, and the start of each audit. Out: for a difference that an audit found, whether a channel
//! reported it. Names are kept, since the start of the audit before, as hashes with a key that nobody else knows: two names of
//! one hash cannot be made on purpose, and in a storm all the names would take many times the room.
//!
//! A file's change time is of the last tick of the clock before the change (`fs/inode.c`, `inode_set_ctime_current`), a
//! report is of a moment after it. So a report at or after the change time covers the change; within one tick the size
//! must be the same as well. Where the time of day was set, times prove nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hotr_common::uapi::INODE_TICK_NS;
use hotr_events::{Change, FileType, Op};

/// Names that are kept; more is a storm, after which an audit begins a new list.
pub(super) const MOST: usize = 100_000;

/// Whether a channel reported a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportedBy {
    /// One did.
    Yes,
    /// None did.
    No,
    /// Not known: the clock was set in the meantime, or there were too many changes to keep.
    Perhaps,
}

/// The last report of a name or of a file.
#[derive(Clone, Copy, Debug)]
struct Last {
    time_ns: i64,
    /// The size in bytes, or [`NO_SIZE`], and [`CAME`] and [`WENT`].
    about: u64,
}
const _: () = assert!(size_of::<Last>() == 16);

/// A directory got this name, which brought all it holds.
const CAME: u64 = 1 << 63;
/// The name disappeared, with all below it.
const WENT: u64 = 1 << 62;
/// The size was not reported, or is one that no file has.
const NO_SIZE: u64 = WENT - 1;

/// Reports between the starts of two audits.
#[derive(Debug, Default)]
struct Page {
    names: HashMap<u64, Last>,
    /// By hashes of device and inode: a file may have been reported under another name.
    files: HashMap<u64, Last>,
    is_full: bool,
    is_stepped: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecentReports {
    pages: [Page; 2],
    hashes: RandomState,
}

impl RecentReports {
    /// An audit begins: what was reported before the start of the last one is no longer needed.
    pub(super) fn turn_page(&mut self) {
        self.pages.swap(0, 1);
        self.pages[0] = Page::default();
    }

    /// Whether no more can be kept.
    pub(super) fn is_full(&self) -> bool {
        self.pages[0].is_full
    }

    /// The time of day was set.
    pub(super) fn step(&mut self) {
        self.pages.iter_mut().for_each(|page| page.is_stepped = true);
    }

    /// Remembers a report of a channel.
    pub(super) fn receive(&mut self, change: &Change) {
        let Self { pages: [page, _], hashes } = self;
        if page.names.len() >= MOST {
            page.is_full = true;
            return;
        }
        let is_dir = change.file_type == Some(FileType::Dir);
        let came = is_dir && matches!(change.op, Op::Create | Op::Rename);
        let last = Last::new(change.time, change.size, came, change.op == Op::Remove);
        keep(&mut page.names, name(hashes, &change.path), last);
        if let Some(old) = change.old_path.as_ref().filter(|_| change.op == Op::Rename) {
            keep(&mut page.names, name(hashes, old), Last::new(change.time, change.size, false, true));
        }
        if let Some(id) = change.id {
            keep(&mut page.files, hashes.hash_one((id.dev, id.ino)), last);
        }
    }

    /// Remembers a path that hotr itself has changed or removed, which the kernel programs do not report.
    pub(super) fn hear_own(&mut self, path: &Path, time: SystemTime) {
        let name = name(&self.hashes, path);
        keep(&mut self.pages[0].names, name, Last::new(time, None, false, true));
    }

    /// Whether a difference that an audit found was reported.
    pub(super) fn reported_by(&self, found: &Change) -> ReportedBy {
        let answers = self.pages.iter().flat_map(|page| page.answers(&self.hashes, found));
        let mut best =
            if self.pages.iter().any(|page| page.is_full) { ReportedBy::Perhaps } else { ReportedBy::No };
        for answer in answers {
            match answer {
                ReportedBy::Yes => return ReportedBy::Yes,
                ReportedBy::Perhaps => best = ReportedBy::Perhaps,
                ReportedBy::No => {}
            }
        }
        best
    }
}

impl Page {
    fn answers<'a>(
        &'a self,
        hashes: &'a RandomState,
        found: &'a Change,
    ) -> impl Iterator<Item = ReportedBy> + 'a {
        let is_removal = found.op == Op::Remove;
        let by_name =
            self.names.get(&name(hashes, &found.path)).filter(move |last| !is_removal || last.went());
        let by_file = found.id.and_then(|id| self.files.get(&hashes.hash_one((id.dev, id.ino))));
        let by_file = by_file.filter(move |_| !is_removal);
        let above = found.path.ancestors().skip(1);
        let above = above.filter_map(move |dir| self.names.get(&name(hashes, dir)));
        let above = above.filter(move |last| if is_removal { last.went() } else { last.came() });
        let own = by_name.into_iter().chain(by_file).map(|last| (last, found.size));
        own.chain(above.map(|last| (last, None))).map(move |(last, size)| {
            if is_removal {
                // It leaves no time behind; the name disappeared since the audit before.
                ReportedBy::Yes
            } else if self.is_stepped {
                ReportedBy::Perhaps
            } else {
                last.covers(nanos(found.time), size)
            }
        })
    }
}

impl Last {
    fn new(time: SystemTime, size: Option<u64>, came: bool, went: bool) -> Self {
        let size = size.unwrap_or(NO_SIZE).min(NO_SIZE);
        Self { time_ns: nanos(time), about: size | if came { CAME } else { 0 } | if went { WENT } else { 0 } }
    }

    fn came(self) -> bool {
        self.about & CAME != 0
    }

    fn went(self) -> bool {
        self.about & WENT != 0
    }

    fn size(self) -> Option<u64> {
        Some(self.about & NO_SIZE).filter(|size| *size != NO_SIZE)
    }

    fn covers(self, ctime_ns: i64, size: Option<u64>) -> ReportedBy {
        let is_same_size = match (self.size(), size) {
            (Some(told), Some(found)) => told == found,
            _ => true,
        };
        let is_later = self.time_ns >= ctime_ns.saturating_add(INODE_TICK_NS);
        if is_later || self.time_ns >= ctime_ns && is_same_size { ReportedBy::Yes } else { ReportedBy::No }
    }
}

fn name(hashes: &RandomState, path: &Path) -> u64 {
    hashes.hash_one(path.as_os_str().as_bytes())
}

/// Keeps the later of two reports, and what either says of the name.
fn keep(all: &mut HashMap<u64, Last>, key: u64, last: Last) {
    let known = all.entry(key).or_insert(last);
    let flags = (known.about | last.about) & (CAME | WENT);
    if last.time_ns >= known.time_ns {
        *known = last;
    }
    known.about |= flags;
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
