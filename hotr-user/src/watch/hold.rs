//! Why a batch is held: git is changing the working tree, or a file is still open for writing.
//!
//! In: the paths of a batch. Out: what holds it, if anything.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::pipeline::confirm::writers;

/// Paths of a batch that are asked about; a larger batch is a checkout or a copy, and waits by its size.
const ASKED: usize = 512;

/// What holds a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// git holds this lock for as long as it changes the working tree.
    Git(PathBuf),
    /// This file is open for writing.
    Writer(PathBuf),
}

impl Hold {
    /// What holds a batch of these paths now.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path> + Clone) -> Option<Self> {
        let asked = paths.take(ASKED);
        git_lock(asked.clone()).map(Self::Git).or_else(|| {
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
            Self::Writer(path) => {
                format!("{} is still open for writing after {limit}: taken as it is", path.display())
            }
        }
    }
}

/// The lock of a repository that holds one of the paths, at any level above it.
fn git_lock<'a>(paths: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let mut seen = HashSet::new();
    paths
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|dir| seen.insert(*dir))
        .find_map(|dir| Some(git_dir(&dir.join(".git"))?.join("index.lock")).filter(|lock| lock.exists()))
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

    #[test]
    fn a_lock_is_found_from_below_and_behind_a_worktree() {
        let dir = std::env::temp_dir().join(format!("hotr-hold-{}", std::process::id()));
        fs::create_dir_all(dir.join("repo/.git/worktrees/w")).unwrap();
        fs::create_dir_all(dir.join("repo/a/b")).unwrap();
        fs::create_dir_all(dir.join("w/c")).unwrap();
        fs::write(dir.join("w/.git"), "gitdir: ../repo/.git/worktrees/w\n").unwrap();
        let (below, behind) = (dir.join("repo/a/b/f"), dir.join("w/c/f"));
        let of = |path: &PathBuf| Hold::of([path.as_path()].into_iter());
        assert_eq!((of(&below), of(&behind)), (None, None));
        let lock = dir.join("repo/.git/index.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!((of(&below), of(&behind)), (Some(Hold::Git(lock.clone())), None));
        fs::rename(&lock, dir.join("repo/.git/worktrees/w/index.lock")).unwrap();
        assert_eq!(of(&below), None);
        assert!(matches!(of(&behind), Some(Hold::Git(_))));
        let file = fs::File::create(&below).unwrap();
        assert_eq!(of(&below), Some(Hold::Writer(below.clone())));
        drop(file);
        assert_eq!(of(&below), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
