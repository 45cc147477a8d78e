//! Where a path leads, link by link.
//!
//! In: a path. Out: the links on the way with the directories that hold them, and what is at the end. Each name is looked at
//! once, in a directory that is held: what is swapped meanwhile cannot make two answers of one path. Every part of hotr
//! that asks where a named path leads asks here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Dir, search_flags};

/// As the kernel: more links on one way are a loop (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// A name may be replaced between the two ways of opening it: so often it is tried again.
const TRIES: usize = 64;

/// A path that was followed.
#[derive(Debug)]
#[non_exhaustive]
pub struct NamedPath {
    /// The links, in the order in which they were followed.
    pub links: Vec<FollowedLink>,
    /// The end, absolute and without links. What is missing of it is joined as it was named.
    pub path: PathBuf,
    /// What is there.
    pub end: End,
}

/// A name in a directory that is held.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeldName {
    /// The directory.
    pub dir: Dir,
    /// Its path, absolute and without links.
    pub dir_path: PathBuf,
    /// The name.
    pub name: OsString,
}

impl HeldName {
    /// Absolute; no directory on the way is a link.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir_path.join(&self.name)
    }
}

/// A symbolic link on the way.
#[derive(Debug)]
#[non_exhaustive]
pub struct FollowedLink {
    /// Where it is.
    pub at: HeldName,
    /// The user who owns it.
    pub owner: u32,
    /// It stands for the last name of the path, or of a link that does.
    pub is_last: bool,
}

/// What is at the end of a path.
#[derive(Debug)]
pub enum End {
    /// Nothing that can be looked at, and why.
    Missing(Errno),
    /// A directory, held to go on from there.
    Directory(Dir, Stat),
    /// A regular file.
    File(HeldName, Stat),
    /// Anything else: a pipe, a socket, a device.
    Other(HeldName, Stat),
}

/// Why a path is not followed any further.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// It has no last name.
    NoName,
    /// This link is of a user who may not lead.
    Link(OsString, u32),
    /// The kernel refused.
    Refused(Errno),
}

impl From<Errno> for Lost {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl NamedPath {
    /// Follows a path; a relative one from the working directory.
    #[must_use]
    pub fn follow(path: &Path) -> Self {
        let mut walk = match Walk::of(path) {
            Ok(walk) => walk,
            Err(errno) => return Self { links: Vec::new(), path: path.to_owned(), end: End::Missing(errno) },
        };
        let end = walk.finish();
        Self { links: walk.links, path: walk.path, end }
    }

    /// The directory at the end, or each name that leads there: a change of one of these names makes the path lead to
    /// something else. A path that leads to no directory has one name for each link that stands for its last name, and
    /// that of the file.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn into_last_names(self) -> Result<Result<(Dir, PathBuf), Vec<HeldName>>, Errno> {
        let file = match self.end {
            End::Missing(errno) => return Err(errno),
            End::Directory(dir, _) => return Ok(Ok((dir, self.path))),
            End::File(at, _) | End::Other(at, _) => at,
        };
        let links = self.links.into_iter().filter(|link| link.is_last).map(|link| link.at);
        Ok(Err(links.chain([file]).collect()))
    }

    /// The path without links, if something is there.
    #[must_use]
    pub fn real(self) -> Option<PathBuf> {
        (!matches!(self.end, End::Missing(_))).then_some(self.path)
    }

    /// Who owns what is at the end.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match &self.end {
            End::Missing(_) => None,
            End::Directory(_, stat) | End::File(_, stat) | End::Other(_, stat) => Some(stat.st_uid),
        }
    }

    /// Who made a link of the way and owns neither its end nor this process: he may not be able to read what it leads to,
    /// and would learn about it.
    #[must_use]
    pub fn stranger(&self) -> Option<u32> {
        let owner = self.owner()?;
        let may_lead = |uid: &u32| *uid == 0 || *uid == owner || *uid == geteuid().as_raw();
        self.links.iter().map(|link| link.owner).find(|uid| !may_lead(uid))
    }
}

