//! Held directories, and opening what lies below them without trust in who owns it.
//!
//! In: a directory that the user named, and paths relative to it. Out: descriptors of what lies there. No symbolic link is
//! followed, no `..` taken, nothing waited for: a directory that somebody swaps meanwhile leads to an error, never
//! elsewhere. A descriptor stays with its directory, whatever name that has later.

mod named_path;
mod names;
mod roots;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

pub use named_path::{End, HeldName, Lost, NamedPath, way};
pub use names::Names;
pub use roots::Roots;

/// `openat2` gives up when something is renamed meanwhile (fs/namei.c, `handle_dots`): so often it is tried again.
const TRIES: usize = 64;

/// Cleared where `openat2` cannot be used: an old kernel, or a sandbox.
static OPENAT2_WORKS: AtomicBool = AtomicBool::new(true);

/// A directory that is held open.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

impl Dir {
    /// Opens a directory by a path that the user named; links on the way are the user's.
    ///
    /// # Errors
    /// When it cannot be opened, or is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, dir_flags(), Mode::empty())?))
    }

    /// Opens a directory below this one; the empty path is this one.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link on the way, `EINVAL` for a path that is not below, and what opening gives.
    pub fn dir(&self, below: &Path) -> io::Result<Self> {
        Ok(Self(open_below(self.as_fd(), below, dir_flags())?))
    }

    /// As [`Self::open`], to go on from there; its names need not be readable.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn search(path: &Path) -> Result<Self, Errno> {
        openat(CWD, path, search_flags(), Mode::empty()).map(Self)
    }

    /// As [`Self::search`], by a path that has no link.
    ///
    /// # Errors
    /// As [`Self::dir`], but a relative path begins where this process is.
    pub fn search_real(path: &Path) -> Result<Self, Errno> {
        match path.strip_prefix("/") {
            Ok(below) => Self::search(Path::new("/"))?.search_below(below),
            Err(_) => Self::search(Path::new("."))?.search_below(path),
        }
    }

    /// The same of one name in any directory.
    ///
    /// # Errors
    /// As [`Self::dir`].
    pub fn search_in(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Self, Errno> {
        open_below(dir, Path::new(name), search_flags()).map(Self)
    }

    /// As [`Self::dir`], to go on from there; its names need not be readable.
    ///
    /// # Errors
    /// As [`Self::dir`].
    pub fn search_below(&self, below: &Path) -> Result<Self, Errno> {
        open_below(self.as_fd(), below, search_flags()).map(Self)
    }

    /// Opens the directory of a path below this one; with the name in it.
    ///
    /// # Errors
    /// As [`Self::dir`].
    pub fn parent<'a>(&self, below: &'a Path) -> io::Result<(Self, &'a OsStr)> {
        let name = below.file_name().ok_or(Errno::INVAL)?;
        Ok((self.dir(below.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Opens a regular file below this one for reading. What it is, is asked of its own descriptor.
    ///
    /// # Errors
    /// As [`Self::dir`]; `InvalidInput` for anything but a regular file.
    pub fn file(&self, below: &Path) -> io::Result<(File, Metadata)> {
        let file = File::from(open_below(self.as_fd(), below, file_flags())?);
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((file, data))
    }

    /// The content of a regular file below this one, of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Self::file`]; `FileTooLarge` for more, also when it grows meanwhile.
    pub fn read_bounded(&self, below: &Path, most: u64) -> io::Result<Vec<u8>> {
        let (file, data) = self.file(below)?;
        let mut content = Vec::new();
        if data.len() <= most {
            file.take(most.saturating_add(1)).read_to_end(&mut content)?;
            if content.len() as u64 <= most {
                return Ok(content);
            }
        }
        Err(io::ErrorKind::FileTooLarge.into())
    }

    /// Its names.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn names(self) -> io::Result<Names> {
        Names::of(self)
    }

    /// The directory as the kernel describes it now.
    ///
    /// # Errors
    /// When it does not.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.0)?)
    }

    /// Device and inode, as `stat` gives them.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let stat = self.stat()?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// A further descriptor of the same directory.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

/// Why a name in a directory is no file to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// A symbolic link.
    Link,
    /// A directory, a pipe, a socket or a device.
    Irregular,
    /// The kernel refused.
    Refused(Errno),
}

/// Opens a regular file of a directory for reading. Its type is asked before, because to open a pipe would already wake its
/// writers, and again of the descriptor, with everything else.
///
/// # Errors
/// What is there instead.
pub fn regular(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(File, Stat), NoFile> {
    let check = |stat: &Stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(NoFile::Link),
        _ => Err(NoFile::Irregular),
    };
    let refused = |errno| if errno == Errno::LOOP { NoFile::Link } else { NoFile::Refused(errno) };
    check(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).map_err(refused)?)?;
    let fd = openat(dir, name, file_flags(), Mode::empty()).map_err(refused)?;
    let stat = fstat(&fd).map_err(refused)?;
    check(&stat)?;
    Ok((File::from(fd), stat))
}

