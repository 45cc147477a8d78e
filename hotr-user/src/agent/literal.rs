//! What a system call named, taken as it is written: at the tracepoint tier the kernel side sees only that.
//!
//! The names are not looked up, because by then somebody may have made them lead elsewhere: a link that the caller followed may
//! be a directory of somebody else now, who would learn what the caller did where the link led. So a string with `..` names
//! nothing here, and a link on the way is found when the subscriber's view opens the directory, which follows none.
//! Where the string begins above the directory of a subscriber, its names there are those of the path that the directory has,
//! and count only when the subscriber could not have changed them ([`Reach`]).

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, Stat, fstat, openat};

use super::peer::Peer;

/// A string without `.`, empty names and a slash at its start; none with `..`.
pub(super) fn plain(string: &[u8]) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(string)).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// The directories above a path, and who may give their names to something else.
#[derive(Debug)]
pub(super) struct Reach(Option<Vec<Step>>);

#[derive(Debug)]
struct Step {
    /// Who owns the directory.
    owner: u32,
    mode: u32,
    /// Who owns what the next name leads to.
    next: u32,
}

impl Reach {
    /// Of an absolute path without links.
    pub(super) fn of(path: &Path) -> Self {
        Self(Self::steps(path))
    }

    /// Of a path that this process cannot look at.
    pub(super) const fn unknown() -> Self {
        Self(None)
    }

    fn steps(path: &Path) -> Option<Vec<Step>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: OwnedFd = openat(CWD, "/", flags, Mode::empty()).ok()?;
        let mut steps = Vec::new();
        for name in path.strip_prefix("/").ok()? {
            let dir: Stat = fstat(&at).ok()?;
            at = openat(at.as_fd(), name, flags, Mode::empty()).ok()?;
            steps.push(Step { owner: dir.st_uid, mode: dir.st_mode, next: fstat(&at).ok()?.st_uid });
        }
        Some(steps)
    }

    /// Whether a subscriber may have made one of the names lead elsewhere. One who may read everything learns nothing by it.
    pub(super) fn is_of(&self, peer: &Peer) -> bool {
        if peer.capabilities != 0 {
            return false;
        }
        let Some(steps) = &self.0 else { return true };
        steps.iter().any(|step| {
            // A group's bits are the mask of an access list as well: who is in it is not asked.
            let is_open = step.mode & 0o022 != 0;
            let keeps = step.mode & libc::S_ISVTX != 0 && step.next != peer.uid;
            step.owner == peer.uid || is_open && !keeps
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Sees;
    use super::*;

    fn peer(uid: u32, capabilities: u64) -> Peer {
        Peer {
            uid,
            gid: uid,
            groups: Vec::new(),
            pid: 1,
            capabilities,
            sees: Sees::Nobody,
            shares_users: true,
            account: uid,
        }
    }

    #[test]
    fn a_string_is_taken_as_it_is_written_or_not_at_all() {
        let named = |string: &str| plain(string.as_bytes());
        assert_eq!(named("/a//b/./c/"), Some("a/b/c".into()));
        assert_eq!(named(""), Some("".into()));
        assert_eq!(named("a/../b"), None);
        assert_eq!(named(".."), None);
    }

    #[test]
    fn a_way_is_in_reach_of_its_owners_and_of_all_where_all_may_write() {
        let step = |owner, mode, next| Step { owner, mode, next };
        for (steps, by_user, by_root, by_capable) in [
            (vec![step(0, 0o755, 0)], false, true, false),
            (vec![step(0, 0o755, 0), step(7, 0o755, 0)], true, true, false),
            (vec![step(0, 0o777, 0)], true, true, false),
            (vec![step(0, 0o1777, 0)], false, true, false),
            (vec![step(0, 0o1777, 7)], true, true, false),
            (vec![step(1, 0o770, 1)], true, true, false),
            (vec![step(1, 0o755, 1)], false, false, false),
        ] {
            let reach = Reach(Some(steps));
            assert_eq!(reach.is_of(&peer(7, 0)), by_user, "{reach:?}");
            assert_eq!(reach.is_of(&peer(0, 0)), by_root, "{reach:?}");
            assert_eq!(reach.is_of(&peer(0, 4)), by_capable, "{reach:?}");
        }
        assert!(Reach::unknown().is_of(&peer(7, 0)));
        assert!(Reach::of(Path::new("/proc/self/none")).is_of(&peer(7, 0)), "what is not known is in reach");
    }
}