/// Opens the directory of a path; with the last name, which is not looked at. `may_lead`: whether links of this user are
/// followed.
///
/// # Errors
/// See [`Lost`].
pub fn way(path: &Path, may_lead: impl Fn(u32) -> bool) -> Result<(Dir, OsString), Lost> {
    let name = path.file_name().ok_or(Lost::NoName)?.to_owned();
    let mut walk = Walk::of(path.parent().unwrap_or(Path::new("")))?;
    while let Some(part) = walk.todo.pop() {
        match step(&walk.at, &part)? {
            Step::Directory(dir) => walk.enter(&part, dir),
            Step::Link(_, stat) if !may_lead(stat.st_uid) => return Err(Lost::Link(part, stat.st_uid)),
            Step::Link(target, stat) => walk.follow(part, &target, stat.st_uid)?,
            Step::Other(_) => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok((walk.at, name))
}

/// The state of following a path.
struct Walk {
    /// Components still to be followed, the next one last.
    todo: Vec<OsString>,
    at: Dir,
    /// Of `at`.
    path: PathBuf,
    links: Vec<FollowedLink>,
}

/// What a name is.
enum Step {
    Directory(Dir),
    Link(PathBuf, Stat),
    Other(Stat),
}

impl Walk {
    fn of(path: &Path) -> Result<Self, Errno> {
        let at = Dir::search(Path::new("."))?;
        // An absolute path begins at the root directory, and needs no working directory.
        let here = if path.is_absolute() { Ok(PathBuf::from("/")) } else { std::env::current_dir() };
        let here = here.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Self { todo: backwards(path), at, path: here, links: Vec::new() })
    }

    fn finish(&mut self) -> End {
        while let Some(part) = self.todo.pop() {
            let found = step(&self.at, &part);
            let kind = match found {
                Ok(Step::Directory(dir)) => {
                    self.enter(&part, dir);
                    continue;
                }
                Ok(Step::Link(target, stat)) => match self.follow(part, &target, stat.st_uid) {
                    Ok(()) => continue,
                    Err(errno) => return End::Missing(errno),
                },
                Ok(Step::Other(stat)) if self.todo.is_empty() => Ok(stat),
                Ok(Step::Other(_)) => Err(Errno::NOTDIR),
                Err(errno) => Err(errno),
            };
            let dir_path = self.path.clone();
            self.path.push(&part);
            return match kind {
                Err(errno) => {
                    self.path.extend(self.todo.drain(..).rev());
                    End::Missing(errno)
                }
                Ok(stat) => match self.at.again() {
                    Ok(dir) => {
                        let at = HeldName { dir, dir_path, name: part };
                        match FileType::from_raw_mode(stat.st_mode) {
                            FileType::RegularFile => End::File(at, stat),
                            _ => End::Other(at, stat),
                        }
                    }
                    Err(error) => End::Missing(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                },
            };
        }
        match (self.at.again(), fstat(&self.at)) {
            (Ok(dir), Ok(stat)) => End::Directory(dir, stat),
            (Err(error), _) => End::Missing(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            (_, Err(errno)) => End::Missing(errno),
        }
    }

    fn enter(&mut self, part: &OsStr, dir: Dir) {
        self.at = dir;
        match Path::new(part).components().next() {
            Some(Component::RootDir) => self.path = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                self.path.pop();
            }
            _ => self.path.push(part),
        }
    }

    fn follow(&mut self, name: OsString, target: &Path, owner: u32) -> Result<(), Errno> {
        if self.links.len() >= MOST_LINKS {
            return Err(Errno::LOOP);
        }
        let dir = self.at.again().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let is_last = self.todo.is_empty();
        let at = HeldName { dir, dir_path: self.path.clone(), name };
        self.links.push(FollowedLink { at, owner, is_last });
        self.todo.extend(backwards(target));
        Ok(())
    }
}

/// Looks at a name. A directory is opened as one, which also mounts what is mounted when it is entered.
fn step(at: &Dir, name: &OsStr) -> Result<Step, Errno> {
    for _ in 0..TRIES {
        match openat(at, name, search_flags() | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(dir) => return Ok(Step::Directory(Dir(dir))),
            // fs/namei.c `do_open`: so ends a symbolic link that is not followed, and a file.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno),
        }
        let fd = openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = readlinkat(&fd, c"", Vec::new())?;
                return Ok(Step::Link(PathBuf::from(OsString::from_vec(target.into_bytes())), stat));
            }
            // It became one between the two calls.
            FileType::Directory => {}
            _ => return Ok(Step::Other(stat)),
        }
    }
    Err(Errno::AGAIN)
}

