//! What a subscriber may see: the kernel is asked, in its name.
//!
//! In: a directory that the subscriber passed, and a path below it. Out: whether the subscriber may search every directory on
//! the way and read the last one, and what has the name there.
//!
//! [`View::take_on`] gives the calling thread the subscriber's user, groups and (of root) capabilities on files, for the rest of
//! the thread's life; Linux keeps them for each thread. Then opening a directory is the question, and the kernel's answer
//! is the one the subscriber would get: modes, access lists, read-only layers and whatever else decides.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;

use super::peer::Peer;

/// So often a way that is renamed meanwhile is tried again.
const TRIES: usize = 8;
/// Directories that are looked at to say whether there are ones that the subscriber may not read.
const MOST_DIRECTORIES: usize = 4096;
/// Names that are read for that.
const MOST_NAMES: usize = 1 << 18;

/// A thread that looks as the subscriber does.
#[derive(Debug)]
pub(super) struct View(());

/// What was found at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Inode number.
    pub(super) ino: u64,
    pub(super) is_link: bool,
    pub(super) is_dir: bool,
    /// When the file was made, where the filesystem says it: time of day.
    pub(super) born: Option<Duration>,
}

/// Why not all of a directory is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// A directory in it may not be read.
    Unreadable,
    /// Another filesystem, or another part of one, is mounted in it.
    Mounted,
    /// There are too many directories to look at all of them.
    Unknown,
}

