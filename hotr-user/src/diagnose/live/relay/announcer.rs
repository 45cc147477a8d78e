//! Announces a change on the inode that another process watches, without changing anything of the file.
//!
//! In: a watch, and the file that changed. Out: the event is made, or a [`Refused`]. The file belongs to somebody else, who may
//! swap every name meanwhile. So the watched inode is opened as a place, by its path in the mount namespace of the process,
//! without any link; the file in it by its one name; what they are is asked of the descriptors; and the very place that was
//! found right is used. An open for writing and its close are `IN_OPEN` and `IN_CLOSE_WRITE` (kernel: fs/open.c
//! `do_dentry_open`, fs/file_table.c `__fput`); they change no time of the file. To set the modification time alone is
//! `IN_MODIFY` (kernel: include/linux/fsnotify.h `fsnotify_change`); it is set to what it is, and only the change time changes.
//! Truncating to the same size would be `IN_MODIFY` too, and would cut off what somebody appends meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_OMIT, openat,
    statx, utimensat,
};
use rustix::io::Errno;

use super::super::follower::WatchId;
use super::layer::{self, FileLayer};
use crate::beneath;
use crate::diagnose::namespaces::{Namespaces, Reachability, Seen};
use crate::diagnose::read_chosen;
use crate::diagnose::view::{View, WatchLocation};
use crate::diagnose::watched_inode::InodeFinder;
use crate::mounts::Mount;
use crate::session::ANNOUNCER;
use hotr_events::{Refusal, RelayEvent};

/// Why there is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    /// A sentence.
    pub(super) why: String,
}

impl Refused {
    pub(super) fn new(refusal: Refusal, why: impl Into<String>) -> Self {
        Self { refusal, why: why.into() }
    }
}

/// What is to be announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcement<'a> {
    pub(super) watch: WatchId,
    /// The name of the file in the watched directory; nothing when the file itself is watched.
    pub(super) name: Option<&'a OsStr>,
    /// Inode number of the file that changed.
    pub(super) changed: u64,
    /// A file of a lower layer may be copied up.
    pub(super) copy_up: bool,
    /// What is made.
    pub(super) event: RelayEvent,
}

/// Makes the event. In a thread of its own, because its working directory is changed.
pub(super) fn announce(announcement: Announcement<'_>) -> Result<(), Refused> {
    std::thread::scope(|scope| {
        // By this name other hotrs know what it does.
        let named = std::thread::Builder::new().name(ANNOUNCER.to_owned());
        let thread = named.spawn_scoped(scope, || announce_here(announcement));
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(Refused::new(Refusal::Refused, format!("start a thread: {error}"))),
        }
    })
}

fn announce_here(announcement: Announcement<'_>) -> Result<(), Refused> {
    let place = find(announcement)?;
    let (done, what) = match announcement.event {
        RelayEvent::CloseWrite => (open_and_close(&place), "open it for writing"),
        RelayEvent::Modify => (set_times(&place), "set its modification time"),
    };
    done.map_err(|errno| Refused::new(Refusal::Refused, format!("{what}: {}", io::Error::from(errno))))
}

