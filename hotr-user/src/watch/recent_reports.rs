//! What the event channels reported lately: shows what only an audit has found.
//!
//! In: changes as reported, and the start of each audit. Out: for a difference that an audit found, whether a channel
//! reported it. Nothing is decided by a hash: names and inodes are kept as they are, since the start of the audit
//! before.
//!
//! A file's change time is of the last tick of the clock before the change (`fs/inode.c`, `inode_set_ctime_current`), a
//! report is of a moment after it. So a report at or after the change time covers the change; within one tick the size
//! must be the same as well. Where the time of day was set, times prove nothing.

use hotr_common::uapi::INODE_TICK_NS;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

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
    size: Option<u64>,
    /// A directory got this name, which brought all it holds.
    came: bool,
    /// The name disappeared, with all below it.
    went: bool,
}

/// Reports between the starts of two audits.
#[derive(Debug, Default)]
struct Page {
    names: HashMap<PathBuf, Last>,
    /// (device, inode): a file may have been reported under another name.
    files: HashMap<(u64, u64), Last>,
    is_full: bool,
    is_stepped: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecentReports {
    pages: [Page; 2],
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
        let page = &mut self.pages[0];
        if page.names.len() >= MOST {
            page.is_full = true;
            return;
        }
        let is_dir = change.file_type == Some(FileType::Dir);
        let last = Last {
            time_ns: nanos(change.time),
            size: change.size,
            came: is_dir && matches!(change.op, Op::Create | Op::Rename),
            went: change.op == Op::Remove,
        };
        keep(page.names.entry(change.path.clone()).or_insert(last), last);
        if let Some(old) = change.old_path.clone().filter(|_| change.op == Op::Rename) {
            let last = Last { went: true, came: false, ..last };
            keep(page.names.entry(old).or_insert(last), last);
        }
        if let Some(id) = change.id {
            keep(page.files.entry((id.dev, id.ino)).or_insert(last), last);
        }
    }

    /// Remembers a path that hotr itself has changed or removed, which the kernel programs do not report.
    pub(super) fn hear_own(&mut self, path: PathBuf, time: SystemTime) {
        let last = Last { time_ns: nanos(time), size: None, came: false, went: true };
        keep(self.pages[0].names.entry(path).or_insert(last), last);
    }

    /// Whether a difference that an audit found was reported.
    pub(super) fn reported_by(&self, found: &Change) -> ReportedBy {
        let answers = self.pages.iter().flat_map(|page| page.answers(found));
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
    fn answers<'a>(&'a self, found: &'a Change) -> impl Iterator<Item = ReportedBy> + 'a {
        let is_removal = found.op == Op::Remove;
        let by_name = self.names.get(&found.path).filter(move |last| !is_removal || last.went);
        let by_file = found.id.and_then(|id| self.files.get(&(id.dev, id.ino))).filter(move |_| !is_removal);
        let above = found.path.ancestors().skip(1).filter_map(move |dir| self.names.get(dir));
        let above = above.filter(move |last| if is_removal { last.went } else { last.came });
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
    fn covers(&self, ctime_ns: i64, size: Option<u64>) -> ReportedBy {
        let is_same_size = match (self.size, size) {
            (Some(told), Some(found)) => told == found,
            _ => true,
        };
        let is_later = self.time_ns >= ctime_ns.saturating_add(INODE_TICK_NS);
        if is_later || self.time_ns >= ctime_ns && is_same_size { ReportedBy::Yes } else { ReportedBy::No }
    }
}

fn keep(known: &mut Last, last: Last) {
    let (came, went) = (known.came || last.came, known.went || last.went);
    if last.time_ns >= known.time_ns {
        *known = last;
    }
    (known.came, known.went) = (came, went);
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
