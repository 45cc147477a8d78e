//! One of the processes that change the tree: random operations, each with its result in a log.
//!
//! In: lines with a number of operations. Out: for each such line the log of those operations, and a line with a dot.
//! All writers change the same small set of names, so many operations fail; those that do are in the log as well.

mod content;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::fs::{self as sys, AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::mounts::POINT;
use super::random::Random;

/// Names in a directory.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// Levels below the root.
const DEPTH: usize = 5;
/// Files that a writer keeps open.
const HELD: usize = 3;

/// How a writer works.
#[derive(clap::Args, Clone, Debug)]
pub struct WriterArgs {
    /// The traced directory.
    #[arg(long)]
    pub root: PathBuf,
    /// A directory beside it on the same filesystem.
    #[arg(long)]
    pub outside: PathBuf,
    /// The file whose lock orders the changes of names; without it they overlap.
    #[arg(long)]
    pub lock: Option<PathBuf>,
    /// Give names by whole paths, too, and follow links. The tracepoint tier finds out after the call where a path led.
    #[arg(long)]
    pub paths: bool,
    /// Seed of the whole test.
    #[arg(long)]
    pub seed: u64,
    /// Number of this writer.
    #[arg(long)]
    pub number: u64,
}

/// Result of an operation.
pub(super) type Done = Result<(), Errno>;

/// A writer.
pub(super) struct Writer {
    args: WriterArgs,
    pub(super) random: Random,
    root: File,
    lock: Option<Rc<File>>,
    pub(super) held: Vec<(File, PathBuf)>,
    log: String,
}

/// A name, as a system call is given it.
pub(super) struct Given {
    dir: Option<File>,
    /// The whole path, for the log.
    pub(super) path: PathBuf,
    name: PathBuf,
}

impl Given {
    /// What the name is relative to.
    pub(super) fn at(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, AsFd::as_fd)
    }

    /// The name.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }
}

/// Runs a writer until its input ends.
///
/// # Errors
/// The directories cannot be opened, or nobody reads the log.
pub fn run(args: WriterArgs) -> Result<()> {
    let lock =
        args.lock.as_ref().map(|path| File::open(path).with_context(|| format!("open {}", path.display())));
    let root = File::open(&args.root).with_context(|| format!("open {}", args.root.display()))?;
    let random = Random::new(args.seed, args.number + 1);
    let mut writer = Writer {
        args,
        random,
        root,
        lock: lock.transpose()?.map(Rc::new),
        held: Vec::new(),
        log: String::new(),
    };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let count: u64 = line.context("read a number of operations")?.parse().context("read a number")?;
        for _ in 0..count {
            writer.operation();
        }
        writer.held.clear();
        writer.log.push_str(".\n");
        output.write_all(writer.log.as_bytes()).and_then(|()| output.flush()).context("hand the log over")?;
        writer.log.clear();
    }
    Ok(())
}