/// The components of a path, the last first.
fn backwards(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(path: &Path) -> Vec<PathBuf> {
        let last = NamedPath::follow(path).into_last_names().unwrap();
        last.unwrap_err().iter().map(HeldName::path).collect()
    }

    #[test]
    fn a_path_leads_where_the_kernel_says_by_links_of_all_kinds() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("d/e")).unwrap();
        fs::write(top.join("d/e/f"), "").unwrap();
        symlink("d/e", top.join("l")).unwrap();
        symlink(top.join("l"), top.join("d/m")).unwrap();
        symlink("../l/../e/f", top.join("d/g")).unwrap();
        symlink("d/g", top.join("h")).unwrap();
        symlink("o", top.join("o")).unwrap();
        symlink("none/x", top.join("n")).unwrap();
        for path in ["l", "d/m", "d/m/f", "h", "d/../l/./..", "o", "n", "none", "d/e/f/g", "h/..", "/", ""] {
            let path = top.join(path);
            let real = path.canonicalize();
            let found = NamedPath::follow(&path);
            match (&found.end, &real) {
                (End::Missing(errno), Err(error)) => {
                    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()))
                }
                (_, real) => assert_eq!(Some(&found.path), real.as_ref().ok(), "{path:?}"),
            }
        }
        let missing = NamedPath::follow(&top.join("l/none/x/y")).path;
        assert_eq!(missing, top.join("d/e/none/x/y"), "what is missing is joined");
        assert_eq!(names(&top.join("h")), [top.join("h"), top.join("d/g"), top.join("d/e/f")]);
        assert_eq!(names(&top.join("l/f")), [top.join("d/e/f")], "the last name is no link");
        let links = NamedPath::follow(&top.join("d/m/f")).links;
        let links: Vec<_> = links.iter().map(|link| (link.at.path(), link.is_last)).collect();
        assert_eq!(links, [(top.join("d/m"), false), (top.join("l"), false)]);
    }

    #[test]
    fn a_name_that_is_swapped_meanwhile_has_one_answer() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().canonicalize().unwrap();
        let [path, link, dir, file] = ["x", "link", "dir", "file"].map(|name| top.join(name));
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "").unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let wrong = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::create_dir(&path).and_then(|()| fs::remove_dir(&path));
                    let _ = symlink("dir", &link).and_then(|()| fs::rename(&link, &path));
                    let _ = fs::remove_file(&path);
                    let _ = fs::write(&path, "").and_then(|()| fs::remove_file(&path));
                }
            });
            let wrong = (0..50_000).find_map(|_| {
                let found = NamedPath::follow(&path);
                let is_right = match found.end {
                    End::Missing(errno) => errno == Errno::NOENT,
                    End::Directory(..) => {
                        found.path == if found.links.is_empty() { &path } else { &dir }.as_path()
                    }
                    End::File(..) => found.links.is_empty(),
                    End::Other(..) => false,
                };
                (!is_right).then(|| format!("{found:?}"))
            });
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            wrong
        });
        assert_eq!(wrong, None);
    }
}
