//! The watched trees, held open since the watch began, and whom their directories let in.
//!
//! In: roots, and paths as they are watched. Out: the held directory of a path and its name there. Each time, a path is
//! followed again below the held root, and never through a link: what was swapped in the meantime is refused.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Stat, fstat, statat};
use rustix::io::Errno;

use crate::beneath::{Dir, End, NamedPath};

/// A root.
#[derive(Debug)]
struct Tree {
    /// As the user named it.
    named: PathBuf,
    /// The file that it leads to, when it is no directory.
    file: Option<PathBuf>,
    held: Dir,
}

/// The roots.
#[derive(Debug, Default)]
pub(super) struct Trees(Vec<Tree>);

/// A name in a directory that is held.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) dir: Dir,
    pub(super) name: OsString,
    /// The directories from the root to this one.
    way: Vec<Stat>,
}

impl Trees {
    /// Takes hold of the roots as they are now. One that is not there is not held, and nothing is put there.
    pub(super) fn hold(roots: &[PathBuf]) -> Self {
        Self(roots.iter().filter_map(|root| Tree::hold(root)).collect())
    }

    /// Takes hold of one root again: it leads elsewhere.
    pub(super) fn hold_again(&mut self, root: &Path) {
        self.0.retain(|tree| tree.named != root);
        self.0.extend(Tree::hold(root));
    }

    /// The path of the file behind a named path, as it was when it was taken hold of.
    pub(super) fn behind(&self, path: &Path) -> Option<&Path> {
        self.0.iter().find(|tree| tree.named == path)?.file.as_deref()
    }

    /// Where a path is now.
    ///
    /// # Errors
    /// When a directory on the way is not there, is another one than was held, or a link.
    pub(super) fn spot(&self, path: &Path) -> io::Result<Spot> {
        let is_at = |tree: &&Tree| match &tree.file {
            Some(file) => file == path,
            None => path != tree.named && path.starts_with(&tree.named),
        };
        let longest = |tree: &&Tree| tree.named.as_os_str().len();
        let tree = self.0.iter().filter(is_at).max_by_key(longest);
        let tree =
            tree.ok_or_else(|| io::Error::other("the named path did not exist when the watch started"))?;
        tree.still_there()?;
        let mut way = vec![tree.held.stat()?];
        let below = match &tree.file {
            Some(_) => Path::new(path.file_name().ok_or(Errno::INVAL)?),
            None => path.strip_prefix(&tree.named).map_err(|_| Errno::INVAL)?,
        };
        let mut dir = tree.held.again()?;
        for part in below.parent().into_iter().flatten() {
            dir = dir.dir(Path::new(part))?;
            way.push(dir.stat()?);
        }
        let name = below.file_name().ok_or(Errno::INVAL)?.to_owned();
        Ok(Spot { dir, name, way })
    }
}

impl Tree {
    fn hold(root: &Path) -> Option<Self> {
        let named = root.to_owned();
        let (file, held) = match NamedPath::follow(root).end {
            End::Directory(dir, _) => (None, dir),
            End::File(at, _) | End::Other(at, _) => (Some(at.path()), at.dir),
            // A file that is not there yet may come.
            End::Missing(_) => {
                let parent = NamedPath::follow(root.parent()?);
                let End::Directory(dir, _) = parent.end else { return None };
                (Some(parent.path.join(root.file_name()?)), dir)
            }
        };
        // To be read.
        let held = held.dir(Path::new("")).ok()?;
        Some(Self { named, file, held })
    }

    /// Nothing is opened by this: it only says whether the name still leads to what is held.
    fn still_there(&self) -> io::Result<()> {
        let dir =
            self.file.as_deref().map_or(Some(self.named.as_path()), Path::parent).ok_or(Errno::INVAL)?;
        let now = statat(CWD, dir, AtFlags::empty())?;
        let held = self.held.stat()?;
        if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) {
            return Ok(());
        }
        Err(io::Error::other(format!("{} is not the directory that was watched", dir.display())))
    }
}

impl Spot {
    /// A name in a directory, however it was found.
    pub(super) fn new(dir: Dir, name: &OsStr) -> Self {
        Self { dir, name: name.to_owned(), way: Vec::new() }
    }

    /// What is at the name now; links are not followed.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// For root: why a file of `owner` is not to be put here. Who may write to a directory may swap what is in it.
    pub(super) fn open_to_others(&self, owner: u32) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        self.way.iter().find_map(|stat| who_else(stat, owner))
    }
}

/// Who may write to a directory beside root and `owner`. With an access list, the bits of the group are its mask: what
/// any name in the list may do at most.
pub(super) fn who_else(stat: &Stat, owner: u32) -> Option<String> {
    let mode = stat.st_mode;
    let is_sticky = mode & 0o1000 != 0;
    if stat.st_uid != 0 && stat.st_uid != owner {
        return Some(format!("a directory on the way belongs to user {}", stat.st_uid));
    }
    let by = match mode & 0o022 {
        0 => return None,
        bits if bits & 0o002 != 0 => "everybody",
        _ => "its group",
    };
    (!is_sticky).then(|| format!("{by} may write to a directory on the way"))
}

/// Whether anybody but root may write to a directory, or to one above it.
pub(super) fn is_private(dir: &Dir) -> bool {
    let mut at = match dir.again() {
        Ok(dir) => std::os::fd::OwnedFd::from(dir),
        Err(_) => return false,
    };
    // The parent of the root directory is itself.
    let mut last = None;
    loop {
        let Ok(stat) = fstat(&at) else { return false };
        if last == Some((stat.st_dev, stat.st_ino)) {
            return true;
        }
        // A sticky directory lets everybody make names, but not take away those of others.
        if who_else(&stat, 0).is_some() {
            return false;
        }
        last = Some((stat.st_dev, stat.st_ino));
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        match rustix::fs::openat(at.as_fd(), OsStr::new(".."), flags, rustix::fs::Mode::empty()) {
            Ok(above) => at = above,
            Err(_) => return false,
        }
    }
}
