//! Which changes the user requested: by operation, writer, path, and whether a channel missed them.
//!
//! In: a change and the root it belongs to. Out: keep it or not. It is the last word on exclusion: sources only
//! prune whole directories to save work.

use std::ffi::OsString;
use std::path::Path;

use globset::GlobSet;

use super::chosen_names::is_chosen;
use crate::options::{Group, TraceOptions};
use crate::procinfo::cgroup;
use hotr_events::{Change, FileType, Op};

/// The user's choice, ready to be asked.
#[derive(Clone, Debug)]
pub struct Filter {
    ops: Vec<Op>,
    pids: Vec<u32>,
    comms: Vec<Vec<u8>>,
    uids: Vec<u32>,
    groups: Vec<Group>,
    missed: bool,
    exts: Vec<OsString>,
    only: Option<GlobSet>,
    exclude: GlobSet,
    recursive: bool,
}

impl Filter {
    /// From the options of a run.
    pub fn new(options: &TraceOptions) -> Self {
        Self {
            ops: options.ops.clone(),
            pids: options.pids.clone(),
            comms: options.comms.clone(),
            uids: options.uids.clone(),
            groups: options.groups.clone(),
            missed: options.missed,
            exts: options.exts.clone(),
            only: options.only.clone(),
            exclude: options.exclude.clone(),
            recursive: options.recursive,
        }
    }

    /// Whether to report a change below `root`.
    ///
    /// A rename is kept when either of its names would be. A change whose writer is unknown is not kept when the user
    /// chose certain writers.
    pub fn keep(&self, change: &Change, root: &Path) -> bool {
        let by_op = self.ops.is_empty() || self.ops.contains(&change.op);
        let by_miss = !self.missed || !change.missed_by.is_empty();
        by_op && by_miss && self.keep_actor(change) && {
            let mut names = std::iter::once(&change.path).chain(&change.old_path);
            names.any(|path| self.keep_path(change, path, root))
        }
    }

    fn keep_actor(&self, change: &Change) -> bool {
        if self.pids.is_empty() && self.comms.is_empty() && self.uids.is_empty() && self.groups.is_empty() {
            return true;
        }
        change.actor.as_ref().is_some_and(|actor| {
            (self.pids.is_empty() || self.pids.contains(&actor.pid))
                && (self.comms.is_empty() || self.comms.contains(&actor.comm))
                && (self.uids.is_empty() || self.uids.contains(&actor.uid))
                && (self.groups.is_empty()
                    || actor
                        .cgroup
                        .as_deref()
                        .is_some_and(|path| self.groups.iter().any(|one| has(one, path))))
        })
    }

    /// The root itself is always kept; below it, neither the path nor a directory above it may be excluded.
    fn keep_path(&self, change: &Change, path: &Path, root: &Path) -> bool {
        let Ok(relative) = path.strip_prefix(root) else { return false };
        let depth = relative.components().count();
        if !self.recursive && depth > 1 || depth > 0 && !self.keep_name(change, relative) {
            return false;
        }
        self.exclude.is_empty() || !relative.ancestors().take(depth).any(|part| self.exclude.is_match(part))
    }

    /// Extensions are of files. A directory that is renamed takes its files along, whatever they are called.
    fn keep_name(&self, change: &Change, relative: &Path) -> bool {
        if change.file_type != Some(FileType::Dir) {
            return is_chosen(&self.exts, self.only.as_ref(), relative);
        }
        let is_moved = || change.detail.iter().any(|word| matches!(word.as_ref(), "moved-in" | "moved-out"));
        self.exts.is_empty() && self.only.is_none()
            || change.op == Op::Rename
            || is_moved()
            || self.only.as_ref().is_some_and(|only| only.is_match(relative))
    }
}

/// Whether the processes of a cgroup belong to what was named.
fn has(group: &Group, path: &str) -> bool {
    let mut names = cgroup::names(path);
    match group {
        Group::Unit(unit) => names.any(|name| cgroup::is_of_unit(name, unit)),
        Group::Cgroup(wanted) => cgroup::is_in(path, wanted),
        Group::Container(id) => {
            names.any(|name| cgroup::container_id(name).is_some_and(|whole| whole.starts_with(id.as_str())))
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
