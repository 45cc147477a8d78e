//! Known names, found again in a listing.
//!
//! In: a directory's records and the names as they are listed. Out: the slot that a name has had.

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::tree::Body;

/// A slot and where its name is.
type NameSlot = (u32, u32);

/// Finds known names in the order in which a directory lists them, which is nearly always the order of before.
pub(super) struct Matcher {
    pub(super) met: Vec<bool>,
    next: (u32, u32),
    index: Option<Index>,
}

/// All known names. They stay where they are: a directory may have a million.
struct Index {
    slots: HashTable<NameSlot>,
    hasher: RandomState,
}

impl Index {
    fn new(body: &Body) -> Self {
        let mut index = Self { slots: HashTable::with_capacity(body.len()), hasher: RandomState::new() };
        for (slot, at, name) in body.names() {
            let hash = index.hasher.hash_one(name);
            let hasher = &index.hasher;
            index.slots.insert_unique(hash, (slot, at), |(_, at)| hasher.hash_one(body.name(*at)));
        }
        index
    }

    fn get(&self, body: &Body, name: &CStr) -> Option<NameSlot> {
        self.slots.find(self.hasher.hash_one(name), |(_, at)| body.name(*at) == name).copied()
    }
}

impl Matcher {
    pub(super) fn new(body: &Body) -> Self {
        Self { met: vec![false; body.len()], next: (0, 0), index: None }
    }

    pub(super) fn find(&mut self, body: &Body, name: &CStr) -> Option<u32> {
        let (slot, at) = self.next;
        if (slot as usize) < body.len() && body.name(at) == name {
            self.next = (slot + 1, at + name.count_bytes() as u32 + 1);
            self.met[slot as usize] = true;
            return Some(slot);
        }
        let (slot, at) = self.index.get_or_insert_with(|| Index::new(body)).get(body, name)?;
        self.met[slot as usize] = true;
        self.next = (slot + 1, at + name.count_bytes() as u32 + 1);
        Some(slot)
    }
}
