//! After records were lost: finds what they would have told by looking at the files' change times.
//!
//! In: what was reported since the programs last were known to have lost nothing. Out: every file that changed
//! since then and was not reported after its change time. A removal leaves no trace but its directory's times.

use std::borrow::Borrow;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::copyup::{self, Difference};
use crate::event::{Change, Channel, FileId, FileType, Missed, Op};
use crate::options::TraceOptions;
use crate::pipeline::late::LateMap;
use crate::source::since::{Changed, SearchOptions, changed_since};

/// Inode times advance with the timer tick, at the slowest 100 times a second.
const TICK_NS: i64 = 10_000_000;

/// Time of a report, and the file's size then if it was told.
type Reported = (i64, Option<u64>);

/// What was reported since the last moment without loss.
pub(super) struct Ledger {
    since_ns: i64,
    /// Time of a file's last report, and its size then: by path, and by device and inode for its other names. The
    /// device alone would not do: on btrfs and overlay the kernel's is another one than stat's.
    by_path: LateMap<PathBuf, Reported>,
    by_id: LateMap<(u64, u64), Reported>,
    /// Why records were lost since [`Self::since_ns`], if any were.
    lost: Option<&'static str>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            since_ns: nanos(SystemTime::now()),
            by_path: LateMap::default(),
            by_id: LateMap::default(),
            lost: None,
        }
    }

    /// Remembers a report.
    pub(super) fn report(&mut self, change: &Change) {
        let report = (nanos(change.time), change.size);
        if let Some(id) = change.id {
            keep_last(&mut self.by_id, &(id.dev, id.ino), report);
        }
        keep_last(&mut self.by_path, change.path.as_path(), report);
    }

    /// Does the work on what was reported that can wait; see [`LateMap::put_away`].
    pub(super) fn put_away(&mut self) {
        self.by_path.put_away();
        self.by_id.put_away();
    }

    /// Whether the file's last change was reported. A change time is of the last tick before the change, a report
    /// of the moment after it; what came later within one tick shows in the size only.
    fn is_known(&self, found: &Changed) -> bool {
        let size = (found.file_type == Some(FileType::File)).then_some(found.size);
        // The report of a name says nothing of the size.
        let reports = [self.by_id.get(&(found.dev, found.ino)), self.by_path.get(&found.path)];
        let is_it = |(time, told): &Reported| found.ctime_ns <= *time && (told.is_none() || *told == size);
        reports.into_iter().flatten().any(is_it)
    }

    /// Records were lost, by the reason of the `loss` line.
    pub(super) fn lose(&mut self, reason: &'static str) {
        self.lost.get_or_insert(reason);
    }

    /// Whether there is something to look for.
    pub(super) fn is_short(&self) -> bool {
        self.lost.is_some()
    }

    /// Nothing was lost until now.
    pub(super) fn clean(&mut self, now: SystemTime) {
        if self.lost.is_none() {
            self.since_ns = nanos(now);
            self.by_path.clear();
            self.by_id.clear();
        }
    }

    /// Looks for what was lost; afterwards nothing is. `lower` tells where in a lower layer of overlay a file is.
    pub(super) fn rescan(
        &mut self,
        options: &TraceOptions,
        lower: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Vec<Change> {
        let started = SystemTime::now();
        let scan = SearchOptions { recursive: options.recursive, exclude: options.exclude.clone() };
        let mut found = Vec::new();
        for root in &options.paths {
            // A root that has gone is told of by its own loss.
            let _ = changed_since(
                root,
                &scan,
                self.since_ns,
                |_, _, _| false,
                |changed| {
                    if !self.is_known(&changed) {
                        found.push(changed);
                    }
                },
            );
        }
        let since = self.since_ns;
        let reason = self.lost.take().unwrap_or(RING_FULL);
        self.clean(started);
        let ops = |changed: &Changed| op(changed, since, lower(&changed.path).as_deref());
        found.into_iter().filter_map(|changed| Some(change(ops(&changed)?, changed, reason))).collect()
    }
}

fn keep_last<K, Q>(reports: &mut LateMap<K, Reported>, key: &Q, report: Reported)
where
    K: Eq + Hash + Borrow<Q>,
    Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
{
    match reports.get_mut(key) {
        Some(last) if report.0 < last.0 => {}
        Some(last) => *last = report,
        None => reports.insert(key.to_owned(), report),
    }
}

/// What became of the file, as its times tell; nothing when that is told by itself.
fn op(changed: &Changed, since_ns: i64, lower: Option<&Path>) -> Option<Op> {
    let is_recent = |time_ns: i64| time_ns >= since_ns - TICK_NS;
    if changed.btime_ns.is_some_and(is_recent) {
        // Overlay's copy of a file is new, the file is not.
        return match lower.and_then(|lower| copyup::difference(&changed.path, lower)) {
            None => Some(Op::Create),
            Some(Difference::Nothing) => None,
            // A name in it came or went, which is told by itself.
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

fn change(op: Op, changed: Changed, reason: &'static str) -> Change {
    let size = (changed.file_type == Some(FileType::File)).then_some(changed.size);
    let path: PathBuf = changed.path;
    Change {
        time: time(changed.ctime_ns),
        op,
        detail: vec!["rescan".into()],
        path,
        old_path: None,
        file_type: changed.file_type,
        id: Some(FileId { dev: changed.dev, ino: changed.ino, gen_: 0 }),
        size,
        writes: 0,
        bytes: 0,
        layer: None,
        actor: None,
        seen_by: vec![Channel::Poll],
        missed_by: vec![missed(reason)],
    }
}

/// Reason of a loss, and cause of what is missed by it.
const RING_FULL: &str = "ring-full";
/// See [`RING_FULL`].
const SKIPPED: &str = "program-skipped";

/// See [`RING_FULL`].
const UNRESOLVED: &str = "unresolved";

fn missed(reason: &str) -> Missed {
    let (cause, why) = match reason {
        SKIPPED => (
            SKIPPED,
            "the kernel did not run a program while another one ran; found by looking at change times",
        ),
        UNRESOLVED => (
            UNRESOLVED,
            "its process was gone, and everybody of its mount namespace, before the path of a call could be followed; found by looking at change times",
        ),
        _ => (RING_FULL, "no room for its record; found by looking at change times"),
    };
    Missed { channel: Channel::Ebpf, cause, why: why.into() }
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
