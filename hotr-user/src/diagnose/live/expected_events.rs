//! The events that a change is to make in the watches of an instance.
//!
//! In: a change, and an instance with its watches. Out: [`Key`]s, by which the events of stand-ins and those that a program
//! read are recognised.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::instance::{Instance, Watch};
use super::verdict::ReportedChange;
use crate::diagnose::view::bits;
use hotr_events::Op;

/// The event that a change is to make in a watch.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) wd: i32,
    pub(super) kinds: u32,
    pub(super) name: Box<[u8]>,
    /// The watch's inode.
    pub(super) ino: u64,
}

impl Key {
    /// Whether an event is that one.
    pub(super) fn is(&self, wd: i32, mask: u32, name: &[u8]) -> bool {
        self.wd == wd && self.kinds & mask != 0 && *self.name == *name
    }
}

/// The events that a change is to make in an instance, the most telling first.
pub(super) fn keys(made: &ReportedChange, instance: &Instance) -> Vec<Key> {
    let change = &made.change;
    let kinds = match change.op {
        Op::Create => bits::CREATE,
        Op::Write => bits::MODIFY,
        Op::Attrib => bits::ATTRIB | bits::MODIFY | bits::ACCESS,
        Op::Rename => bits::MOVED_TO,
        Op::Remove => bits::DELETE,
    };
    let itself = match change.op {
        Op::Rename => bits::MOVE_SELF,
        Op::Remove => bits::DELETE_SELF | bits::ATTRIB,
        _ => kinds,
    };
    let name = |path: Option<&Path>| -> Box<[u8]> {
        path.and_then(Path::file_name).unwrap_or(OsStr::new("")).as_bytes().into()
    };
    let (old, dir) = (change.old_path.as_deref(), change.path.parent());
    let mut keys = Vec::new();
    let was_there =
        |watch: &&Watch| watch.since < made.made_ns && watch.gone.is_none_or(|gone| gone > made.made_ns);
    for watch in instance.watches.iter().filter(was_there) {
        let at = watch.path.as_deref();
        let mut key = |kinds: u32, name: Box<[u8]>| {
            if watch.mask & kinds != 0 {
                keys.push(Key { wd: watch.wd, kinds: watch.mask & kinds, name, ino: watch.ino });
            }
        };
        if watch.is_dir && at.is_some() && at == dir {
            key(kinds, name(Some(&change.path)));
        }
        if watch.is_dir && at.is_some() && at == old.and_then(Path::parent) {
            key(bits::MOVED_FROM, name(old));
        }
        if change.id.is_some_and(|id| id.ino == watch.ino) {
            key(itself, [].into());
        } else if at == Some(&*change.path) && change.op == Op::Rename {
            // The file that the rename replaces.
            key(bits::ATTRIB | bits::DELETE_SELF, [].into());
        }
    }
    let is_new = |key: &Key| key.kinds & (bits::MOVED_FROM | bits::ATTRIB | bits::DELETE_SELF) == 0;
    keys.sort_by_key(|key| !is_new(key));
    keys
}
