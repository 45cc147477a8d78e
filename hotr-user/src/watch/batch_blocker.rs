//! Why a batch is held: git is changing the working tree, or a file is still open for writing.
//!
//! In: the paths of a batch. Out: what holds it, if anything.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Stat, statat};

use super::git::GitDir;
use crate::beneath::{Dir, End, NamedPath, Roots};
use crate::pipeline::confirm::writers;

/// Paths of a batch that are asked about; a larger batch is a checkout or a copy, and waits by its size.
const ASKED: usize = 512;

/// What holds a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BatchBlocker {
    /// git holds this lock for as long as it changes the working tree.
    Git(PathBuf),
    /// git was done with the working tree, and wrote this index, after the channels were last read: what it changed at
    /// the end may not be reported yet.
    Index(PathBuf),
    /// This file is open for writing.
    Writer(PathBuf),
}

impl BatchBlocker {
    /// What holds a batch of these paths, below these roots, now. All changes before `read_ns`, an inode time, have
    /// been reported.
    pub(super) fn of<'a>(
        roots: &[PathBuf],
        paths: impl Iterator<Item = &'a Path> + Clone,
        read_ns: i64,
    ) -> Option<Self> {
        let asked = paths.take(ASKED);
        git(roots, asked.clone(), read_ns).or_else(|| {
            let roots = Roots::from(roots.to_vec());
            asked
                .into_iter()
                .find(|path| roots.spot(path).is_ok_and(|(dir, name)| writers::is_being_written(&dir, name)))
                .map(|path| Self::Writer(path.to_owned()))
        })
    }

    /// It lasts longer than the batch may wait; `limit`: "after 5s", or what else it may not exceed.
    pub(super) fn overdue(&self, limit: &str) -> String {
        match self {
            Self::Git(lock) => format!(
                "{} still exists {limit}: files taken as they are; remove it if no git runs",
                lock.display()
            ),
            Self::Index(index) => {
                format!("{} still changes {limit}: files taken as they are", index.display())
            }
            Self::Writer(path) => {
                format!("{} is still open for writing {limit}: taken as it is", path.display())
            }
        }
    }
}

/// What git does in a repository that holds one of the paths, at any level above it. Links on the way to a root are the
/// user's; below it there are none.
fn git<'a>(roots: &[PathBuf], paths: impl Iterator<Item = &'a Path>, read_ns: i64) -> Option<BatchBlocker> {
    let roots: Vec<_> = roots.iter().map(|root| (root, real(root))).collect();
    let mut seen = HashSet::new();
    paths
        .filter_map(|path| {
            let (root, Some(real)) = roots.iter().find(|(root, _)| path.starts_with(root))? else {
                return None;
            };
            let relative = path.strip_prefix(root).ok()?;
            Some(if relative.as_os_str().is_empty() { real.clone() } else { real.join(relative) })
        })
        .flat_map(|path| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>())
        .filter(|dir| seen.insert(dir.clone()))
        .find_map(|dir| {
            let git = GitDir::of(Dir::search_real(&dir).ok()?.as_fd(), &dir)?;
            // In this order: git renames the one to the other.
            if statat(&git.dir, "index.lock", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Some(BatchBlocker::Git(git.path.join("index.lock")));
            }
            let index = statat(&git.dir, "index", AtFlags::SYMLINK_NOFOLLOW).ok()?;
            is_between(&index, read_ns, &SystemTime::now())
                .then(|| BatchBlocker::Index(git.path.join("index")))
        })
}

/// A root without the links on its way; the link of its own name is what the user named, or what a file root replaces.
fn real(root: &Path) -> Option<PathBuf> {
    let found = NamedPath::follow(root);
    if matches!(found.end, End::Directory(..)) {
        return Some(found.path);
    }
    Some(NamedPath::follow(root.parent()?).real()?.join(root.file_name()?))
}

/// Whether a file was changed since an inode time, and not in the future: that is what a clock left behind which was set
/// back.
fn is_between(stat: &Stat, since_ns: i64, now: &SystemTime) -> bool {
    let nanoseconds = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    let changed_ns = stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    changed_ns >= since_ns && u128::try_from(changed_ns).is_ok_and(|changed_ns| changed_ns <= now_ns)
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
        let roots = [dir.clone()];
        let of = |path: &PathBuf| BatchBlocker::of(&roots, [path.as_path()].into_iter(), i64::MAX);
        assert_eq!((of(&below), of(&behind)), (None, None));
        let lock = dir.join("repo/.git/index.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!((of(&below), of(&behind)), (Some(BatchBlocker::Git(lock.clone())), None));
        fs::rename(&lock, dir.join("repo/.git/worktrees/w/index.lock")).unwrap();
        assert_eq!(of(&below), None);
        assert!(matches!(of(&behind), Some(BatchBlocker::Git(_))));
        let index = dir.join("repo/.git/index");
        let before = inode_clock_ns();
        fs::write(&index, "").unwrap();
        let since = |read_ns| BatchBlocker::of(&roots, [below.as_path()].into_iter(), read_ns);
        assert_eq!(since(before), Some(BatchBlocker::Index(index.clone())));
        assert_eq!(since(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64), None);
        assert!(!is_between(&rustix::fs::stat(&index).unwrap(), before, &UNIX_EPOCH), "it is of the future");
        let file = fs::File::create(&below).unwrap();
        assert_eq!(of(&below), Some(BatchBlocker::Writer(below.clone())));
        drop(file);
        assert_eq!(of(&below), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
