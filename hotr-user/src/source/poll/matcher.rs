//! Known names, found again in a listing.
//!
//! In: a directory's records and the names as they are listed. Out: the slot that a name has had.

use std::collections::HashMap;
use std::ffi::CStr;

use super::tree::Body;

/// A slot and where its name is.
type NameSlot = (u32, u32);

/// Finds known names in the order in which a directory lists them, which is nearly always the order of before.
pub(super) struct Matcher {
    pub(super) met: Vec<bool>,
    next: (u32, u32),
    index: Option<HashMap<Box<[u8]>, NameSlot>>,
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
        let index = self.index.get_or_insert_with(|| {
            body.names().map(|(slot, at, name)| (name.to_bytes().into(), (slot, at))).collect()
        });
        let (slot, at) = *index.get(name.to_bytes())?;
        self.met[slot as usize] = true;
        self.next = (slot + 1, at + name.count_bytes() as u32 + 1);
        Some(slot)
    }
}
