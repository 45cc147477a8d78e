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

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, statx};

use super::admission::is_watchable;
use super::peer::Peer;
use crate::mounts::MountTable;

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
    /// Of an absolute path without links. It is looked at on the thread that nobody may keep waiting: where the table does not show
    /// a local filesystem on the way, because a user has mounted his own there, nothing is known.
    pub(super) fn of(path: &Path, table: &MountTable) -> Self {
        Self(Self::steps(path, table))
    }

    /// Of a path that this process cannot look at.
    pub(super) const fn unknown() -> Self {
        Self(None)
    }

    fn steps(path: &Path, table: &MountTable) -> Option<Vec<Step>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: OwnedFd = openat(CWD, "/", flags, Mode::empty()).ok()?;
        let mut dir = local(&at, table)?;
        let mut steps = Vec::new();
        for name in path.strip_prefix("/").ok()? {
            at = openat(at.as_fd(), name, flags, Mode::empty()).ok()?;
            let next = local(&at, table)?;
            steps.push(Step { owner: dir.stx_uid, mode: dir.stx_mode.into(), next: next.stx_uid });
            dir = next;
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

/// What is known of a directory, if it is on a local filesystem. Asks no server.
fn local(fd: &OwnedFd, table: &MountTable) -> Option<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::UID | StatxFlags::MODE | StatxFlags::MNT_ID).ok()?;
    let is_known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let mount = table.by_id(stat.stx_mnt_id).filter(|_| is_known)?;
    is_watchable(mount).is_ok().then_some(stat)
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
        let table = MountTable::read().unwrap();
        assert!(!Reach::of(Path::new("/"), &table).is_of(&peer(7, 0)), "there is no name");
        for unknown in ["/proc/self/none", "/none/of/these", "/proc/1"] {
            let reach = Reach::of(Path::new(unknown), &table);
            assert!(
                reach.0.is_none() && reach.is_of(&peer(7, 0)),
                "what is not known is in reach: {unknown}"
            );
        }
        let place = tempfile::tempdir().unwrap().keep();
        assert!(Reach::of(&place, &table).0.is_some());
        assert!(
            Reach::of(&place, &MountTable::default()).0.is_none(),
            "a mount that the table does not show"
        );
        std::fs::remove_dir(place).unwrap();
    }
}
