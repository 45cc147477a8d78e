//! The user side of storms: what of a file's totals has been told, and when to ask the kernel for the rest.
//!
//! The kernel tells the first change and one a window, with totals; it has no timer to tell the last ones. So after
//! each record its totals are looked at once the window is over, until nothing was added for a while.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use hotr_common::config::Storm;
use hotr_common::record::Record;

use crate::event::Change;
use crate::pipeline::late::LateMap;
use crate::source::ebpf::{Ended, StormId};

/// Windows without a change after which the kernel's slot is freed. The file's next change then takes a slot and makes
/// a record at once, so nothing can fall between.
const QUIET_WINDOWS: u64 = 3;

struct Known {
    /// What the last record said, without totals: the pattern for what follows.
    last: Change,
    writes: u64,
    bytes: u64,
}

/// What has been told of each file under change.
#[derive(Default)]
pub(super) struct Storms {
    known: LateMap<StormId, Known>,
    /// By slot: the birth of the last storm that ended there. Its records may still be on their way.
    ended: HashMap<u32, u64>,
    deadlines: VecDeque<(u64, StormId)>,
    window_ns: u64,
}

/// More of a storm that no record told.
pub(super) struct Trailing {
    pub(super) change: Change,
    /// `CLOCK_MONOTONIC` of the last change.
    pub(super) made_ns: u64,
}

impl Storms {
    pub(super) fn new(window_ns: u64) -> Self {
        Self { window_ns, ..Self::default() }
    }

    /// Writes and bytes of a record that have not been told before; `None` when all have: the totals were read
    /// after the record was made.
    pub(super) fn record(&mut self, record: &Record, change: &Change) -> Option<(u64, u64)> {
        let Some(id) = StormId::of(record) else { return Some((1, record.bytes)) };
        if self.ended.get(&id.slot).is_some_and(|born| id.born <= *born) {
            return None;
        }
        if let Some(known) = self.known.get_mut(&id) {
            let writes = record.writes.checked_sub(known.writes).filter(|writes| *writes > 0)?;
            let bytes = record.bytes.wrapping_sub(known.bytes);
            (known.writes, known.bytes) = (record.writes, record.bytes);
            known.last.clone_from(change);
            return Some((writes, bytes));
        }
        let known = Known { last: change.clone(), writes: record.writes, bytes: record.bytes };
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

    /// Does the work on what was told that can wait; see [`LateMap::put_away`].
    pub(super) fn put_away(&mut self) {
        self.known.put_away();
    }

    /// A name was changed or removed: gives what was counted under it to `trailing`, and follows the file to its
    /// new name.
    pub(super) fn renamed(
        &mut self,
        old: &Path,
        new: Option<&Path>,
        read: impl Fn(StormId) -> Option<Storm>,
        mut trailing: impl FnMut(Trailing),
    ) {
        if self.known.is_empty() {
            return;
        }
        let below = self.known.all().iter().filter(|(_, known)| known.last.path.starts_with(old));
        let ids: Vec<StormId> = below.map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(more) = read(id).and_then(|storm| self.more(id, &storm)) {
                trailing(more);
            }
            if let (Some(known), Some(new)) = (self.known.get_mut(&id), new)
                && let Ok(rest) = known.last.path.strip_prefix(old)
            {
                known.last.path = crate::mounts::join(new, rest);
            }
        }
    }

    /// When [`Self::due`] has something to do, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Asks `read` for the totals of storms whose window is over, and gives what was not told to `trailing`.
    /// Storms that have been quiet are ended by `end`.
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

    /// Everything not told, at the end of a run.
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
        change.writes = writes;
        change.bytes = storm.bytes.wrapping_sub(known.bytes);
        (known.writes, known.bytes) = (storm.writes, storm.bytes);
        Some(Trailing { change, made_ns: storm.last })
    }
}

#[cfg(test)]
mod tests;