/// The file as a place, when it may be opened for writing.
fn find(announcement: Announcement<'_>) -> Result<OwnedFd, Refused> {
    let Announcement { watch, name, changed, copy_up, .. } = announcement;
    let gone = || Refused::new(Refusal::WatchGone, "the watch no longer exists");
    let unreachable = |errno: Errno| {
        let why = format!("its path leads nowhere in its mount namespace: {}", io::Error::from(errno));
        Refused::new(Refusal::Unreachable, why)
    };
    let mut space = Namespaces::new().map_err(unreachable)?;
    let process = read_chosen(watch.pid).map_err(|_| gone())?;
    let mut places = InodeFinder::default();
    let view = View::new(&process, &mut space, &mut places).map_err(|_| gone())?;
    let is_it = |seat: &&WatchLocation<'_>| (seat.watch.wd, seat.watch.ino) == (watch.wd, watch.ino);
    let seat = view.of(watch.fd).find(is_it).ok_or_else(gone)?;
    let Some(location) = seat.place.location.as_ref().filter(|_| !seat.place.unlinked) else {
        return Err(Refused::new(
            Refusal::Unreachable,
            "the watched inode has no name any more, or none is known",
        ));
    };
    let path = match view.namespace.sight(location.dev, &location.fs_path) {
        Reachability::Visible(path) => path,
        Reachability::Covered { .. } => {
            return Err(Refused::new(Refusal::Unreachable, "something is mounted over its path"));
        }
        Reachability::Elsewhere | Reachability::NotMounted => return Err(unreachable(Errno::NOENT)),
    };
    let watched = view.namespace.open(&path, false).map_err(unreachable)?;
    // A watch keeps its inode, so the number is not given to another one while the watch is there.
    let mount = Seen::of(&watched)
        .ok()
        .filter(|seen| seen.ino == watch.ino)
        .and_then(|seen| view.namespace.table.by_id(seen.mount))
        .filter(|mount| mount.dev == seat.watch.dev);
    let Some(mount) = mount else {
        return Err(Refused::new(Refusal::Unreachable, "its path leads to another inode"));
    };
    let (place, fs_path) = match name {
        Some(name) => (in_directory(&watched, name)?, location.fs_path.join(name)),
        None => (watched, location.fs_path.clone()),
    };
    let stat = look(&place).map_err(unreachable)?;
    if !is_regular(&stat) {
        return Err(Refused::new(Refusal::NotRegular, "it is not a regular file"));
    }
    if mount.is_overlay() {
        let roots = [&*view.ours, &*view.namespace];
        check_layer(&place, &stat, mount, &fs_path, changed, copy_up, |path: &Path| {
            roots.iter().filter_map(|space| space.open(path, true).ok()).collect()
        })?;
    } else if stat.stx_ino != changed {
        return Err(other_file());
    }
    if is_leased(stat.stx_ino) {
        let why = "another process holds a lease on the file, which an open for writing would break";
        return Err(Refused::new(Refusal::Leased, why));
    }
    Ok(place)
}

fn is_regular(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG
}

fn other_file() -> Refused {
    Refused::new(Refusal::OtherFile, "the name belongs to another file than the one that changed")
}

/// Opens one name of a directory as a place: a link is itself, and what is mounted on it is not opened.
fn in_directory(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Refused> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    beneath::resolved(dir, Path::new(name), flags, resolve).map_err(|errno| match errno {
        Errno::NOENT => Refused::new(Refusal::OtherFile, "there is no file of that name any more"),
        Errno::XDEV => Refused::new(Refusal::Unreachable, "something is mounted over the file"),
        errno => Refused::new(Refusal::Refused, format!("look it up: {}", io::Error::from(errno))),
    })
}