/// To read what should be a regular file.
pub fn file_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn search_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// `openat2`, tried again for as long as something is renamed or mounted meanwhile: a `..` in a path that may not lead out
/// fails then, wherever in the system that happens.
pub(crate) fn resolved(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 1..TRIES {
        match openat2(&dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    openat2(&dir, path, flags, Mode::empty(), resolve)
}

/// Opens what lies at a relative path below a directory.
fn open_below(dir: BorrowedFd<'_>, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let is_below = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !below.components().all(is_below) {
        return Err(Errno::INVAL);
    }
    let path = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let flags = flags | OFlags::NOFOLLOW;
    if OPENAT2_WORKS.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(dir, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // A sandbox may forbid the call; so may the file itself, which the other way finds out again.
                Err(Errno::NOSYS) => {
                    OPENAT2_WORKS.store(false, Ordering::Relaxed);
                    break;
                }
                Err(Errno::PERM) => break,
                result => return result,
            }
        }
    }
    by_parts(dir, path, flags)
}

/// The same, one part of the path after the other.
fn by_parts(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = dir_flags() | OFlags::NOFOLLOW;
    let mut at: Option<OwnedFd> = None;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() { step } else { flags };
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(openat(from, part.as_os_str(), flags, Mode::empty())?);
    }
    at.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    struct Scene(PathBuf, Dir);

    impl Scene {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hotr-beneath-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("in/d")).unwrap();
            fs::create_dir_all(path.join("out")).unwrap();
            fs::write(path.join("in/d/f"), "inside").unwrap();
            fs::write(path.join("out/f"), "secret").unwrap();
            let dir = Dir::open(&path.join("in")).unwrap();
            Self(path, dir)
        }

        /// What opening gives by either way of opening.
        fn errors(&self, below: &str) -> [Option<Errno>; 2] {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let one = open_below(self.1.as_fd(), Path::new(below), flags).err();
            [one, by_parts(self.1.as_fd(), Path::new(below), flags | OFlags::NOFOLLOW).err()]
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_link_is_refused_wherever_it_stands() {
        let scene = Scene::new("link");
        symlink("../out", scene.0.join("in/l")).unwrap();
        symlink("f", scene.0.join("in/d/g")).unwrap();
        assert_eq!(scene.errors("d/f"), [None, None]);
        assert_eq!(scene.errors("d/g"), [Some(Errno::LOOP); 2]);
        let [one, other] = scene.errors("l/f");
        assert_eq!(one, Some(Errno::LOOP));
        assert!(matches!(other, Some(Errno::LOOP | Errno::NOTDIR)), "{other:?}");
        for outside in ["../out/f", "d/../../out/f", "/etc/passwd"] {
            assert_eq!(scene.errors(outside)[0], Some(Errno::INVAL), "{outside}");
        }
    }

    #[test]
    fn a_path_with_dots_is_resolved_while_names_change() {
        let scene = Scene::new("dots");
        let over = AtomicBool::new(false);
        let rename = || {
            let names = [scene.0.join("a"), scene.0.join("b")];
            fs::create_dir(&names[0]).unwrap();
            while !over.load(Ordering::Relaxed) {
                fs::rename(&names[0], &names[1]).unwrap();
                fs::rename(&names[1], &names[0]).unwrap();
            }
        };
        let failed = std::thread::scope(|scope| {
            scope.spawn(rename);
            let failed = (0..20_000)
                .filter_map(|_| {
                    let flags = OFlags::PATH | OFlags::CLOEXEC;
                    resolved(scene.1.as_fd(), Path::new("d/../d/../d/f"), flags, ResolveFlags::IN_ROOT).err()
                })
                .next();
            over.store(true, Ordering::Relaxed);
            failed
        });
        assert_eq!(failed, None);
    }

    #[test]
    fn a_held_directory_stays_the_same_when_its_name_leads_elsewhere() {
        let scene = Scene::new("held");
        fs::rename(scene.0.join("in/d"), scene.0.join("in/was")).unwrap();
        let held = scene.1.dir(Path::new("was")).unwrap();
        fs::rename(scene.0.join("in/was"), scene.0.join("moved")).unwrap();
        symlink("../out", scene.0.join("in/was")).unwrap();
        assert_eq!(held.read_bounded(Path::new("f"), 100).unwrap(), b"inside");
        assert!(scene.1.dir(Path::new("was")).is_err());
    }

    #[test]
    fn nothing_but_a_regular_file_of_the_size_is_read_and_nothing_waited_for() {
        let scene = Scene::new("kind");
        let fifo = scene.0.join("in/fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for other in ["fifo", "d"] {
            let error = scene.1.file(Path::new(other)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{other}");
        }
        assert_eq!(scene.1.read_bounded(Path::new("d/f"), 6).unwrap(), b"inside");
        let error = scene.1.read_bounded(Path::new("d/f"), 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let (parent, name) = scene.1.parent(Path::new("d/f")).unwrap();
        assert_eq!(parent.read_bounded(Path::new(name), 6).unwrap(), b"inside");
    }
}
