//! Whether the roots are what they were: inotify reports neither that a directory above a root was renamed or something
//! was mounted over it, nor that a root that had disappeared is there again.
//!
//! In: the roots. Out: what became of one, found by looking once a second, and when the eBPF channel reports one.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::watched_directories::{Spot, spots};

/// Nanoseconds between two looks.
const EVERY_NS: u64 = 1_000_000_000;

/// Each directory a path leads to (see [`super::watched_directories`]), the last one at the end.
type Way = Vec<Step>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Device and inode.
    id: (u64, u64),
    /// The name in it that counts.
    only: Option<OsString>,
    /// The mount on that name, if a file is mounted there.
    over: Option<u64>,
}

/// What became of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// Its path leads nowhere.
    Gone(PathBuf),
    /// Its path leads to another directory or file.
    Another(PathBuf),
    /// Its path leads to another filesystem.
    MountedOver(PathBuf),
    /// Its path had led nowhere.
    Back(PathBuf),
}

/// The roots, and what they led to at the last look.
#[derive(Debug)]
pub(super) struct RootWatch {
    roots: Vec<(PathBuf, Option<Way>)>,
    next_ns: u64,
    /// Whether what is mounted on a file is looked at: where nobody else tells of it.
    with_mounts: bool,
}

impl RootWatch {
    /// As the roots are now. A root that is a file may be replaced at any time, and is watched through its directory:
    /// that one is checked.
    pub(super) fn new(roots: &[PathBuf], now_ns: u64) -> Self {
        Self {
            roots: roots.iter().map(|root| (root.clone(), way(root, false))).collect(),
            next_ns: now_ns + EVERY_NS,
            with_mounts: false,
        }
    }

    /// From now on nobody else tells what is mounted on files.
    pub(super) fn look_at_mounts(&mut self) {
        self.with_mounts = true;
        self.renew();
    }

    /// When [`Self::look`] has something to do, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn next_deadline(&self) -> u64 {
        self.next_ns
    }

    /// The first root that became something else, if it is time to look.
    pub(super) fn look(&mut self, now_ns: u64) -> Option<Became> {
        if now_ns < self.next_ns {
            return None;
        }
        self.next_ns = now_ns + EVERY_NS;
        let with_mounts = self.with_mounts;
        self.roots.iter_mut().find_map(|(path, known)| {
            let now = way(path, with_mounts);
            let before = std::mem::replace(known, now.clone());
            match (before, now) {
                (Some(_), None) => Some(Became::Gone(path.clone())),
                (None, Some(_)) => Some(Became::Back(path.clone())),
                (Some(old), Some(new)) if device(&old) != device(&new) || is_mounted_over(&old, &new) => {
                    Some(Became::MountedOver(path.clone()))
                }
                (before, now) if before != now => Some(Became::Another(path.clone())),
                _ => None,
            }
        })
    }

    /// Looks at these roots from now on; new ones are as they are now.
    pub(super) fn set_roots(&mut self, roots: &[PathBuf]) {
        let mut former = std::mem::take(&mut self.roots);
        let known = |root: &PathBuf| {
            let at = former.iter().position(|(path, _)| path == root);
            at.map_or_else(|| (root.clone(), way(root, self.with_mounts)), |at| former.swap_remove(at))
        };
        self.roots = roots.iter().map(known).collect();
    }

    /// Something happened to a root: looks at the next opportunity.
    pub(super) fn look_now(&mut self) {
        self.next_ns = 0;
    }

    /// The watches were just rebuilt: what is there now is what is watched.
    pub(super) fn renew(&mut self) {
        for (path, known) in &mut self.roots {
            *known = way(path, self.with_mounts);
        }
    }
}

fn way(path: &Path, with_mounts: bool) -> Option<Way> {
    let step = |spot: &Spot| Step {
        id: spot.id(),
        only: spot.only().map(OsStr::to_owned),
        over: spot.over().filter(|_| with_mounts),
    };
    Some(spots(path).ok()?.iter().map(step).collect())
}

/// Of the last directory.
fn device(way: &Way) -> Option<u64> {
    way.last().map(|step| step.id.0)
}

/// Whether another file was mounted on one of the names.
fn is_mounted_over(old: &Way, new: &Way) -> bool {
    new.iter().any(|step| {
        let before = old.iter().find(|before| (before.id, &before.only) == (step.id, &step.only));
        step.over.is_some() && before.is_some_and(|before| before.over != step.over)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_goes_comes_back_or_is_replaced_is_noticed_once() {
        let scratch = std::env::temp_dir().join(format!("hotr-presence-{}", std::process::id()));
        let (root, aside) = (scratch.join("root"), scratch.join("aside"));
        std::fs::create_dir_all(&root).expect("a directory");
        let mut presence = RootWatch::new(std::slice::from_ref(&root), 0);
        let mut now = 0;
        let mut look = |presence: &mut RootWatch| {
            now += EVERY_NS;
            presence.look(now)
        };
        assert_eq!(look(&mut presence), None);
        std::fs::rename(&root, &aside).expect("a rename");
        assert_eq!(presence.look(EVERY_NS + 1), None, "not before its time");
        assert_eq!(look(&mut presence), Some(Became::Gone(root.clone())));
        assert_eq!(look(&mut presence), None);
        std::fs::create_dir(&root).expect("a directory");
        assert_eq!(look(&mut presence), Some(Became::Back(root.clone())));
        std::fs::remove_dir(&root).expect("it is empty");
        std::fs::rename(&aside, &root).expect("a rename");
        assert_eq!(look(&mut presence), Some(Became::Another(root.clone())));
        std::fs::remove_dir_all(&scratch).expect("it is ours");
    }
}
