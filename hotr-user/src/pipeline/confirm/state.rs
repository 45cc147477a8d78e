//! The state of one path, as far as a reload depends on it, and how two states differ.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;
use sha2::Digest as _;

use super::{ConfirmOptions, Digest, Evidence, FileState, Kind, State};
use crate::beneath::{Roots, file_flags};
use crate::source::difference::nanos;
use crate::source::inode_clock_ns;
use hotr_events::FileType;

/// A file whose change time is not older than this, in nanoseconds, when it is read may change again with the same
/// times: the kernel's clock of inodes ticks every 10 ms at worst (`CONFIG_HZ=100`).
const RACY_NS: i64 = 20_000_000;

/// Which digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// SHA-256.
    Sha256,
    /// BLAKE3.
    Blake3,
}

impl FileState {
    /// Whether nothing at all was done to the file in between; only then its content need not be read again.
    fn is_untouched(&self, other: &Self) -> bool {
        let key = |file: &Self| (file.dev, file.ino, file.size, file.mtime_ns, file.ctime_ns);
        self.settled && key(self) == key(other)
    }

    /// Change time, nanoseconds since 1970.
    pub(super) const fn ctime_ns(&self) -> i64 {
        self.ctime_ns
    }
}

impl State {
    /// Looks at a path below no named directory; its content is not read when `before` shows that it is unchanged.
    #[must_use]
    pub fn of(path: &Path, before: Option<&Self>, options: ConfirmOptions) -> Self {
        Self::look(&Roots::default(), path, before, options, &AtomicBool::new(false))
    }

    /// As [`Self::of`], of a path below what was named; does not read a file to its end when `stop` is set meanwhile.
    #[must_use]
    pub fn look(
        roots: &Roots,
        path: &Path,
        before: Option<&Self>,
        options: ConfirmOptions,
        stop: &AtomicBool,
    ) -> Self {
        match roots.spot(path) {
            Ok((dir, name)) => Self::look_in(dir.as_fd(), name, before, options, stop),
            // There is none for the directory, and one for the file.
            Err(Errno::MFILE) if roots.is_near(path) => {
                Self::look_in(CWD, path.as_os_str(), before, options, stop)
            }
            Err(error) => Self::without(error),
        }
    }

    /// As [`Self::look`], of a name in a directory that is held.
    #[must_use]
    pub fn look_in(
        dir: BorrowedFd<'_>,
        name: &OsStr,
        before: Option<&Self>,
        options: ConfirmOptions,
        stop: &AtomicBool,
    ) -> Self {
        let wanted = StatxFlags::BASIC_STATS;
        let stat = match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted) {
            Ok(stat) => stat,
            Err(error) => return Self::without(error),
        };
        match FileType::from_mode(stat.stx_mode.into()) {
            Some(FileType::Dir) => Self::Dir,
            Some(FileType::Symlink) => match readlinkat(dir, name, Vec::new()) {
                Ok(target) => Self::Link(OsString::from_vec(target.into_bytes()).into()),
                // EINVAL: another file took the name since, which is reported separately.
                Err(error) => Self::without(error),
            },
            Some(FileType::File) => {
                let before = if let Some(Self::File(file)) = before { Some(file) } else { None };
                Self::File(file(&stat, before, options, stop, || open_in(dir, name)))
            }
            _ => Self::Other,
        }
    }

    /// The state of a file that is open, read from its begin; none when it is no regular file or cannot be read.
    #[must_use]
    pub fn of_open(file: &std::fs::File, options: ConfirmOptions, stop: &AtomicBool) -> Option<Self> {
        let mut again = file.try_clone().ok()?;
        again.rewind().ok()?;
        read(again.into(), options, stop).ok().map(Self::File)
    }

    /// As [`Self::look`], of a path that the user named: what counts is what it leads to. That it leads elsewhere is a
    /// change of another kind.
    #[must_use]
    pub fn look_named(
        path: &Path,
        before: Option<&Self>,
        options: ConfirmOptions,
        stop: &AtomicBool,
    ) -> Self {
        let looked = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| Ok((statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?, fd)));
        let (stat, fd) = match looked {
            Ok(looked) => looked,
            Err(error) => return Self::without(error),
        };
        match FileType::from_mode(stat.stx_mode.into()) {
            Some(FileType::Dir) => Self::Dir,
            Some(FileType::File) => {
                let before = if let Some(Self::File(file)) = before { Some(file) } else { None };
                Self::File(file(&stat, before, options, stop, || open_again(&fd)))
            }
            _ => Self::Other,
        }
    }

    /// What a failed look says: only these two errors say that there is nothing. ENOTDIR: a directory of the path became
    /// a file.
    pub(crate) const fn without(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Absent,
            error => Self::Unknown(error),
        }
    }

    /// Whether it is something whose appearance matters.
    pub(crate) const fn is_file_or_link(&self) -> bool {
        matches!(self, Self::File(_) | Self::Link(_))
    }

    /// Whether its content was changed while it was read.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self, Self::File(FileState { torn: true, .. }))
    }

    /// The inode of a file with further hard links.
    #[must_use]
    pub(crate) const fn shared_ino(&self) -> Option<u64> {
        match self {
            Self::File(file) if file.has_links => Some(file.ino),
            _ => None,
        }
    }

    /// Whether it is a file of this inode number.
    pub(crate) const fn is_inode(&self, ino: u64) -> bool {
        matches!(self, Self::File(file) if file.ino == ino)
    }

    /// What a change from this state to `now` is; `None` when there is none.
    pub(crate) fn differs(&self, now: &Self) -> Option<(Kind, Evidence)> {
        match (self, now) {
            (Self::Unknown(_), _) | (_, Self::Unknown(_)) => None,
            (Self::File(before), Self::File(after)) => {
                let by_content =
                    before.size != after.size || before.digest.is_some() && after.digest.is_some();
                let by = if by_content && after.digest.is_some() {
                    Evidence::Digest
                } else {
                    Evidence::SizeAndTime
                };
                (before != after).then_some((Kind::Written, by))
            }
            (Self::Link(before), Self::Link(after)) => {
                (before != after).then_some((Kind::Link, Evidence::Target))
            }
            (before, after) => match (before.is_file_or_link(), after.is_file_or_link()) {
                (false, false) => None,
                (false, true) => Some((Kind::Created, Evidence::Name)),
                (true, false) => Some((Kind::Removed, Evidence::Name)),
                (true, true) => Some((Kind::Written, Evidence::Name)),
            },
        }
    }
}

