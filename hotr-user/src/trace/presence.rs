//! Whether the roots are what they were: inotify is not told when a directory above a root is renamed or something is
//! mounted over it, nor when a root that had gone is there again.
//!
//! In: the roots. Out: what became of one, found by looking once a second, and when the eBPF channel tells of one.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// Nanoseconds between two looks.
const EVERY_NS: u64 = 1_000_000_000;

/// Device and inode a path leads to.
type Identity = (u64, u64);

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
pub(super) struct Presence {
    roots: Vec<(PathBuf, Option<Identity>)>,
    next_ns: u64,
}

impl Presence {
    /// As the roots are now. A root that is a file may be replaced at any time, and is watched through its directory:
    /// that one is looked at.
    pub(super) fn new(roots: &[PathBuf], now_ns: u64) -> Self {
        let of = |root: &PathBuf| {
            let dir = if root.is_dir() { root.clone() } else { root.parent().unwrap_or(root).to_path_buf() };
            let identity = identity(&dir);
            (dir, identity)
        };
        Self { roots: roots.iter().map(of).collect(), next_ns: now_ns + EVERY_NS }
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
        self.roots.iter_mut().find_map(|(path, known)| {
            let now = identity(path);
            let before = std::mem::replace(known, now);
            match (before, now) {
                (Some(_), None) => Some(Became::Gone(path.clone())),
                (None, Some(_)) => Some(Became::Back(path.clone())),
                (Some((old, _)), Some((new, _))) if old != new => Some(Became::MountedOver(path.clone())),
                (before, now) if before != now => Some(Became::Another(path.clone())),
                _ => None,
            }
        })
    }

    /// Something happened to a root: looks at the next opportunity.
    pub(super) fn look_now(&mut self) {
        self.next_ns = 0;
    }

    /// The watches were just made anew: what is there now is what is watched.
    pub(super) fn renew(&mut self) {
        for (path, known) in &mut self.roots {
            *known = identity(path);
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::INO).ok()?;
    Some((crate::source::device(&stat), stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_goes_comes_back_or_is_replaced_is_noticed_once() {
        let scratch = std::env::temp_dir().join(format!("hotr-presence-{}", std::process::id()));
        let (root, aside) = (scratch.join("root"), scratch.join("aside"));
        std::fs::create_dir_all(&root).expect("a directory");
        let mut presence = Presence::new(std::slice::from_ref(&root), 0);
        let mut now = 0;
        let mut look = |presence: &mut Presence| {
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
