//! What the named paths lead to: the directories to watch for them, and by which of the paths a change there is reported.
//!
//! In: the paths as the user named them. Out: [`WatchedDirectory`]s, one per directory, however many paths lead there. A path that
//! names a file leads to the directory that holds its name, and for a symbolic link also to each that holds a name on
//! the way along the links: what replaces the file or a link has the same name there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use crate::beneath::{Dir, HeldName, NamedPath};
use crate::error::Error;
use crate::mounts::join;
use hotr_events::Change;

/// A directory that a named path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Absolute, without symbolic links.
    dir: PathBuf,
    /// The same as the user would write it.
    shown: PathBuf,
    /// The one name in it that counts, when the path does not name the directory itself.
    only: Option<OsString>,
    /// Device and inode of the directory.
    id: (u64, u64),
    /// The mount on that name, if a file is mounted there.
    over: Option<u64>,
}

/// A directory to be watched.
#[derive(Clone, Debug)]
pub(super) struct WatchedDirectory {
    /// Absolute, without symbolic links.
    pub(super) dir: PathBuf,
    /// What its files are called until a use claims them.
    pub(super) shown: PathBuf,
    uses: Vec<Use>,
}

/// Who it is watched for.
#[derive(Clone, Debug)]
struct Use {
    /// Index of the named path.
    root: usize,
    path: PathBuf,
    shown: PathBuf,
    only: Option<OsString>,
}

/// Follows a path.
///
/// # Errors
/// When it leads nowhere.
pub(super) fn spots(path: &Path) -> io::Result<Vec<Spot>> {
    let names = match NamedPath::follow(path).into_last_names()? {
        Ok((dir, real)) => {
            let id = identity(&dir).ok_or(Errno::STALE)?;
            return Ok(vec![Spot { dir: real, shown: path.to_path_buf(), only: None, id, over: None }]);
        }
        Err(names) => names,
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let spot = |(at, found): (usize, HeldName)| {
        let shown = if at == 0 { parent.to_path_buf() } else { found.dir_path.clone() };
        let id = identity(&found.dir).ok_or(Errno::STALE)?;
        let over = mounted_on(&found.dir, &found.name);
        Ok(Spot { dir: found.dir_path, shown, only: Some(found.name), id, over })
    };
    names.into_iter().enumerate().map(spot).collect()
}

/// Device and inode of what a descriptor stands for.
pub(super) fn identity(fd: impl AsFd) -> Option<(u64, u64)> {
    let stat = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO).ok()?;
    Some((crate::source::device(&stat), stat.stx_ino))
}

/// The mount of which this name is the root (Linux 5.8).
fn mounted_on(dir: &Dir, name: &OsStr) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = statx(dir, name, flags, StatxFlags::MNT_ID).ok()?;
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT).then_some(stat.stx_mnt_id)
}

/// As [`spots`], with what to say to the user.
pub(super) fn look_up(path: &Path) -> Result<Vec<Spot>, Error> {
    spots(path).map_err(|source| Error::Path {
        path: path.to_path_buf(),
        cause: source.to_string(),
        next: "check the path".to_owned(),
    })
}

/// The directories of all paths, each once.
pub(super) fn bases<'a>(roots: impl Iterator<Item = (&'a Path, &'a [Spot])>) -> Vec<WatchedDirectory> {
    let mut bases: Vec<WatchedDirectory> = Vec::new();
    for (root, (path, spots)) in roots.enumerate() {
        for Spot { dir, shown, only, .. } in spots {
            let place = Use { root, path: path.to_path_buf(), shown: shown.clone(), only: only.clone() };
            match bases.iter_mut().find(|base| base.dir == *dir) {
                Some(base) => base.uses.push(place),
                None => {
                    bases.push(WatchedDirectory { dir: dir.clone(), shown: shown.clone(), uses: vec![place] })
                }
            }
        }
    }
    // The kernel knows a file by the nearest of them, whose uses must stand for those of the upper ones.
    let upper: Vec<(PathBuf, Use)> = bases
        .iter()
        .flat_map(|base| base.uses.iter().map(|place| (base.dir.clone(), place.clone())))
        .filter(|(_, place)| place.only.is_none())
        .collect();
    for base in &mut bases {
        for (dir, place) in &upper {
            let Ok(rest) = base.dir.strip_prefix(dir) else { continue };
            if !rest.as_os_str().is_empty() {
                base.uses.push(Use { shown: join(&place.shown, rest), ..place.clone() });
            }
        }
    }
    bases
}

impl Spot {
    /// Device and inode of the directory.
    pub(super) fn id(&self) -> (u64, u64) {
        self.id
    }

    /// The mount on the one name that counts, if a file is mounted there.
    pub(super) fn over(&self) -> Option<u64> {
        self.over
    }

    /// Where it is, and how that is shown, whatever directory is there.
    pub(super) fn place(&self) -> (&Path, &Path, Option<&OsStr>) {
        (&self.dir, &self.shown, self.only.as_deref())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn only(&self) -> Option<&OsStr> {
        self.only.as_deref()
    }
}

impl WatchedDirectory {
    /// Whether a named path leads to the directory itself.
    pub(super) fn is_root(&self) -> bool {
        self.uses.iter().any(|place| place.only.is_none())
    }

    /// Whether it is watched for this root.
    pub(super) fn is_of(&self, root: usize) -> bool {
        self.uses.iter().any(|place| place.root == root)
    }

    /// Whether something that is mounted at this place in it can be what it is watched for.
    pub(super) fn wants(&self, prefix: &Path) -> bool {
        let is_it = |place: &Use| place.only.as_deref().is_none_or(|name| prefix == Path::new(name));
        prefix.as_os_str().is_empty() || self.uses.iter().any(is_it)
    }

    /// Gives a change that was found below [`Self::shown`] the names under which it is reported. Returns the index of the
    /// named path; nothing when no path leads to the file.
    pub(super) fn claim(&self, change: &mut Change) -> Option<usize> {
        let found = self.uses.iter().find(|place| match &place.only {
            None => true,
            Some(name) => {
                let is_it =
                    |path: &Path| path.strip_prefix(&self.shown).is_ok_and(|rest| rest == Path::new(name));
                is_it(&change.path) || change.old_path.as_deref().is_some_and(is_it)
            }
        })?;
        if found.only.is_some() || found.shown != self.shown {
            self.rename(found, &mut change.path);
            change.old_path.iter_mut().for_each(|old| self.rename(found, old));
        }
        Some(found.root)
    }

    fn rename(&self, place: &Use, path: &mut PathBuf) {
        let Ok(rest) = path.strip_prefix(&self.shown) else { return };
        match &place.only {
            None => *path = join(&place.shown, rest),
            Some(name) if rest == Path::new(name) => path.clone_from(&place.path),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_directory_that_comes_and_goes_is_never_taken_for_a_file() -> io::Result<()> {
        let place = tempfile::tempdir()?;
        let path = place.path().join("dir");
        let is_over = AtomicBool::new(false);
        let found: Vec<Spot> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = fs::create_dir(&path);
                    let _ = fs::remove_dir(&path);
                }
            });
            let looks = (0..100_000).filter_map(|_| spots(&path).ok()).flatten().collect();
            is_over.store(true, Ordering::Relaxed);
            looks
        });
        assert!(!found.is_empty());
        let wrong = found.iter().find(|spot| spot.only().is_some());
        assert_eq!(wrong, None);
        Ok(())
    }
}
