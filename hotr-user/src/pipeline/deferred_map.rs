//! A hash map that is filled later: the entries of a change are put in their place once the change is reported.
//!
//! In: entries, at the price of a push. Out: the same answers as of a `HashMap`. An insertion touches memory that
//! nobody has used for a while, and sometimes moves all entries: too long for a reader that waits for a line.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Entries looked through one by one; when there are more, somebody has many changes and no use for this.
const FEW: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct DeferredMap<K, V> {
    map: HashMap<K, V>,
    /// Entries that are not in the map yet; their keys are not either.
    late: Vec<(K, V)>,
}

impl<K, V> Default for DeferredMap<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), late: Vec::new() }
    }
}

impl<K: Eq + Hash, V> DeferredMap<K, V> {
    /// Adds an entry, or replaces the value of its key.
    pub fn insert(&mut self, key: K, value: V) {
        if let Some(known) = self.get_mut(&key) {
            *known = value;
            return;
        }
        if self.late.len() == FEW {
            self.put_away();
        }
        self.late.push((key, value));
    }

    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let late = self.late.iter().find(|(late, _)| late.borrow() == key).map(|(_, value)| value);
        late.or_else(|| self.map.get(key))
    }

    /// See [`Self::get`].
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let late = self.late.iter_mut().find(|(late, _)| (*late).borrow() == key).map(|(_, value)| value);
        late.or_else(|| self.map.get_mut(key))
    }

    /// Takes an entry out.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self.late.iter().position(|(late, _)| late.borrow() == key) {
            Some(at) => Some(self.late.swap_remove(at).1),
            None => self.map.remove(key),
        }
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.late.is_empty() && self.map.is_empty()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.late.len() + self.map.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.late.clear();
        self.map.clear();
    }

    /// Puts every entry in its place. Nothing but the price of the next questions depends on it.
    pub fn put_away(&mut self) {
        self.map.extend(self.late.drain(..));
    }

    /// All entries, in their places.
    pub fn all(&mut self) -> &mut HashMap<K, V> {
        self.put_away();
        &mut self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_a_map_does_whenever_entries_are_put_away() {
        let (mut late, mut map) = (DeferredMap::default(), HashMap::new());
        let mut seed = 1_u32;
        let mut any = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for value in 0..20_000_u32 {
            let key = any(64);
            match any(16) {
                0..8 => {
                    late.insert(key, value);
                    map.insert(key, value);
                }
                8..12 => assert_eq!(late.remove(&key), map.remove(&key)),
                12..15 => {
                    assert_eq!(late.get(&key), map.get(&key));
                    assert_eq!(late.get_mut(&key), map.get_mut(&key));
                }
                _ => late.put_away(),
            }
            assert_eq!(late.is_empty(), map.is_empty());
        }
        assert_eq!(late.all(), &map);
        late.insert(1000, 0);
        late.clear();
        assert!(late.is_empty() && late.get(&1000).is_none());
    }

    #[test]
    fn a_few_entries_wait_and_no_more() {
        let mut late = DeferredMap::default();
        (0..100).for_each(|key| late.insert(key, ()));
        assert!(late.late.len() <= FEW && !late.late.is_empty());
        late.put_away();
        assert!(late.late.is_empty());
        assert_eq!(late.map.len(), 100);
    }
}