fn bare(stat: &Statx, read_at: i64) -> FileState {
    let ctime_ns = nanos(stat.stx_ctime);
    FileState {
        mtime_ns: nanos(stat.stx_mtime),
        size: stat.stx_size,
        digest: None,
        dev: stat.stx_dev_major << 20 | stat.stx_dev_minor & 0xf_ffff,
        ino: stat.stx_ino,
        ctime_ns,
        settled: ctime_ns.saturating_add(RACY_NS) < read_at,
        torn: false,
        has_links: stat.stx_nlink > 1,
    }
}

fn file(
    stat: &Statx,
    before: Option<&FileState>,
    options: ConfirmOptions,
    stop: &AtomicBool,
    open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
) -> FileState {
    let listed = bare(stat, inode_clock_ns());
    if let Some(before) = before.filter(|before| before.is_untouched(&listed)) {
        return before.clone();
    }
    if listed.size > options.hash_limit {
        return listed;
    }
    // What is read is described by its own descriptor: the name may lead to another file by now.
    let opened = open().map_err(io::Error::from);
    opened.and_then(|fd| read(fd, options, stop)).unwrap_or(listed)
}

fn read(fd: OwnedFd, options: ConfirmOptions, stop: &AtomicBool) -> io::Result<FileState> {
    let read_at = inode_clock_ns();
    let stat = statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    if FileType::from_mode(stat.stx_mode.into()) != Some(FileType::File) {
        return Err(Errno::INVAL.into());
    }
    let mut state = bare(&stat, read_at);
    let mut content = std::fs::File::from(fd).take(options.hash_limit.saturating_add(1));
    let mut hasher = Hasher::new(options.hash);
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0_u64;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Errno::CANCELED.into());
        }
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                length += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let stat = statx(content.get_ref(), c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    if nanos(stat.stx_ctime) != state.ctime_ns {
        state = FileState { settled: false, torn: true, ..bare(&stat, read_at) };
    }
    if length <= options.hash_limit {
        state.size = length;
        state.digest = Some(hasher.finish());
    }
    Ok(state)
}

/// Opens a regular file for reading: neither a link nor a pipe that took its name is followed or waited for.
pub(super) fn open_in(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, file_flags(), Mode::empty())
}

/// Opens what a descriptor without access is of.
fn open_again(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    openat(CWD, link, file_flags().difference(OFlags::NOFOLLOW), Mode::empty())
}

enum Hasher {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn new(kind: HashKind) -> Self {
        match kind {
            HashKind::Sha256 => Self::Sha256(sha2::Sha256::new()),
            HashKind::Blake3 => Self::Blake3(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => hasher.finalize().into(),
            Self::Blake3(hasher) => hasher.finalize().into(),
        }
    }
}
