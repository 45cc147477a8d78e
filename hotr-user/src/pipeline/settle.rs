//! Merging repeats: a file that is written a thousand times in a moment is a few reports with exact totals.
//!
//! In: changes and the time they are handed in. Out: the first of a kind at once, and one trailing change for all
//! repeats when the window ends. No total is ever lost, and nothing that follows overtakes a held repeat of the
//! same file.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deferred_map::DeferredMap;
use crate::tree_key::TreeKey;
use hotr_events::{Cause, Change, Channel, FileId, Layer, Op, WatcherState};

/// The dedup time to live: repeats of a change within this time of it are one change. Long enough to fold the writes of
/// one save, short enough that humans see the result as immediate.
pub const TTL_NS: u64 = 200_000_000;

/// Changes with the same key are repeats. A change by another way into the tree is another change: another channel
/// may have missed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    id: Option<FileId>,
    op: Op,
    path: PathBuf,
    layer: Option<Layer>,
    /// A channel saw it that counts.
    counted: bool,
    /// What became of it in another process: received ones are no repeats of missed ones.
    fate: Option<(WatcherState, Option<Cause>)>,
}

#[derive(Debug)]
struct Window {
    ends_ns: u64,
    held: Option<Box<Change>>,
}

/// See the module. Times are nanoseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub struct Settler {
    windows: DeferredMap<Arc<Key>, Window>,
    by_path: Names,
    /// In the order of their ends; an entry whose window has another end by now is void.
    ends: VecDeque<(u64, Arc<Key>)>,
}

impl Settler {
    /// With no window open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a change. What must be reported now is appended to `out`: the change itself when it is no repeat, and
    /// before it the held repeats of a file whose name appears, changes or goes.
    ///
    /// Call [`Self::due`] first when [`Self::next_deadline`] has passed.
    pub fn push(&mut self, change: Change, now_ns: u64, out: &mut Vec<Change>) {
        if !matches!(change.op, Op::Write | Op::Attrib) {
            self.close(&change, out);
            out.push(change);
            return;
        }
        let counted = change.seen_by.contains(&Channel::Ebpf);
        let (id, op, path, layer) = (change.id, change.op, change.path.clone(), change.layer);
        let fate = fate(&change);
        let key = Key { id, op, path, layer, counted, fate };
        match self.windows.get_mut(&key) {
            Some(Window { held: Some(held), .. }) => merge(held, change),
            Some(window) => window.held = Some(Box::new(change)),
            None => {
                self.open(Arc::new(key), now_ns);
                out.push(change);
            }
        }
    }

    /// Trailing changes whose window has ended; each restarts its window.
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
                    self.by_path.forget(&key);
                }
            }
        }
    }

    /// Does the work on what was taken that can wait; see [`DeferredMap::put_away`].
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
        self.by_path = Names::default();
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
        self.by_path.insert(Arc::clone(&key));
        self.windows.insert(key, window);
    }

    /// Reports what is held of the names in `change` and of those below them, and ends their windows: what follows is
    /// unrelated. By name only, because not every source knows a file's generation, or its type.
    fn close(&mut self, change: &Change, out: &mut Vec<Change>) {
        if self.windows.is_empty() {
            return;
        }
        for path in change.old_path.iter().chain(std::iter::once(&change.path)) {
            for key in self.by_path.take(path) {
                out.extend(self.windows.remove(&key).and_then(|window| window.held).map(|held| *held));
            }
        }
    }
}

/// Open windows by name, sorted, because a directory takes all below it along.
#[derive(Debug, Default)]
struct Names {
    map: BTreeMap<TreeKey, Vec<Arc<Key>>>,
    /// Not in the map yet; see [`DeferredMap`].
    late: Vec<Arc<Key>>,
}

impl Names {
    fn insert(&mut self, key: Arc<Key>) {
        if self.late.len() == FEW {
            self.put_away();
        }
        self.late.push(key);
    }

    /// Takes out the windows of a name and of all names below it, in the order of the names.
    fn take(&mut self, path: &Path) -> Vec<Arc<Key>> {
        self.put_away();
        let path = TreeKey::new(path);
        let names = self.map.range(&path..).map(|(name, _)| name);
        let names: Vec<TreeKey> = names.take_while(|name| name.is_in(&path)).cloned().collect();
        names.iter().filter_map(|name| self.map.remove(name)).flatten().collect()
    }

    fn forget(&mut self, key: &Arc<Key>) {
        self.put_away();
        let name = TreeKey::new(&key.path);
        if let Some(keys) = self.map.get_mut(&name) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.map.remove(&name);
            }
        }
    }

    fn put_away(&mut self) {
        for key in self.late.drain(..) {
            self.map.entry(TreeKey::new(&key.path)).or_default().push(key);
        }
    }
}

/// Names that wait to be put into the map; when there are more, somebody has many changes and does not wait for one.
const FEW: usize = 16;

/// What became of a change in another process; it is as well received when an equal event stands for it.
fn fate(change: &Change) -> Option<(WatcherState, Option<Cause>)> {
    let state = change.watcher.as_ref()?.state;
    let state = if state == WatcherState::Merged { WatcherState::Delivered } else { state };
    Some((state, change.missed_by.first().map(|missed| missed.cause)))
}

/// Adds a repeat to a held change: totals add up, sets unite, the rest is as of the latest.
fn merge(held: &mut Change, latest: Change) {
    held.written.writes = held.written.writes.saturating_add(latest.written.writes);
    held.written.bytes = held.written.bytes.saturating_add(latest.written.bytes);
    if latest.time >= held.time {
        held.size = latest.size;
        held.time = latest.time;
    }
    held.file_type = latest.file_type.or(held.file_type);
    if latest.actor.is_some() {
        held.actor = latest.actor;
    }
    if latest.watcher.is_some() {
        held.watcher = latest.watcher;
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
