//! The files of a snapshot: one array of fixed-size nodes, names in an arena, found by (parent, name).

use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use rustix::fs::Statx;

use super::nanos;
use crate::event::FileType;
use crate::source::arena::{Arena, Name};
use crate::source::fsinfo::device;

/// A file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(pub(super) u32);

const NONE: Id = Id(u32::MAX);

/// What a snapshot knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    /// Birth time folded to 32 bits: tells a new file from an old one that had the same inode number.
    birth: u32,
    device: u16,
    mode: u16,
}

impl Meta {
    pub(super) fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub(super) fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(u32::from(self.mode))
    }

    pub(super) fn mode(&self) -> u16 {
        self.mode
    }
}

/// (device, inode, birth): equal for the same file in two snapshots.
pub(super) type Identity = (u64, u64, u32);

#[derive(Debug)]
struct Node {
    meta: Meta,
    parent: Id,
    name: Name,
    next: Id,
    first_child: Id,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    names: Arena,
    by_name: HashTable<Id>,
    devices: Vec<u64>,
    roots: Vec<(Id, PathBuf)>,
    hasher: RandomState,
}

impl Nodes {
    /// The attributes in compact form; `None` when there are more than 65,536 devices.
    pub(super) fn meta(&mut self, stat: &Statx) -> Option<Meta> {
        let device = device(stat);
        let index = self.devices.iter().position(|known| *known == device).unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        let birth = nanos(stat.stx_btime).cast_unsigned();
        Some(Meta {
            ino: stat.stx_ino,
            size: stat.stx_size,
            mtime: nanos(stat.stx_mtime),
            ctime: nanos(stat.stx_ctime),
            birth: ((birth >> 32) ^ (birth & 0xffff_ffff)) as u32,
            device: u16::try_from(index).ok()?,
            mode: stat.stx_mode,
        })
    }

    /// Adds a root.
    pub(super) fn add_root(&mut self, path: &Path, meta: Meta) -> Option<Id> {
        let id = self.allocate(NONE, b"", meta)?;
        self.roots.push((id, path.to_owned()));
        Some(id)
    }

    /// Adds a file to a directory; `None` when there is no room.
    pub(super) fn add(&mut self, parent: Id, name: &[u8], meta: Meta) -> Option<Id> {
        let id = self.allocate(parent, name, meta)?;
        let first = std::mem::replace(&mut self.nodes[parent.0 as usize].first_child, id);
        self.nodes[id.0 as usize].next = first;
        let hash = self.hasher.hash_one((parent, name));
        let Self { by_name, nodes, names, hasher, .. } = self;
        by_name.insert_unique(hash, id, |id| {
            let node = &nodes[id.0 as usize];
            hasher.hash_one((node.parent, names.get(node.name)))
        });
        Some(id)
    }

    fn allocate(&mut self, parent: Id, name: &[u8], meta: Meta) -> Option<Id> {
        let id = Id(u32::try_from(self.nodes.len()).ok().filter(|id| *id != u32::MAX)?);
        let name = self.names.push(name)?;
        self.nodes.push(Node { meta, parent, name, next: NONE, first_child: NONE });
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, id: Id) -> &Meta {
        &self.nodes[id.0 as usize].meta
    }

    pub(super) fn device(&self, id: Id) -> u64 {
        self.devices[usize::from(self.get(id).device)]
    }

    pub(super) fn identity(&self, id: Id) -> Identity {
        (self.device(id), self.get(id).ino, self.get(id).birth)
    }

    pub(super) fn name(&self, id: Id) -> &[u8] {
        self.names.get(self.nodes[id.0 as usize].name)
    }

    pub(super) fn parent(&self, id: Id) -> Option<Id> {
        Some(self.nodes[id.0 as usize].parent).filter(|parent| *parent != NONE)
    }

    pub(super) fn child(&self, parent: Id, name: &[u8]) -> Option<Id> {
        let hash = self.hasher.hash_one((parent, name));
        let is = |id: &Id| self.nodes[id.0 as usize].parent == parent && self.name(*id) == name;
        self.by_name.find(hash, is).copied()
    }

    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let step = |id: Id| Some(id).filter(|id| *id != NONE);
        std::iter::successors(step(self.nodes[id.0 as usize].first_child), move |id| {
            step(self.nodes[id.0 as usize].next)
        })
    }

    pub(super) fn roots(&self) -> &[(Id, PathBuf)] {
        &self.roots
    }

    /// The file a path leads to.
    pub(super) fn find(&self, path: &Path) -> Option<Id> {
        self.roots.iter().find_map(|(root, at)| {
            let rest = path.strip_prefix(at).ok()?;
            rest.components().try_fold(*root, |id, part| self.child(id, part.as_os_str().as_bytes()))
        })
    }

    /// Number of directories above a file, up to its root.
    pub(super) fn depth(&self, id: Id) -> usize {
        std::iter::successors(self.parent(id), |id| self.parent(*id)).count()
    }

    pub(super) fn path(&self, id: Id) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(parent) = self.parent(at) {
            names.push(self.name(at));
            at = parent;
        }
        let root = self.roots.iter().find(|(root, _)| *root == at);
        let mut bytes = root.map_or_else(Vec::new, |(_, path)| path.as_os_str().as_bytes().to_vec());
        for name in names.iter().rev() {
            if !bytes.ends_with(b"/") {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name);
        }
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    }
}
