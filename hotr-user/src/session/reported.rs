//! What inotify alone has reported since the state that a loss is compared with: it is not reported again as missed.
//!
//! In: reports, with the change time that the file had then. Out: of a difference to the former state, what no report
//! covered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use crate::ending;
use crate::source::difference::{Difference, Kind, nanos};
use crate::tree_key::TreeKey;
use hotr_events::{Change, FileId, FileType, Op};

/// How many names are remembered at least before the state is taken again.
const MANY: u64 = 65_536;
/// The same at most, however large the state is: each name takes some 300 bytes.
const MOST: u64 = 4 * MANY;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    There(Option<FileId>, Option<FileType>),
    Gone,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The file that a name was reported to lead to, or that it was reported to be gone.
    names: BTreeMap<TreeKey, Name>,
    /// Change time of a file, by device and inode, as of its last report.
    files: HashMap<(u64, u64), i64>,
}

impl Reported {
    /// Remembers a report; `ctime_ns` is the file's, looked up for it.
    pub(super) fn report(&mut self, change: &Change, ctime_ns: Option<i64>) {
        if let (Some(id), Some(ctime_ns)) = (change.id, ctime_ns) {
            self.files.insert((id.dev, id.ino), ctime_ns);
        }
        let is_dir = change.file_type == Some(FileType::Dir);
        let there = Name::There(change.id, change.file_type);
        match change.op {
            Op::Create => drop(self.names.insert(TreeKey::new(&change.path), there)),
            Op::Remove => self.leave(&change.path, None, is_dir),
            Op::Rename => {
                if let Some(old) = &change.old_path {
                    self.leave(old, Some(&change.path), is_dir);
                }
                self.names.insert(TreeKey::new(&change.path), there);
            }
            Op::Write | Op::Attrib => {}
        }
    }

    /// A name disappeared; what is below it has another one, or disappeared with it.
    fn leave(&mut self, old: &Path, new: Option<&Path>, is_dir: bool) {
        let key = TreeKey::new(old);
        if is_dir {
            let below = self.names.range((Bound::Excluded(&key), Bound::Unbounded));
            let below = below.map(|(name, _)| name.clone()).take_while(|name| name.is_in(&key));
            for below in below.collect::<Vec<_>>() {
                if let (Some(name), Some(new), Ok(rest)) =
                    (self.names.remove(&below), new, below.path().strip_prefix(old))
                {
                    self.names.insert(TreeKey::new(&crate::mounts::join(new, rest)), name);
                }
            }
        }
        self.names.insert(key, Name::Gone);
    }

    /// Whether so much is remembered that the state should be taken again.
    pub(super) fn is_long(&self, files: u64) -> bool {
        (self.names.len() + self.files.len()) as u64 > files.clamp(MANY, MOST)
    }

    /// What is left of the differences to the former state, and forgets everything: the state is a new one. Names that
    /// appeared and disappeared since are no difference; those reported to be there are looked for.
    pub(super) fn missed(&mut self, differences: Vec<Difference>) -> Vec<Difference> {
        // A renamed file that was changed as well is two differences, and the same one may be left.
        let mut told = HashSet::new();
        let mut missed: Vec<Difference> = (differences.into_iter())
            .take_while(|_| !ending::gives_up())
            .filter_map(|one| self.rest(one))
            .filter(|one| {
                let is_content = one.kind == Kind::Content;
                !matches!(one.kind, Kind::Content | Kind::Attrib)
                    || told.insert((one.path.clone(), is_content))
            })
            .collect();
        let ended: HashSet<&Path> = missed.iter().filter_map(ended).collect();
        let removed: Vec<Difference> = (self.names.iter())
            .take_while(|_| !ending::gives_up())
            .filter_map(|(key, name)| {
                let Name::There(id, file_type) = name else { return None };
                let path = key.path();
                is_gone(&path).then(|| removed(&path, *id, *file_type))
            })
            .filter(|gone| !gone.path.ancestors().any(|path| ended.contains(path)))
            .collect();
        missed.extend(removed);
        self.clear();
        missed
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.files.clear();
    }

    fn rest(&self, difference: Difference) -> Option<Difference> {
        let is_there = |path: &Path| self.names.get(&TreeKey::new(path)).map(|name| *name != Name::Gone);
        let is_told = match &difference.kind {
            Kind::Removed => {
                let told = difference.path.ancestors().find_map(is_there);
                return (told != Some(false)).then_some(difference);
            }
            Kind::Created => is_there(&difference.path) == Some(true),
            Kind::Renamed { old } => is_there(old) == Some(false) && is_there(&difference.path) == Some(true),
            Kind::Content | Kind::Attrib => true,
        };
        let Some(ctime_ns) = self.files.get(&(difference.dev, difference.ino)).filter(|_| is_told) else {
            return Some(difference);
        };
        if *ctime_ns >= difference.ctime_ns {
            return None;
        }
        if difference.file_type == Some(FileType::Dir) && !matches!(difference.kind, Kind::Attrib) {
            // A name in it appeared or disappeared, which is reported separately.
            return None;
        }
        // The rest came after the report.
        let found = statx(CWD, &difference.path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MTIME);
        let is_content = found.is_ok_and(|stat| nanos(stat.stx_mtime) > *ctime_ns);
        let kind = if is_content { Kind::Content } else { Kind::Attrib };
        Some(Difference { kind, ..difference })
    }
}

/// The name that disappeared by a difference, and everything below it.
fn ended(difference: &Difference) -> Option<&Path> {
    match &difference.kind {
        Kind::Removed => Some(&difference.path),
        Kind::Renamed { old } => Some(old),
        _ => None,
    }
}

fn is_gone(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    found.is_err_and(|errno| matches!(errno, Errno::NOENT | Errno::NOTDIR))
}

fn removed(path: &Path, id: Option<FileId>, file_type: Option<FileType>) -> Difference {
    let FileId { dev, ino, gen_ } = id.unwrap_or(FileId { dev: 0, ino: 0, gen_: 0 });
    let (kind, path) = (Kind::Removed, path.to_path_buf());
    Difference { kind, path, dev, ino, gen_, file_type, size: 0, ctime_ns: 0 }
}

#[cfg(test)]
mod tests;