/// What the file is, as a place; no server is asked.
fn look(place: impl AsFd) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(place, "", flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// A file of an overlay is opened only in the upper layer: in a lower one, the open copies it.
fn check_layer(
    place: &OwnedFd,
    stat: &Statx,
    mount: &Mount,
    fs_path: &Path,
    changed: u64,
    copy_up: bool,
    open: impl Fn(&Path) -> Vec<OwnedFd>,
) -> Result<(), Refused> {
    match layer::of(place, mount, fs_path, &open) {
        FileLayer::Upper(ino) if changed == ino || changed == stat.stx_ino => Ok(()),
        FileLayer::Upper(_) => Err(other_file()),
        FileLayer::Lower(ino) if !copy_up || changed != ino && changed != stat.stx_ino => Err(Refused::new(
            Refusal::LowerFile,
            "the file is in a lower layer, and an open for writing would copy it up; --copy-up allows that",
        )),
        FileLayer::Lower(_) => Ok(()),
        FileLayer::Unknown => Err(Refused::new(
            Refusal::UnknownLayer,
            "the file that the overlay shows is none that its layers have under this path now",
        )),
    }
}

/// Whether a process has a lease on an inode, or a server has delegated it: an open for writing would take it away. The table
/// does not name every device as other calls do, so a lease on any inode of this number counts.
fn is_leased(ino: u64) -> bool {
    let Ok(text) = fs::read_to_string("/proc/locks") else { return false };
    text.lines().any(|line| lease_of(line) == Some(ino))
}

/// The inode of a line about a lease (kernel: fs/locks.c `lock_get_status`): `1: LEASE  ACTIVE    READ  17 fe:00:1234 0 EOF`.
fn lease_of(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip(1).skip_while(|word| *word == "->");
    if !matches!(words.next()?, "LEASE" | "DELEG" | "LAYOUT") {
        return None;
    }
    words.find_map(|word| word.rsplit_once(':')?.1.parse().ok())
}

/// Opens the very file of a place for writing, and closes it. Nothing is truncated, created or waited for; a file to which
/// one may only append can be opened so, too.
fn open_and_close(place: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    openat(CWD, path, flags, Mode::empty()).map(drop)
}

/// Sets the modification time of the very file of a place to what it is.
fn set_times(place: &OwnedFd) -> Result<(), Errno> {
    // Of a server's file, the server's time.
    let now = statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::MTIME)?.stx_mtime;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: now.tv_sec, tv_nsec: now.tv_nsec.into() },
    };
    utimensat(place, "", &times, AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_and_locks_are_not_leases() {
        for (line, want) in [
            ("1: LEASE  ACTIVE    READ  4242 fe:00:131 0 EOF", Some(131)),
            ("2: DELEG  ACTIVE    READ  4242 00:2a:9007199254740993 0 EOF", Some(9_007_199_254_740_993)),
            ("3: LEASE  BREAKING  UNLCK 4242 fe:00:7 0 EOF", Some(7)),
            ("4: POSIX  ADVISORY  WRITE 4242 fe:00:131 0 EOF", None),
            ("4: -> FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF", None),
            ("", None),
        ] {
            assert_eq!(lease_of(line), want, "{line}");
        }
    }

    #[test]
    fn a_lease_is_seen_and_ends() {
        let path = std::env::temp_dir().join(format!("hotr-lease-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        let file = fs::File::open(&path).unwrap();
        let ino = look(&file).unwrap().stx_ino;
        assert!(!is_leased(ino));
        // SAFETY: the call takes a descriptor and a number.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        assert!(is_leased(ino));
        drop(file);
        assert!(!is_leased(ino));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_name_is_opened_as_what_it_is_and_leads_nowhere_else() {
        let dir = std::env::temp_dir().join(format!("hotr-announce-{}", std::process::id()));
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("outside"), "x").unwrap();
        std::os::unix::fs::symlink("../outside", dir.join("d/link")).unwrap();
        rustix::fs::mknodat(CWD, dir.join("d/fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let held: OwnedFd = fs::File::open(dir.join("d")).unwrap().into();
        fs::write(dir.join("d/file"), "x").unwrap();
        let opened = |name: &str| match in_directory(&held, OsStr::new(name)) {
            Ok(place) => Ok(is_regular(&look(&place).unwrap())),
            Err(refused) => Err(refused.refusal),
        };
        // Each is a place only, the link itself: nobody who waits for a writer of the pipe is woken.
        assert_eq!(["file", "link", "fifo"].map(opened), [Ok(true), Ok(false), Ok(false)]);
        assert_eq!(opened("absent"), Err(Refusal::OtherFile));
        assert_eq!(opened("../outside"), Err(Refusal::Unreachable));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_of_the_file_changes() {
        let path = std::env::temp_dir().join(format!("hotr-untouched-{}", std::process::id()));
        fs::write(&path, "content").unwrap();
        let place = openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let told = |stat: Statx| {
            let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
            (time(stat.stx_mtime), time(stat.stx_ctime), time(stat.stx_atime), stat.stx_size, stat.stx_uid)
        };
        let before = told(look(&place).unwrap());
        open_and_close(&place).unwrap();
        assert_eq!(told(look(&place).unwrap()), before);
        set_times(&place).unwrap();
        let after = told(look(&place).unwrap());
        assert_eq!((after.0, after.2, after.3, after.4), (before.0, before.2, before.3, before.4));
        assert_eq!(fs::read(&path).unwrap(), b"content");
        fs::remove_file(&path).unwrap();
    }
}
