//! The user side of storms: which of a file's totals have been reported, and when to ask the kernel for the rest.
//!
//! The kernel reports the first change and one per window, with totals; it has no timer to report the last ones. So
//! after each record hotr reads its totals once the window is over, until nothing was added for a while.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use hotr_common::config::Storm;
use hotr_common::record::Record;

use crate::pipeline::deferred_map::DeferredMap;
use crate::source::ebpf::{Ended, StormId};
use hotr_events::{Change, Channel, Op};

/// Windows without a change after which the kernel's slot is freed. The file's next change then takes a slot and makes
/// a record at once, so nothing can fall between.
const QUIET_WINDOWS: u64 = 3;

struct Known {
    /// What the last record said, without totals: the pattern for what follows.
    last: Change,
    writes: u64,
    bytes: u64,
    /// The file has lost that name.
    is_gone: bool,
}

/// What has been reported of each file under change.
#[derive(Default)]
pub(super) struct Storms {
    known: DeferredMap<StormId, Known>,
    /// By slot: the birth of the last storm that ended there. Its records may still be on their way.
    ended: HashMap<u32, u64>,
    deadlines: VecDeque<(u64, StormId)>,
    window_ns: u64,
}

/// More of a storm that no record reported.
pub(super) struct Trailing {
    pub(super) change: Change,
    /// `CLOCK_MONOTONIC` of the last change.
    pub(super) made_ns: u64,
    /// As of the record before it: it explains events, and is not reported.
    pub(super) is_gone: bool,
}

impl Storms {
    pub(super) fn new(window_ns: u64) -> Self {
        Self { window_ns, ..Self::default() }
    }

    /// Writes and bytes of a record that have not been reported before; `None` when all have: the totals were read
    /// after the record was made. `is_gone`: the change is not reported.
    pub(super) fn record(&mut self, record: &Record, change: &Change, is_gone: bool) -> Option<(u64, u64)> {
        let Some(id) = StormId::of(record) else { return Some((1, record.bytes)) };
        if self.ended.get(&id.slot).is_some_and(|born| id.born <= *born) {
            return None;
        }
        if let Some(known) = self.known.get_mut(&id) {
            let writes = record.writes.checked_sub(known.writes).filter(|writes| *writes > 0)?;
            let bytes = record.bytes.wrapping_sub(known.bytes);
            (known.writes, known.bytes) = (record.writes, record.bytes);
            known.last.clone_from(change);
            known.is_gone = is_gone;
            return Some((writes, bytes));
        }
        let known = Known { last: change.clone(), writes: record.writes, bytes: record.bytes, is_gone };
        self.known.insert(id, known);
        self.deadlines.push_back((record.time + self.window_ns, id));
        Some((record.writes, record.bytes))
    }

    /// What was found out of a record's change since: the pattern for what follows.
    pub(super) fn judged(&mut self, record: &Record, change: &Change) {
        if let Some(known) = StormId::of(record).and_then(|id| self.known.get_mut(&id)) {
            known.last.seen_by.clone_from(&change.seen_by);
            known.last.missed_by.clone_from(&change.missed_by);
        }
    }

    /// Does the work on reported changes that can wait; see [`DeferredMap::put_away`].
    pub(super) fn put_away(&mut self) {
        self.known.put_away();
    }

    /// A record, made at `made_ns`, says that names were changed or removed: gives what was counted under them to
    /// `trailing`, which must be reported before it, and follows the files to their new names. To be called in the
    /// order of the records, because a later one has the name as it was later. The storm of a file that lost its name
    /// is ended: if it has another one, its next change makes a record with that.
    pub(super) fn renamed(
        &mut self,
        change: &Change,
        made_ns: u64,
        read: impl Fn(StormId) -> Option<Storm>,
        end: impl Fn(StormId) -> Ended,
        mut trailing: impl FnMut(Trailing),
    ) {
        if self.known.is_empty() {
            return;
        }
        let ids: Vec<(StormId, Option<PathBuf>)> = self
            .known
            .all()
            .iter()
            .filter_map(|(id, known)| Some((*id, moved(&known.last.path, change)?)))
            .collect();
        for (id, path) in ids {
            let (totals, is_ended) = match if path.is_none() { end(id) } else { Ended::Busy } {
                Ended::Last(last) => (Some(last), true),
                Ended::Before => (None, true),
                // Of what was counted since, nobody knows how much came before.
                Ended::Busy => (read(id).filter(|storm| path.is_none() || storm.last <= made_ns), false),
            };
            if let Some(more) = totals.and_then(|storm| self.more(id, &storm)) {
                trailing(more);
            }
            if is_ended {
                self.known.remove(&id);
                self.ended.insert(id.slot, id.born);
            } else if let Some(known) = self.known.get_mut(&id) {
                match path {
                    Some(path) => known.last.path = path,
                    None => known.is_gone = true,
                }
            }
        }
    }

