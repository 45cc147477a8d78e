//! States by path, the least recently used first to go, in little room: about 100 bytes and its name for a file.
//!
//! In: paths and states. Out: states, and paths put together again. A path is kept as its folder, which all its files
//! share, and its name; names lie one after the other, and are compacted when half of them are unused.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;

use super::State;

/// Paths for which there is room: places of names, each of at most 255 bytes, are 32 bits.
pub(super) const MOST: usize = 1 << 23;
/// No slot.
const NONE: u32 = u32::MAX;
/// Fewer bytes of unused names are left where they are.
const FEW: usize = 64 * 1024;

/// A path and its state.
#[derive(Debug)]
struct Slot {
    /// None when the slot is free.
    state: Option<State>,
    folder: u32,
    name_at: u32,
    newer: u32,
    older: u32,
    name_len: u16,
}
const _: () = assert!(size_of::<Slot>() == 96);

/// What paths begin with, the slash included.
#[derive(Debug)]
struct Folder {
    path: Box<[u8]>,
    files: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_path: HashTable<u32>,
    folders: Vec<Folder>,
    free_folders: Vec<u32>,
    by_folder: HashTable<u32>,
    names: Vec<u8>,
    /// Bytes of `names` that are unused.
    dead: usize,
    newest: u32,
    oldest: u32,
    hasher: RandomState,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_path: HashTable::new(),
            folders: Vec::new(),
            free_folders: Vec::new(),
            by_folder: HashTable::new(),
            names: Vec::new(),
            dead: 0,
            newest: NONE,
            oldest: NONE,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// The state of a path, which is not used by that.
    pub(super) fn peek(&self, path: &Path) -> Option<&State> {
        self.slots[self.find(path)? as usize].state.as_ref()
    }

    /// The same, and it is the last used from now on.
    pub(super) fn get(&mut self, path: &Path) -> Option<&State> {
        let at = self.find(path)?;
        self.unlink(at);
        self.link(at);
        self.slots[at as usize].state.as_ref()
    }

