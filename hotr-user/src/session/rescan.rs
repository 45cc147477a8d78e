//! After records were lost: finds what they would have reported, by the files' change times.
//!
//! In: what was reported since the programs last were known to have lost nothing. Out: every file that changed
//! since then and before the loss was noticed, and was not reported after its change time: what came later has its record. A
//! removal leaves no trace but its directory's times.

use hotr_common::uapi::INODE_TICK_NS;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::copyup::{self, Difference};
use crate::pipeline::correlate;
use crate::pipeline::deferred_map::DeferredMap;
use crate::source::mono_ns;
use crate::source::since::{Changed, Search, SearchOptions};
use hotr_events::Cause;
use hotr_events::LossReason;
use hotr_events::{Change, Channel, FileId, FileType, Missed, Op};

/// Renamed directories that are remembered: each file that is found is looked for under its former paths.
const MOVES: usize = 256;

/// Names of one [`Page`] at most: what a hash table of 2^18 places takes, 13 MB with that of the files. With more it is no longer
/// known what was reported.
const REPORTS: usize = 7 << 15;
/// Names after which what was lost is looked for although the storm has not ended.
const MANY: usize = REPORTS / 2;
/// How long after a change it may be reported, as records are read: what inotify alone received waits for its record.
const LATE_NS: u64 = correlate::HOLD_NS + correlate::HELD_UP_NS;

/// A report of a file.
#[derive(Clone, Copy, Debug)]
struct Reported {
    time_ns: i64,
    /// The file's size then, or [`NO_SIZE`]: an option would take twice the room.
    size: u64,
}

/// The size was not reported, or is one that no file has.
const NO_SIZE: u64 = u64::MAX;

impl Reported {
    fn new(change: &Change) -> Self {
        Self { time_ns: nanos(change.time), size: change.size.unwrap_or(NO_SIZE) }
    }

    fn size(self) -> Option<u64> {
        Some(self.size).filter(|size| *size != NO_SIZE)
    }
}

/// What was reported in a time.
#[derive(Default)]
struct Page {
    /// A file's last report: by a hash of its path, which is shorter, and by one of device and inode for its other names. The
    /// latter alone would not do: on btrfs and overlay the kernel's device is another one than stat's.
    by_path: DeferredMap<u64, Reported>,
    by_id: DeferredMap<u64, Reported>,
    /// Former and new path of directories that were renamed, in order.
    moves: Vec<(PathBuf, PathBuf)>,
    /// There was no room for more.
    is_cut: bool,
}

impl Page {
    fn report(&mut self, change: &Change, hashes: &RandomState) {
        let report = Reported::new(change);
        let hash = path_hash(hashes, &change.path);
        let is_full = self.by_path.len() >= REPORTS || self.by_id.len() >= REPORTS;
        if let Some(id) = change.id {
            self.is_cut |= !keep_last(&mut self.by_id, hashes.hash_one((id.dev, id.ino)), report, is_full);
        }
        self.is_cut |= !keep_last(&mut self.by_path, hash, report, is_full);
        if let (Op::Rename, Some(FileType::Dir), Some(old)) = (change.op, change.file_type, &change.old_path)
            && self.moves.len() < MOVES
        {
            self.moves.push((old.clone(), change.path.clone()));
        }
    }

    fn clear(&mut self) {
        self.by_path.clear();
        self.by_id.clear();
        self.moves.clear();
        self.is_cut = false;
    }
}

/// Records that were lost.
#[derive(Clone, Copy)]
struct Lost {
    /// The reason of the first `loss` line.
    reason: LossReason,
    /// When the last ones were noticed, on both clocks.
    until_ns: i64,
    until_mono_ns: u64,
}

/// What was reported since the last moment without loss.
pub(super) struct ReportedSince {
    since_ns: i64,
    /// With a key that nobody else knows: two paths of one hash cannot be made on purpose.
    hashes: RandomState,
    page: Page,
    /// What was reported before, oldest first. The last of them is kept also when nothing was lost: a change may carry a time
    /// that is a tick before it was made.
    before: VecDeque<Page>,
    /// What was lost since [`Self::since_ns`].
    lost: Option<Lost>,
    /// What was lost after so much was reported, or a search began, that it is looked for by another search.
    later: Option<Lost>,
    /// Since when losses are [`Self::later`] ones.
    is_closed: bool,
}

impl ReportedSince {
    pub(super) fn new() -> Self {
        Self {
            since_ns: nanos(SystemTime::now()),
            hashes: RandomState::new(),
            page: Page::default(),
            before: VecDeque::new(),
            lost: None,
            later: None,
            is_closed: false,
        }
    }

