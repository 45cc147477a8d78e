//! The user side of storms: what of a file's totals has been told, and when to ask the kernel for the rest.
//!
//! The kernel tells the first change and one a window, with totals; it has no timer to tell the last ones. So after
//! each record its totals are looked at once the window is over, until nothing was added for a while.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use hotr_common::config::{Storm, StormKey};
use hotr_common::record::Record;

use crate::event::Change;

/// Windows without a change after which the kernel's entry is given up. Its next change then makes a new entry and
/// a record at once, so nothing can fall between.
const QUIET_WINDOWS: u64 = 3;

struct Known {
    /// What the last record said, without totals: the pattern for what follows.
    last: Change,
    born: u64,
    writes: u64,
    bytes: u64,
}

/// What has been told of each file under change.
#[derive(Default)]
pub(super) struct Storms {
    known: HashMap<StormKey, Known>,
    deadlines: VecDeque<(u64, StormKey)>,
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
    /// from the map after the record was made.
    pub(super) fn record(&mut self, record: &Record, change: &Change) -> Option<(u64, u64)> {
        if record.writes == 0 {
            return Some((1, record.bytes));
        }
        let key = StormKey { inode: record.inode, pid: record.key_pid, hook: record.key_hook };
        let (writes, bytes) = match self.known.get_mut(&key) {
            Some(known) if known.born == record.born => {
                if record.writes <= known.writes {
                    return None;
                }
                let more = (record.writes - known.writes, record.bytes.wrapping_sub(known.bytes));
                (known.writes, known.bytes) = (record.writes, record.bytes);
                known.last.clone_from(change);
                more
            }
            other => {
                let new = Known {
                    last: change.clone(),
                    born: record.born,
                    writes: record.writes,
                    bytes: record.bytes,
                };
                if let Some(known) = other {
                    *known = new;
                } else {
                    self.known.insert(key, new);
                    self.deadlines.push_back((record.time + self.window_ns, key));
                }
                (record.writes, record.bytes)
            }
        };
        Some((writes, bytes))
    }

    /// What was found out of a record's change since: the pattern for what follows.
    pub(super) fn judged(&mut self, record: &Record, change: &Change) {
        let key = StormKey { inode: record.inode, pid: record.key_pid, hook: record.key_hook };
        if let Some(known) = self.known.get_mut(&key).filter(|known| known.born == record.born) {
            known.last.seen_by.clone_from(&change.seen_by);
            known.last.missed_by.clone_from(&change.missed_by);
        }
    }

    /// A name was changed or removed: gives what was counted under it to `trailing`, and follows the file to its
    /// new name.
    pub(super) fn renamed(
        &mut self,
        old: &Path,
        new: Option<&Path>,
        read: impl Fn(&StormKey) -> Option<Storm>,
        mut trailing: impl FnMut(Trailing),
    ) {
        if self.known.is_empty() {
            return;
        }
        let below = self.known.iter().filter(|(_, known)| known.last.path.starts_with(old));
        let keys: Vec<StormKey> = below.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(more) = read(&key).and_then(|storm| self.more(&key, &storm)) {
                trailing(more);
            }
            if let (Some(known), Some(new)) = (self.known.get_mut(&key), new)
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
    /// Storms that have been quiet are given to `forget`.
    pub(super) fn due(
        &mut self,
        now_ns: u64,
        read: impl Fn(&StormKey) -> Option<Storm>,
        mut forget: impl FnMut(&StormKey),
        mut trailing: impl FnMut(Trailing),
    ) {
        while let Some((_, key)) = self.deadlines.pop_front_if(|(at, _)| *at <= now_ns) {
            let Some(storm) = read(&key) else {
                self.known.remove(&key);
                continue;
            };
            if let Some(more) = self.more(&key, &storm) {
                trailing(more);
            }
            if now_ns.saturating_sub(storm.last) > QUIET_WINDOWS * self.window_ns {
                // What was told stays known for one window more: a change may have been counted, and its record be
                // on its way, when the entry went.
                forget(&key);
            }
            self.deadlines.push_back((now_ns + self.window_ns, key));
        }
    }

    /// Everything not told, at the end of a run.
    pub(super) fn finish(
        &mut self,
        read: impl Fn(&StormKey) -> Option<Storm>,
        mut trailing: impl FnMut(Trailing),
    ) {
        for (_, key) in std::mem::take(&mut self.deadlines) {
            if let Some(more) = read(&key).and_then(|storm| self.more(&key, &storm)) {
                trailing(more);
            }
        }
    }

    fn more(&mut self, key: &StormKey, storm: &Storm) -> Option<Trailing> {
        let known = self.known.get_mut(key).filter(|known| known.born == storm.born)?;
        let writes = storm.writes.checked_sub(known.writes).filter(|writes| *writes > 0)?;
        let mut change = known.last.clone();
        change.writes = writes;
        change.bytes = storm.bytes.wrapping_sub(known.bytes);
        (known.writes, known.bytes) = (storm.writes, storm.bytes);
        Some(Trailing { change, made_ns: storm.last })
    }
}