    /// Sets a state, which is the last used from now on.
    pub(super) fn put(&mut self, path: &Path, state: State) {
        if let Some(at) = self.find(path) {
            self.unlink(at);
            self.link(at);
            self.slots[at as usize].state = Some(state);
            return;
        }
        let (folder, name) = split(path);
        let (folder, name_at) = (self.folder(folder), self.names.len() as u32);
        self.names.extend_from_slice(name);
        let slot = Slot {
            state: Some(state),
            folder,
            name_at,
            newer: NONE,
            older: NONE,
            name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
        };
        let hash = self.hash(folder, name);
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(at as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.link(at);
        let Self { by_path, slots, names, hasher, .. } = self;
        by_path.insert_unique(hash, at, |at| {
            let slot = &slots[*at as usize];
            hash_of(hasher, slot.folder, slot.name(names))
        });
    }

    /// Forgets a path; what its state was.
    pub(super) fn pop(&mut self, path: &Path) -> Option<State> {
        let at = self.find(path)?;
        self.remove(at)
    }

    /// Forgets the least recently used.
    pub(super) fn pop_oldest(&mut self) {
        if self.oldest != NONE {
            drop(self.remove(self.oldest));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Paths and states, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PathBuf, &State)> {
        self.slots.iter().filter_map(|slot| Some((self.path(slot), slot.state.as_ref()?)))
    }

    /// These paths themselves, as far as they are known, and those below them: all slots are read once.
    pub(super) fn below(&self, dirs: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
        let tops: HashSet<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        let is_inside = |folder: &Folder| {
            let path = Path::new(OsStr::from_bytes(&folder.path));
            path.ancestors().any(|above| tops.contains(above))
        };
        let inside: Vec<bool> = self.folders.iter().map(is_inside).collect();
        let itself = dirs.iter().filter(|dir| self.find(dir).is_some()).cloned();
        let used = self.slots.iter().filter(|slot| slot.state.is_some());
        let below = used.filter(move |slot| inside[slot.folder as usize]);
        itself.chain(below.map(|slot| self.path(slot)))
    }

    /// Whether there is a path below this one.
    pub(super) fn has_below(&self, dir: &Path) -> bool {
        let dir = dir.as_os_str().as_bytes();
        let is_below = |folder: &Folder| {
            folder.files > 0 && folder.path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        self.folders.iter().any(is_below)
    }

    fn path(&self, slot: &Slot) -> PathBuf {
        let folder = &self.folders[slot.folder as usize].path;
        OsString::from_vec([folder, slot.name(&self.names)].concat()).into()
    }

    fn hash(&self, folder: u32, name: &[u8]) -> u64 {
        hash_of(&self.hasher, folder, name)
    }

    fn find(&self, path: &Path) -> Option<u32> {
        let (folder, name) = split(path);
        let folder = self.find_folder(folder)?;
        let is_it = |at: &u32| {
            let slot = &self.slots[*at as usize];
            slot.folder == folder && slot.name(&self.names) == name
        };
        self.by_path.find(self.hash(folder, name), is_it).copied()
    }

    fn find_folder(&self, path: &[u8]) -> Option<u32> {
        let is_it = |at: &u32| *self.folders[*at as usize].path == *path;
        self.by_folder.find(self.hasher.hash_one(path), is_it).copied()
    }

    /// The number of a folder, which has one more file now.
    fn folder(&mut self, path: &[u8]) -> u32 {
        if let Some(at) = self.find_folder(path) {
            self.folders[at as usize].files += 1;
            return at;
        }
        let folder = Folder { path: path.into(), files: 1 };
        let at = self.free_folders.pop().unwrap_or(self.folders.len() as u32);
        match self.folders.get_mut(at as usize) {
            Some(free) => *free = folder,
            None => self.folders.push(folder),
        }
        let Self { by_folder, folders, hasher, .. } = self;
        by_folder
            .insert_unique(hasher.hash_one(path), at, |at| hasher.hash_one(&*folders[*at as usize].path));
        at
    }

    fn leave(&mut self, at: u32) {
        let folder = &mut self.folders[at as usize];
        folder.files -= 1;
        if folder.files > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*folder.path);
        folder.path = Box::default();
        if let Ok(entry) = self.by_folder.find_entry(hash, |one| *one == at) {
            entry.remove();
        }
        self.free_folders.push(at);
    }

    fn remove(&mut self, at: u32) -> Option<State> {
        self.unlink(at);
        let slot = &self.slots[at as usize];
        let (folder, length) = (slot.folder, slot.name_len);
        let hash = self.hash(folder, slot.name(&self.names));
        if let Ok(entry) = self.by_path.find_entry(hash, |one| *one == at) {
            entry.remove();
        }
        let state = self.slots[at as usize].state.take();
        self.free.push(at);
        self.leave(folder);
        self.dead += usize::from(length);
        if self.dead > FEW && self.dead > self.names.len() / 2 {
            self.close_up();
        }
        state
    }

    /// Leaves out unused names.
    fn close_up(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.dead);
        for slot in self.slots.iter_mut().filter(|slot| slot.state.is_some()) {
            let name_at = names.len() as u32;
            names.extend_from_slice(slot.name(&self.names));
            slot.name_at = name_at;
        }
        self.names = names;
        self.dead = 0;
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        let slot = &mut self.slots[at as usize];
        (slot.older, slot.newer) = (before, NONE);
        match self.slots.get_mut(before as usize) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, .. } = self.slots[at as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}

impl Slot {
    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        &names[self.name_at as usize..][..usize::from(self.name_len)]
    }
}

fn hash_of(hasher: &RandomState, folder: u32, name: &[u8]) -> u64 {
    hasher.hash_one((folder, name))
}

/// Folder, with its slash, and name; what is too long for a name is counted to the folder.
fn split(path: &Path) -> (&[u8], &[u8]) {
    let path = path.as_os_str().as_bytes();
    let slash = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    path.split_at(slash.max(path.len().saturating_sub(usize::from(u16::MAX))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn link(text: &str) -> State {
        State::Link(text.into())
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut store = Store::new();
        for name in ["/d/a", "/d/b", "/e/c", "relative", "/"] {
            store.put(Path::new(name), link(name));
        }
        assert_eq!(store.get(Path::new("/d/a")), Some(&link("/d/a")));
        assert_eq!(store.peek(Path::new("/d/b")), Some(&link("/d/b")));
        store.put(Path::new("/e/c"), State::Absent);
        for gone in ["/d/b", "relative", "/", "/d/a", "/e/c"] {
            assert!(store.peek(Path::new(gone)).is_some());
            store.pop_oldest();
            assert_eq!(store.peek(Path::new(gone)), None, "{gone}");
        }
        store.pop_oldest();
        assert_eq!((store.len(), store.by_folder.len()), (0, 0));
    }

    #[test]
    fn below_is_by_whole_names() {
        let mut store = Store::new();
        for name in ["/d", "/d/a", "/d/e/b", "/de", "/de/a"] {
            store.put(Path::new(name), link(name));
        }
        let below = |dirs: &[&str]| {
            let dirs: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
            let mut below: Vec<PathBuf> = store.below(&dirs).collect();
            below.sort();
            below
        };
        assert_eq!(below(&["/d"]), ["/d", "/d/a", "/d/e/b"].map(PathBuf::from));
        assert_eq!(below(&["/d/e"]), ["/d/e/b"].map(PathBuf::from));
        assert_eq!(below(&["/d/e/"]), ["/d/e/b"].map(PathBuf::from));
        assert_eq!(below(&["/d/e", "/de"]), ["/d/e/b", "/de", "/de/a"].map(PathBuf::from));
        assert_eq!(below(&["/"]).len(), 5);
        let has = ["/d", "/d/e", "/d/a", "/de", "/e"].map(|path| store.has_below(Path::new(path)));
        assert_eq!(has, [true, true, false, true, false]);
        store.pop(Path::new("/de/a"));
        assert!(!store.has_below(Path::new("/de")), "none is left");
    }

    #[test]
    fn what_is_put_and_forgotten_many_times_is_as_in_a_map() {
        let (mut store, mut model) = (Store::new(), BTreeMap::new());
        for round in 0_u32..60_000 {
            let number = round.wrapping_mul(2_654_435_761) >> 18;
            let path = PathBuf::from(format!("/folder-{}/a-long-name-of-{number}", number % 97));
            if round % 3 == 0 {
                assert_eq!(store.pop(&path), model.remove(&path));
            } else {
                let state = link(&round.to_string());
                store.put(&path, state.clone());
                model.insert(path, state);
            }
        }
        assert_eq!(store.len(), model.len());
        let all: BTreeMap<PathBuf, State> = store.iter().map(|(path, state)| (path, state.clone())).collect();
        assert_eq!(all, model);
        let live: usize = model.keys().map(|path| path.file_name().map_or(0, |name| name.len())).sum();
        assert!(store.names.len() <= 2 * live + FEW, "names of nobody are given back");
        store.clear();
        assert_eq!(store.len(), 0);
    }
}
