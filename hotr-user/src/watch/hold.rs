//! Why a batch is held: git is changing the working tree, or a file is still open for writing.
//!
//! In: the paths of a batch. Out: what holds it, if anything.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pipeline::confirm::writers;

/// Paths of a batch that are asked about; a larger batch is a checkout or a copy, and waits by its size.
const ASKED: usize = 512;

/// What holds a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// git holds this lock for as long as it changes the working tree.
    Git(PathBuf),
    /// git was done with the working tree, and wrote this index, after the channels were last read: what it changed at
    /// the end may not be told yet.
    Index(PathBuf),
    /// This file is open for writing.
    Writer(PathBuf),
}

impl Hold {
    /// What holds a batch of these paths now. All changes before `read_ns`, an inode time, have been told.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path> + Clone, read_ns: i64) -> Option<Self> {
        let asked = paths.take(ASKED);
        git(asked.clone(), read_ns).or_else(|| {
            asked
                .into_iter()
                .find(|path| writers::is_being_written(path))
                .map(|path| Self::Writer(path.to_owned()))
        })
    }

    /// It lasts longer than the user wants to wait.
    pub(super) fn overdue(&self, limit: &str) -> String {
        match self {
            Self::Git(lock) => format!(
                "{} is still there after {limit}: files taken as they are; remove it if no git runs",
                lock.display()
            ),
            Self::Index(index) => {
                format!(
                    "{} has changed again and again for {limit}: files taken as they are",
                    index.display()
                )
            }
            Self::Writer(path) => {
                format!("{} is still open for writing after {limit}: taken as it is", path.display())
            }
        }
    }
}

/// What git does in a repository that holds one of the paths, at any level above it.
fn git<'a>(paths: impl Iterator<Item = &'a Path>, read_ns: i64) -> Option<Hold> {
    let mut seen = HashSet::new();
    paths.flat_map(|path| path.ancestors().skip(1)).filter(|dir| seen.insert(*dir)).find_map(|dir| {
        let state = git_dir(&dir.join(".git"))?;
        let (lock, index) = (state.join("index.lock"), state.join("index"));
        // In this order: git renames the one to the other.
        if lock.exists() {
            return Some(Hold::Git(lock));
        }
        is_between(&index, read_ns, &SystemTime::now()).then_some(Hold::Index(index))
    })
}

/// Whether a file was changed since an inode time, and not in the future: that is what a clock left behind which was set
/// back.
fn is_between(path: &Path, since_ns: i64, now: &SystemTime) -> bool {
    let Ok(data) = path.symlink_metadata() else { return false };
    let changed_ns = data.ctime().saturating_mul(1_000_000_000).saturating_add(data.ctime_nsec());
    let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    changed_ns >= since_ns && u128::try_from(changed_ns).is_ok_and(|changed_ns| changed_ns <= now_ns)
}

/// Where git keeps its state: `.git` itself, or what a file of this name says (a submodule, a further worktree).
fn git_dir(dot_git: &Path) -> Option<PathBuf> {
    let kind = dot_git.symlink_metadata().ok()?.file_type();
    if !kind.is_file() {
        return Some(dot_git.to_owned());
    }
    let text = std::fs::read(dot_git).ok()?;
    Some(dot_git.parent()?.join(OsStr::from_bytes(text.strip_prefix(b"gitdir:")?.trim_ascii())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::inode_clock_ns;

    #[test]
    fn a_lock_is_found_from_below_and_behind_a_worktree() {
        let dir = std::env::temp_dir().join(format!("hotr-hold-{}", std::process::id()));
        fs::create_dir_all(dir.join("repo/.git/worktrees/w")).unwrap();
        fs::create_dir_all(dir.join("repo/a/b")).unwrap();
        fs::create_dir_all(dir.join("w/c")).unwrap();
        fs::write(dir.join("w/.git"), "gitdir: ../repo/.git/worktrees/w\n").unwrap();
        let (below, behind) = (dir.join("repo/a/b/f"), dir.join("w/c/f"));
        let of = |path: &PathBuf| Hold::of([path.as_path()].into_iter(), i64::MAX);
        assert_eq!((of(&below), of(&behind)), (None, None));
        let lock = dir.join("repo/.git/index.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!((of(&below), of(&behind)), (Some(Hold::Git(lock.clone())), None));
        fs::rename(&lock, dir.join("repo/.git/worktrees/w/index.lock")).unwrap();
        assert_eq!(of(&below), None);
        assert!(matches!(of(&behind), Some(Hold::Git(_))));
        let index = dir.join("repo/.git/index");
        let before = inode_clock_ns();
        fs::write(&index, "").unwrap();
        let since = |read_ns| Hold::of([below.as_path()].into_iter(), read_ns);
        assert_eq!(since(before), Some(Hold::Index(index.clone())));
        assert_eq!(since(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64), None);
        assert!(!is_between(&index, before, &UNIX_EPOCH), "it is of the future");
        let file = fs::File::create(&below).unwrap();
        assert_eq!(of(&below), Some(Hold::Writer(below.clone())));
        drop(file);
        assert_eq!(of(&below), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