    /// Remembers a report.
    pub(super) fn report(&mut self, change: &Change) {
        if self.lost.is_some() && !self.is_closed && self.page.by_path.len() >= MANY {
            self.close();
        }
        self.page.report(change, &self.hashes);
    }

    /// From now on losses are looked for by another search.
    fn close(&mut self) {
        self.is_closed = true;
        self.before.push_back(std::mem::take(&mut self.page));
    }

    fn hash(&self, path: &Path) -> u64 {
        path_hash(&self.hashes, path)
    }

    /// Does the work on what was reported that can wait; see [`DeferredMap::put_away`].
    pub(super) fn put_away(&mut self) {
        self.page.by_path.put_away();
        self.page.by_id.put_away();
    }

    /// The reports of a file: by its inode, by its path, and by those that it had before a directory above was renamed.
    fn reports(&self, found: &Changed) -> Vec<Reported> {
        let pages: Vec<&Page> = [&self.page].into_iter().chain(self.before.iter().rev()).collect();
        let mut reports = Vec::new();
        let id = self.hashes.hash_one((found.dev, found.ino));
        let mut path = found.path.clone();
        reports.extend(pages.iter().filter_map(|page| page.by_id.get(&id)));
        reports.extend(pages.iter().filter_map(|page| page.by_path.get(&self.hash(&path))));
        for (old, new) in pages.iter().flat_map(|page| page.moves.iter().rev()) {
            if let Ok(rest) = path.strip_prefix(new) {
                path = crate::mounts::join(old, rest);
                reports.extend(pages.iter().filter_map(|page| page.by_path.get(&self.hash(&path))));
            }
        }
        reports
    }

    /// What became of a file, unless that was reported. A change time is of the last tick before the change, a report
    /// of the moment after it; what came later within one tick shows in the size only.
    fn missed(&self, found: &Changed, lower: Option<&Path>) -> Option<Op> {
        let size = (found.file_type == Some(FileType::File)).then_some(found.size);
        let reports = self.reports(found);
        // The report of a name says nothing of the size.
        let is_it =
            |one: &Reported| found.ctime_ns <= one.time_ns && (one.size().is_none() || one.size() == size);
        if reports.iter().any(is_it) {
            return None;
        }
        let Some(last) = reports.iter().max_by_key(|one| (one.time_ns, one.size())) else {
            return op(found, self.since_ns - INODE_TICK_NS, lower);
        };
        // What was reported of it is not missed; what came after is.
        let is_other_size = last.size().is_some() && last.size() != size;
        let is_same_file = found.btime_ns.is_none_or(|btime| btime <= last.time_ns);
        if size.is_some() && is_other_size && is_same_file {
            return Some(Op::Write);
        }
        op(found, last.time_ns + 1, lower)
    }

    /// Records were lost, by the reason of the `loss` line, before `now`.
    pub(super) fn lose(&mut self, reason: LossReason, now: SystemTime) {
        let lost = if self.is_closed { &mut self.later } else { &mut self.lost };
        let reason = lost.map_or(reason, |first| first.reason);
        *lost = Some(Lost { reason, until_ns: nanos(now), until_mono_ns: mono_ns() });
    }

    /// Whether there is something to look for.
    pub(super) fn is_short(&self) -> bool {
        self.lost.is_some() || self.later.is_some()
    }

    /// Whether so much was reported since a loss that it is looked for now, though more changes are made than are read.
    /// Everything that may report the same was read: records made until `read_ns`.
    pub(super) fn is_long(&self, read_ns: u64) -> bool {
        self.is_closed && self.lost.is_some_and(|lost| read_ns > lost.until_mono_ns.saturating_add(LATE_NS))
    }

    /// Nothing was lost until now.
    pub(super) fn clean(&mut self, now: SystemTime) {
        if !self.is_short() {
            self.since_ns = nanos(now);
            self.turn_page();
        }
    }

    /// Forgets all but what was reported since the last page.
    fn turn_page(&mut self) {
        let mut new =
            if self.before.len() > 1 { Page::default() } else { self.before.pop_front().unwrap_or_default() };
        new.clear();
        self.before.clear();
        self.before.push_back(std::mem::replace(&mut self.page, new));
    }

    /// Begins to look for what was lost until now; what is lost from now on needs another search. Until [`Self::found`] the
    /// ledger is not cleaned. Nothing when so much was reported that it is no longer known what was: then all is forgotten.
    pub(super) fn search(&mut self, paths: &[PathBuf], scan: SearchOptions) -> Option<Rescan> {
        let started = SystemTime::now();
        let lost = self.lost.take().or_else(|| self.later.take());
        let (reason, until_ns) =
            lost.map_or((LossReason::RingFull, nanos(started)), |lost| (lost.reason, lost.until_ns));
        if self.page.is_cut {
            self.since_ns = nanos(started);
            (self.later, self.is_closed) = (None, false);
            self.turn_page();
            return None;
        }
        if !self.is_closed {
            self.close();
        }
        let roots = paths.iter().rev().cloned().collect();
        Some(Rescan { roots, scan, search: None, started, until_ns, reason, too_deep: 0 })
    }