    /// When [`Self::due`] has something to do, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Asks `read` for the totals of storms whose window is over, and gives what was not reported to `trailing`. Storms
    /// that have been quiet are ended by `end`.
    pub(super) fn due(
        &mut self,
        now_ns: u64,
        read: impl Fn(StormId) -> Option<Storm>,
        end: impl Fn(StormId) -> Ended,
        mut trailing: impl FnMut(Trailing),
    ) {
        while let Some((_, id)) = self.deadlines.pop_front_if(|(at, _)| *at <= now_ns) {
            let totals = read(id);
            let quiet =
                totals.is_none_or(|storm| now_ns.saturating_sub(storm.last) > QUIET_WINDOWS * self.window_ns);
            let (totals, ended) = match if quiet { end(id) } else { Ended::Busy } {
                Ended::Last(last) => (Some(last), true),
                Ended::Before => (None, true),
                Ended::Busy => (totals, false),
            };
            if let Some(more) = totals.and_then(|storm| self.more(id, &storm)) {
                trailing(more);
            }
            if ended {
                self.known.remove(&id);
                self.ended.insert(id.slot, id.born);
            } else {
                self.deadlines.push_back((now_ns + self.window_ns, id));
            }
        }
    }

    /// Everything not reported so far; the storms continue.
    pub(super) fn now(
        &mut self,
        read: impl Fn(StormId) -> Option<Storm>,
        mut trailing: impl FnMut(Trailing),
    ) {
        for at in 0..self.deadlines.len() {
            let id = self.deadlines[at].1;
            if let Some(more) = read(id).and_then(|storm| self.more(id, &storm)) {
                trailing(more);
            }
        }
    }

    /// Everything not reported, at the end of a run.
    pub(super) fn finish(
        &mut self,
        read: impl Fn(StormId) -> Option<Storm>,
        mut trailing: impl FnMut(Trailing),
    ) {
        for (_, id) in std::mem::take(&mut self.deadlines) {
            if let Some(more) = read(id).and_then(|storm| self.more(id, &storm)) {
                trailing(more);
            }
        }
    }

    fn more(&mut self, id: StormId, storm: &Storm) -> Option<Trailing> {
        let known = self.known.get_mut(&id)?;
        let writes = storm.writes.checked_sub(known.writes).filter(|writes| *writes > 0)?;
        let mut change = known.last.clone();
        change.written.writes = writes;
        change.written.bytes = storm.bytes.wrapping_sub(known.bytes);
        // That of the last record; the changes since made another.
        change.size = None;
        if change.seen_by.is_empty() {
            // It waits for its event.
            change.seen_by.push(Channel::Ebpf);
        }
        (known.writes, known.bytes) = (storm.writes, storm.bytes);
        Some(Trailing { change, made_ns: storm.last, is_gone: known.is_gone })
    }
}

/// What a change of names made of a path: nothing, another path, or (inner `None`) no path that is reported.
fn moved(path: &Path, change: &Change) -> Option<Option<PathBuf>> {
    let is = |wanted: &str| change.detail.iter().any(|word| word == wanted);
    let new = &change.path;
    let old = match &change.old_path {
        Some(old) if change.op == Op::Rename => old,
        _ => return path.starts_with(new).then_some(None),
    };
    if let Ok(rest) = path.strip_prefix(old) {
        return Some((!is("moved-out")).then(|| crate::mounts::join(new, rest)));
    }
    let rest = path.strip_prefix(new).ok()?;
    Some((is("exchange") && !is("moved-in")).then(|| crate::mounts::join(old, rest)))
}

#[cfg(test)]
mod tests;
