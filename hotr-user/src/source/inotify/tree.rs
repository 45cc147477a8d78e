//! The watched directories: watch descriptor → node → parent, each name stored once.
//!
//! A node takes 40 bytes, its name, and an entry in two hash tables: about 100 bytes per directory, whatever the depth.
//! Paths are put together when an event needs one, so a renamed directory costs one node's update.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;

use crate::source::arena::{Arena, Name};

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId(u32);

const NONE: NodeId = NodeId(u32::MAX);
const NO_WATCH: i32 = -1;
/// Dead names are swept out when they take more than this, and more than half.
const SWEEP: usize = 64 * 1024;

/// Properties of a node.
pub(super) mod flag {
    /// Only names of file roots are of interest in this directory.
    pub(in super::super) const NAMES_ONLY: u8 = 1;
    /// The kernel said that the directory itself disappeared; its `IN_IGNORED` will follow.
    pub(in super::super) const GONE: u8 = 2;
    /// Some directory below has no watch because a limit was reached.
    pub(in super::super) const LIMITED: u8 = 4;
    /// Its name leads to another directory now, a later event will report where this one is.
    pub(super) const DETACHED: u8 = 8;
    /// Not a living node.
    pub(super) const FREE: u8 = 16;
    /// The directory where a filesystem is mounted.
    pub(in super::super) const MOUNTED: u8 = 32;
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    name: Name,
    wd: i32,
    first_child: NodeId,
    next: NodeId,
    previous: NodeId,
    since_ns: u64,
    flags: u8,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    names: Arena,
    living_names: usize,
    by_name: HashTable<NodeId>,
    by_wd: HashMap<i32, NodeId>,
    roots: Vec<(NodeId, PathBuf)>,
    detached: Vec<NodeId>,
    hasher: RandomState,
}

impl Tree {
    /// Adds the directory a root path leads to.
    pub(super) fn add_root(&mut self, path: &Path) -> Option<NodeId> {
        let id = self.allocate(NONE, b"")?;
        self.roots.push((id, path.to_owned()));
        Some(id)
    }

    /// Adds a directory that has no watch yet; `None` when there is no room for more.
    pub(super) fn add(&mut self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let id = self.allocate(parent, name)?;
        self.attach(id);
        Some(id)
    }

    fn allocate(&mut self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let name = self.store(name)?;
        let node = Node {
            parent,
            name,
            wd: NO_WATCH,
            first_child: NONE,
            next: NONE,
            previous: NONE,
            since_ns: 0,
            flags: 0,
        };
        if let Some(id) = self.free.pop() {
            self.nodes[id.0 as usize] = node;
            return Some(id);
        }
        let id = NodeId(u32::try_from(self.nodes.len()).ok().filter(|id| *id != u32::MAX)?);
        self.nodes.push(node);
        Some(id)
    }

    /// The watch of a directory, and the monotonic time since when it is there.
    pub(super) fn set_watch(&mut self, id: NodeId, wd: i32, since_ns: u64) {
        let node = &mut self.nodes[id.0 as usize];
        node.wd = wd;
        node.since_ns = since_ns;
        self.by_wd.insert(wd, id);
    }

    /// The directory of a watch descriptor.
    pub(super) fn by_wd(&self, wd: i32) -> Option<NodeId> {
        self.by_wd.get(&wd).copied()
    }

