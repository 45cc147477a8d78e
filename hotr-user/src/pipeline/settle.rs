//! Merging repeats: a file that is written a thousand times in a moment is a few reports with exact totals.
//!
//! In: changes and the time they are handed in. Out: the first of a kind at once, and one trailing change for all
//! repeats when the window ends. No total is ever lost, and nothing that follows overtakes a held repeat of the
//! same file.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::late::LateMap;
use crate::event::{Change, FileId, Layer, Op};

/// The dedup time to live: repeats of a change within this time of it are one change. Long enough to fold the
/// writes of one save, short enough that a person sees the result as immediate.
pub const TTL_NS: u64 = 200_000_000;

/// Changes with the same key are repeats. A change by another way into the tree is another change: another channel
/// may have missed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    id: Option<FileId>,
    op: Op,
    path: PathBuf,
    layer: Option<Layer>,
}

#[derive(Debug)]
struct Window {
    ends_ns: u64,
    held: Option<Box<Change>>,
}

/// See the module. Times are nanoseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub struct Settler {
    windows: LateMap<Arc<Key>, Window>,
    /// Open windows of a name.
    by_path: LateMap<PathBuf, Vec<Arc<Key>>>,
    /// In the order of their ends; an entry whose window has another end by now is void.
    ends: VecDeque<(u64, Arc<Key>)>,
}

impl Settler {
    /// With no window open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a change. What is to be reported now is appended to `out`: the change itself when it is no repeat,
    /// and before it the held repeats of a file whose name appears, changes or goes.
    ///
    /// Call [`Self::due`] first when [`Self::next_deadline`] has passed.
    pub fn push(&mut self, change: Change, now_ns: u64, out: &mut Vec<Change>) {
        if !matches!(change.op, Op::Write | Op::Attrib) {
            self.close(&change, out);
            out.push(change);
            return;
        }
        let key = Key { id: change.id, op: change.op, path: change.path.clone(), layer: change.layer };
        match self.windows.get_mut(&key) {
            Some(Window { held: Some(held), .. }) => merge(held, change),
            Some(window) => window.held = Some(Box::new(change)),
            None => {
                self.open(Arc::new(key), now_ns);
                out.push(change);
            }
        }
    }

    /// Trailing changes whose window has ended; each begins its window anew.
    pub fn due(&mut self, now_ns: u64, out: &mut Vec<Change>) {
        while self.ends.front().is_some_and(|(ends_ns, _)| *ends_ns <= now_ns) {
            let Some((ends_ns, key)) = self.ends.pop_front() else { break };
            let Some(window) = self.windows.get_mut(&key).filter(|window| window.ends_ns == ends_ns) else {
                continue;
            };
            match window.held.take() {
                Some(change) => {
                    out.push(*change);
                    self.open(key, now_ns);
                }
                None => {
                    self.windows.remove(&key);
                    self.unname(&key);
                }
            }
        }
    }

    /// Does the work on what was taken that can wait; see [`LateMap::put_away`].
    pub fn put_away(&mut self) {
        self.windows.put_away();
        self.by_path.put_away();
    }

    /// When [`Self::due`] should be called next; `None` when no window is open.
    pub fn next_deadline(&self) -> Option<u64> {
        self.ends.front().map(|(ends_ns, _)| *ends_ns)
    }

    /// All that is held, in the order of the windows' ends; nothing is open afterwards.
    pub fn finish(&mut self) -> Vec<Change> {
        self.by_path.clear();
        let mut windows = std::mem::take(self.windows.all());
        let ends = std::mem::take(&mut self.ends);
        ends.into_iter().filter_map(|(_, key)| windows.remove(&key)?.held).map(|held| *held).collect()
    }

    fn open(&mut self, key: Arc<Key>, now_ns: u64) {
        let ends_ns = now_ns.saturating_add(TTL_NS);
        self.ends.push_back((ends_ns, Arc::clone(&key)));
        let window = Window { ends_ns, held: None };
        if let Some(open) = self.windows.get_mut(&key) {
            *open = window;
            return;
        }
        match self.by_path.get_mut(&key.path) {
            Some(keys) => keys.push(Arc::clone(&key)),
            None => self.by_path.insert(key.path.clone(), vec![Arc::clone(&key)]),
        }
        self.windows.insert(key, window);
    }

    /// Reports what is held of the names in `change`, and ends their windows: what follows is another story. By name
    /// alone, for not every source knows a file's generation.
    fn close(&mut self, change: &Change, out: &mut Vec<Change>) {
        if self.windows.is_empty() {
            return;
        }
        for path in change.old_path.iter().chain(std::iter::once(&change.path)) {
            for key in self.by_path.remove(path).into_iter().flatten() {
                out.extend(self.windows.remove(&key).and_then(|window| window.held).map(|held| *held));
            }
        }
    }

    /// Forgets a window's name when the window is gone.
    fn unname(&mut self, key: &Arc<Key>) {
        if let Some(keys) = self.by_path.get_mut(&key.path) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_path.remove(&key.path);
            }
        }
    }
}

/// Adds a repeat to a held change: totals add up, sets unite, the rest is as of the latest.
fn merge(held: &mut Change, latest: Change) {
    held.writes = held.writes.saturating_add(latest.writes);
    held.bytes = held.bytes.saturating_add(latest.bytes);
    held.time = held.time.max(latest.time);
    held.size = latest.size.or(held.size);
    held.file_type = latest.file_type.or(held.file_type);
    if latest.actor.is_some() {
        held.actor = latest.actor;
    }
    unite(&mut held.detail, latest.detail);
    unite(&mut held.seen_by, latest.seen_by);
    for missed in latest.missed_by {
        if !held.missed_by.iter().any(|one| (one.channel, one.cause) == (missed.channel, missed.cause)) {
            held.missed_by.push(missed);
        }
    }
}

fn unite<T: PartialEq>(into: &mut Vec<T>, from: Vec<T>) {
    for item in from {
        if !into.contains(&item) {
            into.push(item);
        }
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
