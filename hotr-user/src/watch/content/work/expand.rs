//! Paths of a batch that no channel reported, because they came with a directory or have another name.
//!
//! In: directories and names of a batch. Out: the files they stand for.

use std::collections::HashSet;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat, statat};

use super::Work;
use crate::beneath::Dir;
use crate::pipeline::confirm::State;
use crate::watch::link_targets::Found;
use crate::watch::pending::Pending;

/// Directories that are read for one batch: what is known below them is looked for at once.
const DIRS: usize = if cfg!(test) { 4 } else { 4096 };

impl Work {
    /// A name that is left out may be a further link of a wanted file, which must be watched from now on.
    pub(super) fn expand_links(&self, pending: &mut Pending) {
        let inodes: HashSet<u64> = std::mem::take(&mut pending.left_out)
            .iter()
            .filter_map(|path| self.stat(path))
            .filter(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1
            })
            .map(|stat| stat.st_ino)
            .collect();
        if inodes.is_empty() {
            return;
        }
        for (path, state) in self.confirmer.states() {
            if inodes.iter().any(|ino| state.is_inode(*ino)) {
                pending.touched.entry(path).or_default();
            }
        }
    }

    /// Whether a name is of a directory, or was when its files were last read.
    pub(super) fn is_or_was_dir(&self, path: &Path) -> bool {
        let is_dir = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.stat(path).is_some_and(is_dir) || self.confirmer.has_below(path)
    }

    /// What is at a path in the tree.
    fn stat(&self, path: &Path) -> Option<Stat> {
        let (dir, name) = self.confirmer.roots().spot(path).ok()?;
        statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// A directory that appeared or disappeared brought or took its files, without reports of them. With `most` names in the
    /// batch the directories that are left stay in it, for the next; at least one is read.
    pub(super) fn expand_dirs(&mut self, pending: &mut Pending, most: usize) {
        let mut dirs = std::mem::take(&mut pending.dirs);
        let mut perhaps = std::mem::take(&mut pending.perhaps);
        perhaps.retain(|path| self.is_or_was_dir(path));
        dirs.append(&mut perhaps);
        let recursive = self.options.trace.recursive;
        if !recursive {
            dirs.retain(|dir| self.options.trace.paths.contains(dir));
        }
        dirs.sort_unstable();
        dirs.dedup_by(|below, above| below.starts_with(above));
        if dirs.is_empty() {
            return;
        }
        if pending.touched.len() >= most {
            pending.dirs = dirs;
            return;
        }
        if most < usize::MAX {
            pending.dirs = dirs.split_off(dirs.len().min(DIRS));
        }
        for path in self.confirmer.below(&dirs) {
            pending.touched.entry(path).or_default();
        }
        let mut is_first = true;
        while let Some(dir) = dirs.pop() {
            if pending.touched.len() >= most && !is_first {
                pending.dirs.push(dir);
                pending.dirs.append(&mut dirs);
                return;
            }
            is_first = false;
            // A link that took the name is followed elsewhere (`behind`), unless it was named.
            let names = self.confirmer.roots().dir(&dir).map_err(std::io::Error::from).and_then(Dir::names);
            for (name, kind) in names.into_iter().flatten().flatten() {
                let (path, is_dir) = (dir.join(name), kind == FileType::Directory);
                if kind == FileType::Symlink && self.filter.wants(&path, true) {
                    pending.behind = true;
                    pending.links.push(path.clone());
                }
                if !self.filter.wants(&path, is_dir) {
                    continue;
                }
                if is_dir {
                    if recursive {
                        dirs.push(path);
                    }
                } else {
                    pending.touched.entry(path).or_default();
                }
            }
        }
    }

    /// A link took the place of a directory, or the reverse: what was known of a file by that path is compared with what has
    /// the path now. True: the path is behind a link from now on.
    pub(super) fn changes_hands(&mut self, path: &Path, state: &State, found: Option<&Found>) -> bool {
        if *state != State::Absent {
            if let Some(before) = self.behind.give(path) {
                self.confirmer.learn(path, before);
            }
            return false;
        }
        let is_behind = found.is_some_and(|found| found.has(path));
        let inside = found.and_then(|found| found.inside(path));
        // What is in the tree under another path is reported by that.
        let is_inside =
            inside.is_some_and(|path| self.confirmer.look(&path, false, None, &self.stop).is_file_or_link());
        if !is_behind && !is_inside {
            return false;
        }
        if let Some(before) = self.confirmer.forget(path).filter(|_| is_behind) {
            self.behind.adopt(path, before);
        }
        true
    }
}