impl Writer {
    fn operation(&mut self) {
        let is_of_names = self.random.percent(46);
        let held = self.lock.clone().filter(|_| is_of_names).map(Locked::take);
        let started = SystemTime::now();
        let mut what = String::new();
        let done = if is_of_names { self.names(&mut what) } else { content::change(self, &mut what) };
        drop(held);
        let result = match done {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        let _ = writeln!(self.log, "{} w{} {what} = {result}", clock(started), self.args.number);
    }

    /// A name somewhere in the tree, seldom outside it.
    pub(super) fn pick(&mut self) -> PathBuf {
        let outside = self.random.percent(8);
        let mut path = if outside { self.args.outside.clone() } else { self.args.root.clone() };
        if !outside && self.random.percent(10) {
            path.push(POINT);
        }
        let depth = if outside { 2 } else { DEPTH };
        for level in 1..=depth {
            path.push(self.random.of(&NAMES));
            let is_dir = path.symlink_metadata().is_ok_and(|data| data.is_dir());
            if !is_dir || level == depth || self.random.percent(25) {
                break;
            }
        }
        path
    }

    /// The name, by one of the ways to give it.
    pub(super) fn give(&mut self, path: PathBuf) -> Given {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let (dir, name) = match if self.args.paths { self.random.below(3) } else { 2 } {
            0 => (None, path.clone()),
            1 => match path.strip_prefix(&self.args.root) {
                Ok(relative) => (self.root.try_clone().ok(), relative.to_owned()),
                Err(_) => (None, path.clone()),
            },
            _ => match sys::open(parent, flags, Mode::empty()) {
                Ok(dir) => (Some(File::from(dir)), path.file_name().map(PathBuf::from).unwrap_or_default()),
                Err(_) => (None, path.clone()),
            },
        };
        // A descriptor that could not be copied would change what a relative name means.
        let name = if dir.is_none() { path.clone() } else { name };
        Given { dir, path, name }
    }

    /// A name to work on.
    pub(super) fn given(&mut self) -> Given {
        let path = self.pick();
        self.give(path)
    }

    /// How to open a file: without following a link, unless paths are followed.
    pub(super) fn follow(&self) -> OFlags {
        if self.args.paths { OFlags::empty() } else { OFlags::NOFOLLOW }
    }

    /// Whether names may be given by whole paths.
    pub(super) fn paths(&self) -> bool {
        self.args.paths
    }

    /// A path for the log: `in/…` or `out/…`.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.args.root).map_or_else(
            |_| format!("out/{}", path.strip_prefix(&self.args.outside).unwrap_or(path).display()),
            |path| format!("in/{}", path.display()),
        )
    }

    /// A change of names.
    fn names(&mut self, what: &mut String) -> Done {
        let given = self.given();
        let first = self.shown(&given.path);
        let (at, name) = (given.at(), given.name());
        let choice = self.random.below(46);
        match choice {
            0..10 => {
                // Whether another open made the file is found out by the time of its birth.
                let exclusive = !self.args.paths || self.random.percent(60);
                let _ = write!(what, "{} {first}", if exclusive { "create" } else { "create-or-truncate" });
                let how = if exclusive { OFlags::EXCL } else { OFlags::TRUNC | self.follow() };
                let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | how;
                let file = File::from(sys::openat(at, name, flags, Mode::from(0o644))?);
                let path = given.path.clone();
                self.hold(file, path);
                Ok(())
            }
            10..18 => {
                let _ = write!(what, "mkdir {first}");
                sys::mkdirat(at, name, Mode::from(0o755))
            }
            18..23 => {
                let _ = write!(what, "unlink {first}");
                sys::unlinkat(at, name, AtFlags::empty())
            }
            23..26 => {
                let _ = write!(what, "rmdir {first}");
                sys::unlinkat(at, name, AtFlags::REMOVEDIR)
            }
            26..28 => {
                let target = self.pick();
                let _ = write!(what, "symlink {first} to {}", self.shown(&target));
                sys::symlinkat(target, at, name)
            }
            28 => {
                let _ = write!(what, "mknod {first}");
                let kind = *self.random.of(&[
                    sys::FileType::Fifo,
                    sys::FileType::Socket,
                    sys::FileType::RegularFile,
                ]);
                sys::mknodat(at, name, kind, Mode::from(0o644), 0)
            }
            29..31 => self.unnamed(&given, what),
            _ => self.two_names(&given, choice, what),
        }
    }

    fn two_names(&mut self, given: &Given, choice: u64, what: &mut String) -> Done {
        let other = self.given();
        let (first, second) = (self.shown(&given.path), self.shown(&other.path));
        if !self.args.paths && is_same_file(&given.path, &other.path) {
            // A rename that does nothing: the tracepoint tier knows it by looking, which is later.
            let _ = write!(what, "nothing with {first} and {second}");
            return Err(Errno::EXIST);
        }
        let mut rename = |word, flags| {
            let _ = write!(what, "{word} {first} to {second}");
            sys::renameat_with(given.at(), given.name(), other.at(), other.name(), flags)
        };
        match choice {
            31..36 => rename("rename", RenameFlags::empty()),
            36..38 => rename("rename-noreplace", RenameFlags::NOREPLACE),
            38..42 => rename("exchange", RenameFlags::EXCHANGE),
            42 => rename("rename-whiteout", RenameFlags::WHITEOUT),
            _ => {
                let _ = write!(what, "link {first} as {second}");
                sys::linkat(given.at(), given.name(), other.at(), other.name(), AtFlags::empty())
            }
        }
    }

    /// A file that gets its name last.
    fn unnamed(&mut self, given: &Given, what: &mut String) -> Done {
        let _ = write!(what, "tmpfile {}", self.shown(&given.path));
        let parent = given.path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(sys::open(parent, flags, Mode::from(0o644))?);
        content::write(&file, &mut self.random)?;
        let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        sys::linkat(CWD, descriptor, given.at(), given.name(), AtFlags::SYMLINK_FOLLOW)
    }

    /// Keeps a file open, instead of one of those that are.
    pub(super) fn hold(&mut self, file: File, path: PathBuf) {
        if self.held.len() == HELD {
            self.held.remove(0);
        }
        self.held.push((file, path));
    }
}

/// Whether two names are of one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.symlink_metadata().ok().map(|data| (data.dev(), data.ino()));
    file(one).is_some_and(|found| file(other) == Some(found))
}

/// The lock of the names, until it is dropped.
struct Locked(Rc<File>);

impl Locked {
    fn take(file: Rc<File>) -> Self {
        // A lock that cannot be had shows as names in another order than they were reported.
        let _ = sys::flock(&file, FlockOperation::LockExclusive);
        Self(file)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = sys::flock(&self.0, FlockOperation::Unlock);
    }
}

/// The time of the day as in hotr's lines.
pub(super) fn clock(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() % 86400;
    format!("{:02}:{:02}:{:02}.{:09}", seconds / 3600, seconds / 60 % 60, seconds % 60, since.subsec_nanos())
}