    /// The directory of this name in that directory.
    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hash(parent, name);
        self.by_name.find(hash, |id| self.is(*id, parent, name)).copied()
    }

    /// Whether a node is where its parent and name say.
    pub(super) fn is_at(&self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        !self.has(id, flag::DETACHED) && self.is(id, parent, name)
    }

    fn is(&self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        self.node(id).parent == parent && self.name(id) == name
    }

    /// Moves a directory to another place; a directory that was there is detached, not removed. `false` for a root,
    /// and for a place below itself.
    pub(super) fn relocate(&mut self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        if self.parent(id).is_none() || id == parent || self.is_below(parent, id) {
            return false;
        }
        if let Some(occupant) = self.child(parent, name) {
            self.detach(occupant);
        }
        self.detach(id);
        self.living_names -= Arena::cost(self.name(id));
        let Some(name) = self.store(name) else { return false };
        let node = &mut self.nodes[id.0 as usize];
        node.parent = parent;
        node.name = name;
        self.attach(id);
        self.sweep();
        true
    }

    fn attach(&mut self, id: NodeId) {
        let parent = self.node(id).parent;
        let first = self.node(parent).first_child;
        if first != NONE {
            self.nodes[first.0 as usize].previous = id;
        }
        let node = &mut self.nodes[id.0 as usize];
        node.next = first;
        node.previous = NONE;
        if node.flags & flag::DETACHED != 0 {
            node.flags &= !flag::DETACHED;
            self.detached.retain(|other| *other != id);
        }
        self.nodes[parent.0 as usize].first_child = id;
        let hash = self.hash(parent, self.name(id));
        let Self { by_name, nodes, names, hasher, .. } = self;
        by_name.insert_unique(hash, id, |id| {
            let node = &nodes[id.0 as usize];
            hasher.hash_one((node.parent, names.get(node.name)))
        });
    }

    /// Takes a directory from its name; it keeps its watch.
    pub(super) fn detach(&mut self, id: NodeId) {
        let Node { parent, next, previous, .. } = *self.node(id);
        if parent == NONE || self.has(id, flag::DETACHED) {
            return;
        }
        let hash = self.hash(parent, self.name(id));
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        if previous == NONE {
            self.nodes[parent.0 as usize].first_child = next;
        } else {
            self.nodes[previous.0 as usize].next = next;
        }
        if next != NONE {
            self.nodes[next.0 as usize].previous = previous;
        }
        self.set(id, flag::DETACHED);
        self.detached.push(id);
    }

    /// Removes a directory and all below it, and gives their watch descriptors to `watches`.
    pub(super) fn remove(&mut self, id: NodeId, watches: &mut Vec<i32>) {
        self.detach(id);
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let mut child = self.node(id).first_child;
            while child != NONE {
                waiting.push(child);
                child = self.node(child).next;
            }
            self.release(id, watches);
            if waiting.is_empty() {
                // Detached directories are in no list of children; they disappear with the parent they had.
                let orphan = self.detached.iter().copied().find(|id| !self.is_living(self.node(*id).parent));
                waiting.extend(orphan);
            }
        }
        self.sweep();
    }

    fn release(&mut self, id: NodeId, watches: &mut Vec<i32>) {
        let Node { parent, wd, .. } = *self.node(id);
        if wd != NO_WATCH {
            self.by_wd.remove(&wd);
            watches.push(wd);
        }
        if parent == NONE {
            self.roots.retain(|(root, _)| *root != id);
        } else if self.has(id, flag::DETACHED) {
            self.detached.retain(|other| *other != id);
        } else {
            let hash = self.hash(parent, self.name(id));
            if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id) {
                entry.remove();
            }
        }
        self.living_names -= Arena::cost(self.name(id));
        self.nodes[id.0 as usize].flags = flag::FREE;
        self.free.push(id);
    }

    /// Number of watches.
    pub(super) fn watches(&self) -> usize {
        self.by_wd.len()
    }

    /// The time since when a directory is watched; `None` without a watch.
    pub(super) fn watched_since(&self, id: NodeId) -> Option<u64> {
        let node = self.node(id);
        (node.wd != NO_WATCH && node.flags & flag::GONE == 0).then_some(node.since_ns)
    }

    /// Its watch descriptor.
    pub(super) fn wd(&self, id: NodeId) -> Option<i32> {
        Some(self.node(id).wd).filter(|wd| *wd != NO_WATCH)
    }

    /// The parent directory; a root has none.
    pub(super) fn parent(&self, id: NodeId) -> Option<NodeId> {
        Some(self.node(id).parent).filter(|parent| *parent != NONE)
    }

    /// The directory where the filesystem of a directory is mounted; the root, where that is above it.
    pub(super) fn mount_point(&self, id: NodeId) -> NodeId {
        let mut at = id;
        while let Some(parent) = self.parent(at).filter(|_| !self.has(at, flag::MOUNTED)) {
            at = parent;
        }
        at
    }

    /// The last component of its path (empty for a root).
    pub(super) fn name(&self, id: NodeId) -> &[u8] {
        self.names.get(self.node(id).name)
    }

    /// Whether `id` lies below `ancestor`.
    pub(super) fn is_below(&self, id: NodeId, ancestor: NodeId) -> bool {
        let mut at = id;
        while let Some(parent) = self.parent(at) {
            if parent == ancestor {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether a node has a property.
    pub(super) fn has(&self, id: NodeId, flag: u8) -> bool {
        self.node(id).flags & flag != 0
    }

    /// Gives a node a property.
    pub(super) fn set(&mut self, id: NodeId, flag: u8) {
        self.nodes[id.0 as usize].flags |= flag;
    }

    /// Takes a property from a node.
    pub(super) fn unset(&mut self, id: NodeId, flag: u8) {
        self.nodes[id.0 as usize].flags &= !flag;
    }

    /// Whether a node is there still (an id may outlive its node, and then belong to another).
    pub(super) fn is_living(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).is_some_and(|node| node.flags & flag::FREE == 0)
    }

    /// The nodes of the root directories and their paths.
    pub(super) fn roots(&self) -> &[(NodeId, PathBuf)] {
        &self.roots
    }

    /// Bytes of a directory's path, without those of its root's.
    pub(super) fn path_len(&self, id: NodeId) -> usize {
        self.below_root(id).1
    }

    /// The root of a directory, and the bytes of the path from there.
    fn below_root(&self, id: NodeId) -> (NodeId, usize) {
        let (mut at, mut len) = (id, 0);
        while let Some(parent) = self.parent(at) {
            len += self.name(at).len() + 1;
            at = parent;
        }
        (at, len)
    }

    /// The whole path of a directory, or of a name in it.
    pub(super) fn path(&self, id: NodeId, name: Option<&[u8]>) -> PathBuf {
        let (at, len) = self.below_root(id);
        let len = len + name.map_or(0, |name| name.len() + 1);
        let root = self.roots.iter().find(|(root, _)| *root == at);
        let root = root.map_or(&b""[..], |(_, path)| path.as_os_str().as_bytes());
        let root = root.strip_suffix(b"/").unwrap_or(root);
        let mut bytes = vec![b'/'; (root.len() + len).max(1)];
        let mut end = bytes.len();
        let mut put = |part: &[u8]| {
            bytes[end - part.len()..end].copy_from_slice(part);
            end = (end - part.len()).saturating_sub(1);
        };
        if let Some(name) = name {
            put(name);
        }
        let mut at = id;
        while let Some(parent) = self.parent(at) {
            put(self.name(at));
            at = parent;
        }
        bytes[..root.len()].copy_from_slice(root);
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn store(&mut self, name: &[u8]) -> Option<Name> {
        let stored = self.names.push(name)?;
        self.living_names += Arena::cost(name);
        Some(stored)
    }

    /// Copies the living names over when the dead ones take more room.
    fn sweep(&mut self) {
        if self.names.len() < SWEEP || self.names.len() / 2 < self.living_names {
            return;
        }
        let old = std::mem::take(&mut self.names);
        for node in self.nodes.iter_mut().filter(|node| node.flags & flag::FREE == 0) {
            node.name = self.names.push(old.get(node.name)).expect("a part of what had room has room");
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
