//! Names that were found in new directories and reported as created: their events, if there are any, are not reported again.
//!
//! In: names found, and the names of events. Out: whether a name was found before. Its event was queued before it was found,
//! so what was queued then must be read before a name is forgotten, and no more: under a storm the queue is never empty.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Room that is kept for the next storm.
const KEPT: usize = 1 << 12;
/// Not in the sink any more.
const NOWHERE: u32 = u32::MAX;

/// Where in the sink a name is, by its watch and by 128 bits of two hashes whose keys nobody else knows, as in the correlator:
/// a storm has many names.
type Names = HashMap<(i32, [u64; 2]), u32>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Found {
    hashes: [RandomState; 2],
    names: Names,
    /// What was found before the reading of what is queued began.
    before: Names,
}

impl Found {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.before.is_empty()
    }

    fn key(&self, wd: i32, name: &[u8]) -> (i32, [u64; 2]) {
        (wd, [self.hashes[0].hash_one(name), self.hashes[1].hash_one(name)])
    }

    /// Whether a name was found.
    pub(super) fn has(&self, wd: i32, name: &[u8]) -> bool {
        let key = self.key(wd, name);
        self.names.contains_key(&key) || self.before.contains_key(&key)
    }

    /// Adds a name that is at this place in the sink.
    pub(super) fn insert(&mut self, wd: i32, name: &[u8], at: usize) {
        let key = self.key(wd, name);
        self.names.insert(key, u32::try_from(at).unwrap_or(NOWHERE));
    }

    /// Takes a name out: its event was read. Its place in the sink, if it is still there.
    pub(super) fn take(&mut self, wd: i32, name: &[u8]) -> Option<Option<usize>> {
        if self.is_empty() {
            return None;
        }
        let key = self.key(wd, name);
        let at = self.names.remove(&key).or_else(|| self.before.remove(&key))?;
        Some(usize::try_from(at).ok().filter(|_| at != NOWHERE))
    }

    /// All that is queued now begins to be read.
    pub(super) fn begin(&mut self) {
        if self.before.is_empty() {
            std::mem::swap(&mut self.names, &mut self.before);
        } else {
            self.before.extend(self.names.drain());
        }
    }

    /// What was queued when it began has been read.
    pub(super) fn end(&mut self) {
        clear(&mut self.before);
        self.hand_over();
    }

    /// Others have the sink now.
    pub(super) fn hand_over(&mut self) {
        self.names.values_mut().chain(self.before.values_mut()).for_each(|at| *at = NOWHERE);
    }

    /// The queue is empty.
    pub(super) fn clear(&mut self) {
        clear(&mut self.names);
        clear(&mut self.before);
    }
}

fn clear(names: &mut Names) {
    names.clear();
    names.shrink_to(KEPT);
}

#[cfg(test)]
mod tests {
    use super::Found;

    #[test]
    fn a_name_is_remembered_until_what_was_queued_when_it_was_found_is_read() {
        let mut found = Found::default();
        found.insert(1, b"before", 3);
        found.begin();
        found.insert(1, b"while", 4);
        found.insert(2, b"read", 5);
        assert_eq!(found.take(2, b"read"), Some(Some(5)));
        assert_eq!(found.take(2, b"read"), None);
        found.hand_over();
        assert!(found.has(1, b"before") && found.has(1, b"while"));
        assert!(!found.has(2, b"before"));
        found.end();
        assert!(!found.has(1, b"before"));
        assert_eq!(found.take(1, b"while"), Some(None), "it may be queued behind what was read");
        assert!(found.is_empty());
    }

    #[test]
    fn an_endless_storm_leaves_nothing_behind() {
        let mut found = Found::default();
        for round in 0..1000_u32 {
            found.begin();
            (0..100).for_each(|at| found.insert(1, &[round.to_ne_bytes(), [at, 0, 0, 0]].concat(), 0));
            found.end();
            assert!(found.names.len() + found.before.len() <= 200);
        }
    }
}
