//! File names, each stored once and end to end: a name costs its length, two bytes, and at most three of padding.
//!
//! In: names as bytes. Out: four-byte handles. A tree of a hundred million files fits, because a handle counts in
//! units of four bytes and so reaches 16 GiB.

/// Handle of a stored name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name(u32);

/// Storage of names; single names are never freed, the owner copies the living ones over when too much is dead.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
}

const UNIT: usize = 4;
const PREFIX: usize = 2;

impl Arena {
    /// Stores a name; `None` when the arena is full (16 GiB) or the name is longer than 65,535 bytes.
    pub(crate) fn push(&mut self, name: &[u8]) -> Option<Name> {
        let handle = Name(u32::try_from(self.bytes.len() / UNIT).ok()?);
        let len = u16::try_from(name.len()).ok()?;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(name);
        let padded = self.bytes.len().next_multiple_of(UNIT);
        self.bytes.resize(padded, 0);
        Some(handle)
    }

    /// The stored bytes.
    pub(crate) fn get(&self, name: Name) -> &[u8] {
        let at = name.0 as usize * UNIT;
        let len = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        &self.bytes[at + PREFIX..at + PREFIX + usize::from(len)]
    }

    /// Bytes in use, dead names included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What one name takes up here.
    pub(crate) fn cost(name: &[u8]) -> usize {
        (PREFIX + name.len()).next_multiple_of(UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;

    #[test]
    fn names_come_back_as_they_went_in() {
        let mut arena = Arena::default();
        let long = vec![b'x'; 255];
        let names: [&[u8]; 5] = [b"", b"a", b"\xff\n\"", b"four", &long];
        let handles = names.map(|name| arena.push(name).expect("there is room"));
        for (name, handle) in names.iter().zip(handles) {
            assert_eq!(arena.get(handle), *name);
        }
        assert_eq!(arena.len(), names.iter().map(|name| Arena::cost(name)).sum::<usize>());
    }
}
