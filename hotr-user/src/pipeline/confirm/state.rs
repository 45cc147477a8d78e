//! The state of one path, as far as a reload depends on it, and how two states differ.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;
use sha2::Digest as _;

use super::{ConfirmOptions, Evidence, Kind};
use crate::event::FileType;
use crate::source::difference::nanos;
use crate::source::inode_clock_ns;

/// A digest of a file's content.
pub type Digest = [u8; 32];

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

/// A regular file.
#[derive(Clone, Debug)]
pub struct FileState {
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content; none when it was too large or could not be read.
    pub digest: Option<Digest>,
    /// As the kernel encodes it towards userspace: 12 bits and 20 (include/linux/kdev_t.h).
    dev: u32,
    ino: u64,
    ctime_ns: i64,
    /// A later change would show in the times.
    settled: bool,
    /// It was changed while it was read: of an unknown moment in between.
    torn: bool,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Absent,
    /// A regular file.
    File(FileState),
    /// A symbolic link and its target.
    Link(PathBuf),
    /// A directory; what it holds has states of its own.
    Dir,
    /// Something without content: a socket, a pipe, a device.
    Other,
}

impl PartialEq for FileState {
    /// The same content, as far as is known.
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.digest, &other.digest) {
                (Some(one), Some(other)) => one == other,
                _ => self.mtime_ns == other.mtime_ns,
            }
    }
}

impl Eq for FileState {}

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
    /// Looks at a path; its content is not read when `before` says that nothing was done to it.
    #[must_use]
    pub fn of(path: &Path, before: Option<&Self>, options: ConfirmOptions) -> Self {
        Self::look(path, before, options, &AtomicBool::new(false))
    }

    /// As [`Self::of`]; does not read a file to its end when `stop` is set meanwhile.
    #[must_use]
    pub fn look(path: &Path, before: Option<&Self>, options: ConfirmOptions, stop: &AtomicBool) -> Self {
        let wanted = StatxFlags::BASIC_STATS;
        let stat = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted) {
            Ok(stat) => stat,
            // An unreachable name has no content either; ENOTDIR: a directory of the path became a file.
            Err(_) => return Self::Absent,
        };
        match FileType::from_mode(stat.stx_mode.into()) {
            Some(FileType::Dir) => Self::Dir,
            Some(FileType::Symlink) => match readlinkat(CWD, path, Vec::new()) {
                Ok(target) => Self::Link(OsString::from_vec(target.into_bytes()).into()),
                Err(_) => Self::Absent,
            },
            Some(FileType::File) => {
                let before = if let Some(Self::File(file)) = before { Some(file) } else { None };
                Self::File(file(path, &stat, before, options, stop))
            }
            _ => Self::Other,
        }
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
        match path.canonicalize() {
            Ok(path) => Self::look(&path, before, options, stop),
            Err(_) => Self::Absent,
        }
    }

    /// Whether it is something whose appearance matters.
    pub(super) const fn is_file_or_link(&self) -> bool {
        matches!(self, Self::File(_) | Self::Link(_))
    }

    /// Whether its content was changed while it was read.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self, Self::File(FileState { torn: true, .. }))
    }

    /// What a change from this state to `now` is; `None` when there is none.
    pub(super) fn differs(&self, now: &Self) -> Option<(Kind, Evidence)> {
        match (self, now) {
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
    }
}

fn file(
    path: &Path,
    stat: &Statx,
    before: Option<&FileState>,
    options: ConfirmOptions,
    stop: &AtomicBool,
) -> FileState {
    let listed = bare(stat, inode_clock_ns());
    if let Some(before) = before.filter(|before| before.is_untouched(&listed)) {
        return before.clone();
    }
    if listed.size > options.hash_limit {
        return listed;
    }
    // What is read is described by its own descriptor: the name may lead to another file by now.
    read(path, options, stop).unwrap_or(listed)
}

fn read(path: &Path, options: ConfirmOptions, stop: &AtomicBool) -> io::Result<FileState> {
    let fd = open(path)?;
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
pub(super) fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    openat(CWD, path, flags, Mode::empty())
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