    /// The search is over: what was lost before it began is known.
    pub(super) fn found(&mut self, search: &Rescan) {
        self.since_ns = nanos(search.started);
        self.is_closed = false;
        self.lost = self.later.take();
        self.before.drain(..self.before.len().saturating_sub(1));
        self.clean(search.started);
    }
}

/// A search for what was lost. It runs in steps, between which changes are read and reports are written: a tree may be
/// large.
pub(super) struct Rescan {
    /// To be searched, the last first.
    roots: Vec<PathBuf>,
    scan: SearchOptions,
    search: Option<Search>,
    started: SystemTime,
    /// When the loss was noticed.
    until_ns: i64,
    reason: LossReason,
    too_deep: u64,
}

impl Rescan {
    /// Looks at some more files, and adds those that were missed; `false` when all is done. `lower` gives the place of
    /// a file in a lower layer of overlay.
    pub(super) fn step(
        &mut self,
        ledger: &ReportedSince,
        lower: impl Fn(&Path) -> Option<PathBuf>,
        out: &mut Vec<Change>,
    ) -> bool {
        let (until_ns, reason) = (self.until_ns, self.reason);
        let mut found = |changed: Changed| {
            if changed.ctime_ns <= until_ns
                && let Some(op) = ledger.missed(&changed, lower(&changed.path).as_deref())
            {
                out.push(change(op, changed, reason));
            }
        };
        if let Some(search) = &mut self.search {
            if search.step(&mut |_, _, _| false, &mut found) {
                return true;
            }
            self.too_deep += search.too_deep();
        }
        let Some(root) = self.roots.pop() else { return false };
        // A root that disappeared is reported by its own loss.
        self.search = Search::new(&root, &self.scan, ledger.since_ns, &mut found).ok();
        true
    }

    /// Directories that were not looked into because their path is too long.
    pub(super) fn too_deep(&self) -> u64 {
        self.too_deep
    }
}

fn path_hash(hashes: &RandomState, path: &Path) -> u64 {
    hashes.hash_one(path.as_os_str().as_bytes())
}

/// Whether it is remembered: of what is known already in any case, of others if there is room.
fn keep_last(reports: &mut DeferredMap<u64, Reported>, key: u64, report: Reported, is_full: bool) -> bool {
    match reports.get_mut(&key) {
        Some(last) if report.time_ns < last.time_ns => {}
        Some(last) => *last = report,
        None if is_full => return false,
        None => reports.insert(key, report),
    }
    true
}

/// What became of the file since then, as its times show; nothing when that is reported separately.
fn op(changed: &Changed, since_ns: i64, lower: Option<&Path>) -> Option<Op> {
    let is_recent = |time_ns: i64| time_ns >= since_ns;
    if changed.btime_ns.is_some_and(is_recent) {
        // Overlay's copy of a file is new, the file is not.
        return match lower.and_then(|lower| copyup::difference(&changed.path, lower)) {
            None => Some(Op::Create),
            Some(Difference::Nothing) => None,
            // A name in it appeared or disappeared, which is reported separately.
            Some(Difference::Content) if changed.file_type == Some(FileType::Dir) => None,
            Some(Difference::Content) => Some(Op::Write),
            Some(Difference::Attributes) => Some(Op::Attrib),
        };
    }
    if !is_recent(changed.mtime_ns) {
        Some(Op::Attrib)
    } else if changed.file_type == Some(FileType::Dir) {
        // As above.
        None
    } else {
        Some(Op::Write)
    }
}

fn change(op: Op, changed: Changed, reason: LossReason) -> Change {
    let size = (changed.file_type == Some(FileType::File)).then_some(changed.size);
    let path: PathBuf = changed.path;
    Change {
        detail: vec!["rescan".into()],
        file_type: changed.file_type,
        id: Some(FileId { dev: changed.dev, ino: changed.ino, gen_: 0 }),
        size,
        seen_by: vec![Channel::Poll],
        missed_by: vec![missed(reason)],
        ..Change::new(op, path, time(changed.ctime_ns))
    }
}

fn missed(reason: LossReason) -> Missed {
    let cause = match reason {
        LossReason::ProgramSkipped => Cause::ProgramSkipped,
        LossReason::RootMoved => Cause::RootMoved,
        LossReason::Unresolved => Cause::Unresolved,
        _ => Cause::RingFull,
    };
    Missed { channel: Channel::Ebpf, cause, why: cause.sentence().into() }
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests;