impl View {
    /// Takes on the rights of a subscriber. The thread must do nothing afterwards that needs the agent's own.
    ///
    /// # Errors
    /// When the kernel refuses a part: the thread must end then.
    pub(super) fn take_on(peer: &Peer) -> io::Result<Self> {
        // The C library would change all threads; the system calls change this one.
        let called = |result: libc::c_long| match result {
            0.. => Ok(result),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: the list is as long as is said; the kernel copies it.
        called(unsafe { libc::syscall(libc::SYS_setgroups, peer.groups.len(), peer.groups.as_ptr()) })?;
        // SAFETY: numbers only. Both give the former number, and no error: asked again, they give the one that is set.
        let (uid, gid) = unsafe {
            libc::syscall(libc::SYS_setfsgid, peer.gid);
            libc::syscall(libc::SYS_setfsuid, peer.uid);
            (libc::syscall(libc::SYS_setfsuid, u32::MAX), libc::syscall(libc::SYS_setfsgid, u32::MAX))
        };
        // The calls give a number as large as it is, or as the signed one of the same bits.
        let is = |answer: libc::c_long, wanted: u32| {
            u32::try_from(answer & 0xffff_ffff).is_ok_and(|answer| answer == wanted)
        };
        if !is(uid, peer.uid) || !is(gid, peer.gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        set_capabilities(peer.capabilities)?;
        Ok(Self(()))
    }

    /// Opens a directory below a root, if the subscriber may search every directory on the way and read this one. No link is
    /// followed, and nothing that is mounted on the way is entered.
    pub(super) fn directory(&self, root: BorrowedFd<'_>, below: &Path) -> Result<OwnedFd, Errno> {
        self.open(root, below, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    #[expect(clippy::unused_self, reason = "only a thread that has taken on the rights may ask")]
    fn open(&self, root: BorrowedFd<'_>, below: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
        let path = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        for _ in 1..TRIES {
            match openat2(root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                answer => return answer,
            }
        }
        openat2(root, path, flags, Mode::empty(), resolve)
    }

    /// Opens the directory at the first names of a path below a root, if it is the one that `wanted` is, and the subscriber
    /// may search every directory on the way to it.
    pub(super) fn base(
        &self,
        root: BorrowedFd<'_>,
        path: &Path,
        wanted: BorrowedFd<'_>,
    ) -> Result<OwnedFd, Errno> {
        let found = self.open(root, path, OFlags::PATH)?;
        let identity = |fd: BorrowedFd<'_>| {
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            let stat = statx(fd, c"", flags, StatxFlags::INO)?;
            Ok::<_, Errno>((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
        };
        if identity(found.as_fd())? == identity(wanted)? { Ok(found) } else { Err(Errno::STALE) }
    }

    /// Whether the subscriber may learn more of the files in a directory than their names.
    pub(super) fn may_search(&self, dir: BorrowedFd<'_>) -> bool {
        statx(dir, c".", AtFlags::STATX_DONT_SYNC, StatxFlags::INO).is_ok()
    }

    /// What has a name in a directory; nothing when nothing has.
    pub(super) fn name(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Option<Name> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::INO | StatxFlags::TYPE | StatxFlags::BTIME;
        let stat = statx(dir, name, flags, wanted).ok()?;
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        let has_born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = || Some(Duration::new(u64::try_from(stat.stx_btime.tv_sec).ok()?, stat.stx_btime.tv_nsec));
        Some(Name {
            ino: stat.stx_ino,
            is_link: kind == libc::S_IFLNK,
            is_dir: kind == libc::S_IFDIR,
            born: if has_born { born() } else { None },
        })
    }

    /// Whether a directory below a root is hidden from the subscriber.
    pub(super) fn is_hidden(&self, root: BorrowedFd<'_>, below: &Path) -> Option<Hidden> {
        match self.directory(root, below) {
            Err(Errno::ACCESS | Errno::PERM) => Some(Hidden::Unreadable),
            Err(Errno::XDEV) => Some(Hidden::Mounted),
            _ => None,
        }
    }

    /// Whether parts of a root are hidden from the subscriber, who could find out the same by looking.
    pub(super) fn hidden(&self, root: BorrowedFd<'_>) -> Option<Hidden> {
        let mut todo = vec![PathBuf::new()];
        let (mut looked, mut read) = (0, 0);
        while let Some(at) = todo.pop() {
            looked += 1;
            if looked > MOST_DIRECTORIES {
                return Some(Hidden::Unknown);
            }
            let dir = match self.directory(root, &at) {
                Ok(dir) => dir,
                Err(Errno::ACCESS | Errno::PERM) => return Some(Hidden::Unreadable),
                Err(Errno::XDEV) => return Some(Hidden::Mounted),
                // It has gone meanwhile.
                Err(_) => continue,
            };
            let Ok(names) = rustix::fs::Dir::read_from(dir.as_fd()) else { continue };
            for entry in names.flatten() {
                read += 1;
                if read > MOST_NAMES {
                    return Some(Hidden::Unknown);
                }
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let is_dir = match entry.file_type() {
                    rustix::fs::FileType::Directory => true,
                    rustix::fs::FileType::Unknown => {
                        self.name(dir.as_fd(), name).is_some_and(|found| found.is_dir)
                    }
                    _ => false,
                };
                if is_dir && name != "." && name != ".." {
                    if todo.len() >= MOST_DIRECTORIES {
                        return Some(Hidden::Unknown);
                    }
                    todo.push(at.join(name));
                }
            }
        }
        None
    }
}

/// Leaves the calling thread only these capabilities.
fn set_capabilities(bits: u64) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` (include/uapi/linux/capability.h).
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let half = |shift: u32| {
        let bits = u32::try_from(bits >> shift & 0xffff_ffff).unwrap_or(0);
        Data { effective: bits, permitted: bits, inheritable: 0 }
    };
    let (mut header, data) = (Header { version: VERSION, pid: 0 }, [half(0), half(32)]);
    // SAFETY: both have the form that this version has, and live until the call returns.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::super::peer::Sees;
    use super::*;

    fn peer(uid: u32, groups: &[u32], capabilities: u64) -> Peer {
        Peer {
            uid,
            gid: 54_399,
            groups: groups.to_vec(),
            pid: 1,
            capabilities,
            sees: Sees::Nobody,
            shares_users: false,
            account: uid,
        }
    }

    /// What each of the users may open.
    fn opened(root: &File, below: &str, peer: &Peer) -> Result<(), Errno> {
        std::thread::scope(|scope| {
            let look = || View::take_on(peer).unwrap().directory(root.as_fd(), Path::new(below)).map(drop);
            scope.spawn(look).join().unwrap()
        })
    }

    #[test]
    fn the_kernel_decides_by_user_group_and_capability_of_the_subscriber() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("not run: root is needed");
        }
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32, uid: u32, gid: u32| {
            let path = place.path().join(name);
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("own", 0o700, 54_321, 0);
        make("group", 0o750, 0, 54_322);
        make("search/in", 0o755, 0, 0);
        make("search", 0o711, 0, 0);
        make("closed", 0o700, 0, 0);
        std::os::unix::fs::symlink("own", place.path().join("link")).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = File::open(place.path()).unwrap();
        let (one, other) = (peer(54_321, &[54_322], 0), peer(54_323, &[], 0));
        for (below, by_one, by_other) in [
            ("", Ok(()), Ok(())),
            ("own", Ok(()), Err(Errno::ACCESS)),
            ("group", Ok(()), Err(Errno::ACCESS)),
            ("search", Err(Errno::ACCESS), Err(Errno::ACCESS)),
            ("search/in", Ok(()), Ok(())),
            ("closed", Err(Errno::ACCESS), Err(Errno::ACCESS)),
            ("link", Err(Errno::NOTDIR), Err(Errno::NOTDIR)),
            ("..", Err(Errno::XDEV), Err(Errno::XDEV)),
        ] {
            assert_eq!(opened(&root, below, &one), by_one, "{below}");
            assert_eq!(opened(&root, below, &other), by_other, "{below}");
        }
        // Root without capabilities is the owner of its own files, and nothing else.
        assert_eq!(opened(&root, "closed", &peer(0, &[], 0)), Ok(()));
        assert_eq!(opened(&root, "own", &peer(0, &[], 0)), Err(Errno::ACCESS));
        assert_eq!(opened(&root, "own", &peer(0, &[], 1 << 2)), Ok(()));
        // The thread that asked for it is the only one that changed.
        assert!(fs::read_dir(place.path().join("own")).is_ok());
    }
}
