//! One directory at a time: its files against what is known of them, and its names where they may have changed.
//!
//! In: a [`Task`]. Out: the directory's new records in the tree, [`Findings`], and tasks for the directories below.
//!
//! A generation is read only for a new file, and for one whose change time differs or was in the running tick when
//! it was last seen. A file that replaces another is a new inode, and a new inode gets the time of its making as
//! change time: it cannot have the old one's unless both lie in one tick.

mod list;
mod verdict;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::fchdir;

use super::PollOptions;
use super::attr::{self, Attr, Source, WANTED};
use super::bulk::ext4::Tables;
use super::bulk::{Bulk, Requester};
use super::moves::{Appeared, Disappeared, Findings, Modified};
use super::pace::Pace;
use super::tree::{Base, Body, Device, Facts, NONE, TOP, Tree};
use crate::source::ebpf::ChildReader;
use crate::source::ebpf::children::Lane;
use crate::source::fsinfo::{Family, Fs};
use crate::source::walk::{LONGEST_PATH, open_dir, stat_at, stat_fd};
pub(super) use verdict::{Verdict, judge};

/// Bytes of directory entries read at a time.
const BUFFER: usize = 256 * 1024;
/// With so many files the working directory is moved to theirs: a name relative to it takes no reference of an open file.
const MOVED: usize = 64;
/// Directories held open for the sake of those below them; below more, a directory is opened by its path.
const MAX_HELD: usize = 128;

/// A directory to look at.
pub(super) struct Task {
    pub(super) id: u32,
    /// It is new altogether, and so is what is in it.
    pub(super) fresh: bool,
    /// Continue with the known directories below.
    pub(super) deep: bool,
    /// Bytes of its path.
    pub(super) len: usize,
    pub(super) parent: Option<Arc<Held>>,
}

/// An open directory that is kept for those below it.
#[derive(Debug)]
pub(super) struct Held {
    fd: OwnedFd,
    _count: Arc<()>,
}

/// What all threads of a scan share.
pub(super) struct Shared<'a> {
    pub(super) tree: Mutex<&'a mut Tree>,
    pub(super) options: &'a PollOptions,
    /// One clone a held handle.
    pub(super) held: Arc<()>,
    /// Inodes may be read in bulk: nothing was mounted or unmounted since the round before, and it works.
    pub(super) in_bulk: AtomicBool,
    pub(super) tables: Tables<'a>,
    /// No path is relative to the working directory.
    pub(super) may_move: bool,
}

impl<'a> Shared<'a> {
    pub(super) fn tree(&self) -> MutexGuard<'_, &'a mut Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread of a scan.
pub(super) struct Scanner<'s, 'a, 'p> {
    shared: &'s Shared<'a>,
    pace: Pace<'p>,
    pub(super) findings: Findings,
    buffer: Vec<u8>,
    entries: Vec<(Attr, u32)>,
    names: Vec<u8>,
    /// The devices known when the directory was begun.
    devices: Vec<Device>,
    bulk: Bulk,
    lane: Option<Lane>,
    /// This thread's working directory is its own to change.
    has_own_cwd: bool,
}

/// A directory below the one at hand.
struct Subdirectory {
    slot: u32,
    name_at: u32,
    id: u32,
    dev: u64,
    ino: u64,
    changed: bool,
}

/// What became of one directory.
struct Round {
    came: Vec<Appeared>,
    gone: Vec<Disappeared>,
    touched: Vec<Modified>,
    kids: Vec<Subdirectory>,
    is_whole: bool,
}

impl<'s, 'a, 'p> Scanner<'s, 'a, 'p> {
    pub(super) fn new(shared: &'s Shared<'a>, pace: Pace<'p>) -> Self {
        Self {
            shared,
            pace,
            findings: Findings::default(),
            buffer: Vec::with_capacity(BUFFER),
            entries: Vec::new(),
            names: Vec::new(),
            devices: Vec::new(),
            bulk: Bulk::new(),
            lane: shared.options.children.as_ref().and_then(ChildReader::lane),
            has_own_cwd: shared.may_move && attr::own_cwd(),
        }
    }

    /// Looks at one directory, and appends those below it; `false` when the scan was cancelled.
    pub(super) fn visit(&mut self, task: &Task, below: &mut Vec<Task>) -> bool {
        match self.open(task) {
            Ok(dir) => self.read(task, dir, below),
            Err(error) => self.failed(task, error),
        }
        self.pace.look()
    }

    /// It stays as it was, and is listed the next time. One that disappeared is reported by its parent, the next time.
    fn failed(&mut self, task: &Task, error: Errno) {
        self.shared.tree().dir_mut(task.id).listed = false;
        if !matches!(error, Errno::NOENT | Errno::STALE | Errno::CANCELED) {
            self.findings.unreadable.push((task.id, error));
        }
    }

    fn open(&mut self, task: &Task) -> rustix::io::Result<OwnedFd> {
        let (name, path, expected) = {
            let tree = self.shared.tree();
            let dir = tree.dir(task.id);
            let name: CString = tree.dir(dir.parent).body.name(dir.name_at).to_owned();
            let path = (task.parent.is_none()).then(|| tree.path(task.id));
            (name, path.map(|path| (path, dir.parent == TOP)), (dir.dev, dir.ino))
        };
        let fd = match (&task.parent, path) {
            (Some(parent), _) => attr::open_below(parent.fd.as_fd(), &name)?,
            (None, Some((path, false))) => open_dir(&path)?,
            // The user named it: a symbolic link is followed here, and nowhere below.
            _ => open(
                name.as_c_str(),
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
        };
        let now = Attr::of(&stat_fd(fd.as_fd(), WANTED)?, 0);
        if (now.dev, now.ino) != expected {
            return Err(Errno::STALE);
        }
        Ok(fd)
    }

    fn read(&mut self, task: &Task, fd: OwnedFd, below: &mut Vec<Task>) {
        let dev = self.shared.tree().dir(task.id).dev;
        let facts = self.facts(dev, fd.as_fd());
        if facts.is_pseudo {
            return;
        }
        let (mut body, listed, ino, relative) = {
            let mut tree = self.shared.tree();
            let relative = (!self.shared.options.exclude.is_empty()).then(|| super::relative(&tree, task.id));
            self.devices.clone_from(&tree.devices);
            let dir = tree.dir_mut(task.id);
            (std::mem::take(&mut dir.body), dir.listed, dir.ino, relative)
        };
        let before = body.len() as u64;
        let devices = std::mem::take(&mut self.devices);
        let base = Base { ino, dev, devices: &devices };
        let mut dir =
            OpenDirectory { task, fd: fd.as_fd(), base, source: facts.source, family: facts.family };
        let quick = listed && facts.dates_names;
        let round = if quick {
            Ok(self.known(&mut dir, &mut body))
        } else {
            self.list(&mut dir, &mut body, relative.as_deref())
        };
        self.devices = devices;
        let mut tree = self.shared.tree();
        tree.count = tree.count - before + body.len() as u64;
        tree.dir_mut(task.id).body = body;
        match round {
            Ok(round) => {
                tree.dir_mut(task.id).listed = round.is_whole;
                self.keep(task, fd, round, &mut tree, below);
            }
            Err(error) => {
                drop(tree);
                self.failed(task, error);
            }
        }
    }

    /// What the filesystem is like; asked once for each device.
    fn facts(&mut self, dev: u64, fd: BorrowedFd<'_>) -> Facts {
        let mut tree = self.shared.tree();
        tree.note_device(dev);
        let index = tree.devices.iter().position(|device| device.dev == dev);
        if let Some(facts) = index.and_then(|index| tree.devices[index].facts) {
            return facts;
        }
        let fs = Fs::of(fd).ok();
        let facts = Facts {
            source: attr::source(fd),
            dates_names: fs.is_some_and(|fs| fs.dates_names),
            is_pseudo: fs.is_some_and(|fs| fs.pseudo.is_some()),
            family: fs.map_or(Family::Other, |fs| fs.family),
        };
        if let Some(index) = index {
            tree.devices[index].facts = Some(facts);
        }
        facts
    }

    /// The names are as before: only the files.
    fn known(&mut self, dir: &mut OpenDirectory<'_>, body: &mut Body) -> Round {
        let mut round = Round::new();
        let mut at = 0;
        self.ask_in_bulk(dir, body);
        let now = attr::coarse_now();
        let moves = self.has_own_cwd && body.len() >= MOVED && fchdir(dir.fd).is_ok();
        let at_dir = if moves { CWD } else { dir.fd };
        for slot in 0..body.len() as u32 {
            if !self.pace.step() {
                round.is_whole = false;
                break;
            }
            let name = body.name(at);
            let (here, next) = (at, at + name.count_bytes() as u32 + 1);
            at = next;
            if self.bulk.is_same(slot) {
                continue;
            }
            let stat = match stat_at(at_dir, name, WANTED) {
                Ok(stat) => stat,
                Err(_) => {
                    // It disappeared after the directory was read, or may not be read: listed the next time.
                    round.is_whole = false;
                    continue;
                }
            };
            let seen = Attr::of(&stat, now);
            if body.says(slot, &seen, dir.base) {
                continue;
            }
            let old = body.attr(slot, dir.base);
            let child = body.child(slot);
            let verdict = dir.judge(&old, seen, &stat, name);
            let gone = matches!(verdict, Verdict::Replaced(_)).then(|| name.to_bytes().into());
            let (attr, child) = self.take(dir, &mut round, &old, child, verdict, (slot, here), gone);
            if attr != old {
                self.fit(&attr, dir, |base| body.set(slot, &attr, child, base));
            }
        }
        round
    }

    /// Directories are left out: they are looked into in any case, and something may be mounted on them. So is what was
    /// last seen in the tick of its change.
    fn ask_in_bulk(&mut self, dir: &OpenDirectory<'_>, body: &Body) {
        let of_here = |attr: &Attr| attr.dev == dir.base.dev && !attr.is_dir() && !attr.racy;
        let table = (dir.family == Family::Ext).then(|| self.shared.tables.of(dir.base.dev)).flatten();
        let whom = match dir.family {
            Family::Xfs => Some(Requester::Xfs(dir.fd)),
            Family::Ext => table.as_deref().map(Requester::Ext4),
            Family::Cached => self.lane.as_ref().map(|lane| Requester::Cached(lane, dir.fd)),
            Family::Other => None,
        };
        let whom = whom.filter(|_| dir.source == Source::Generation);
        let known = |slot| body.attr(slot, dir.base);
        self.bulk.look(whom, &self.shared.in_bulk, &mut self.pace, body.len(), known, of_here);
    }

    /// Writes a record whose device may be one that was not met before.
    fn fit(&self, attr: &Attr, dir: &OpenDirectory<'_>, write: impl FnOnce(Base<'_>)) {
        if attr.dev == dir.base.dev {
            return write(dir.base);
        }
        let mut tree = self.shared.tree();
        tree.note_device(attr.dev);
        write(Base { devices: &tree.devices, ..dir.base });
    }

    /// Notes what a known name has become, and gives its new record.
    #[expect(clippy::too_many_arguments, reason = "all of one entry; a struct would have one use")]
    fn take(
        &self,
        dir: &OpenDirectory<'_>,
        round: &mut Round,
        old: &Attr,
        child: u32,
        verdict: Verdict,
        (slot, name_at): (u32, u32),
        gone: Option<Box<[u8]>>,
    ) -> (Attr, u32) {
        let id = dir.task.id;
        let (attr, child) = match verdict {
            Verdict::Same(attr) => (attr, child),
            Verdict::Modified(attr, kind) => {
                round.touched.push(Modified { dir: id, slot, name_at, kind });
                (attr, child)
            }
            Verdict::Replaced(attr) => {
                let name = gone.unwrap_or_default();
                round.gone.push(Disappeared { parent: id, name, attr: *old, child });
                round.came.push(Appeared { dir: id, slot, name_at });
                (attr, NONE)
            }
        };
        if attr.is_dir() {
            let changed = old.racy || (attr.mtime, attr.ctime) != (old.mtime, old.ctime);
            round.kids.push(Subdirectory { slot, name_at, id: child, dev: attr.dev, ino: attr.ino, changed });
        }
        (attr, child)
    }

    /// Takes over what was found, and makes the tasks below.
    fn keep(&mut self, task: &Task, fd: OwnedFd, round: Round, tree: &mut Tree, below: &mut Vec<Task>) {
        self.findings.dirs += 1;
        self.findings.came.extend(round.came);
        self.findings.gone.extend(round.gone);
        self.findings.touched.extend(round.touched);
        if !self.shared.options.recursive || round.kids.is_empty() {
            return;
        }
        let room = Arc::strong_count(&self.shared.held) < MAX_HELD;
        let mut too_deep = false;
        // At once: to grow step by step takes more than twice the room for a moment.
        let new = round.kids.iter().filter(|kid| kid.id == NONE).count();
        tree.dirs.reserve(new.saturating_sub(tree.free.len()));
        let fd = room.then(|| Arc::new(Held { fd, _count: Arc::clone(&self.shared.held) }));
        for kid in round.kids {
            let known = kid.id != NONE;
            let len = task.len + 1 + tree.dir(task.id).body.name(kid.name_at).count_bytes();
            if len > LONGEST_PATH {
                // What was known of it, before it was moved here, stays as it was.
                too_deep = true;
                continue;
            }
            let id = if known { kid.id } else { tree.add(task.id, kid.name_at, (kid.dev, kid.ino)) };
            tree.dir_mut(task.id).body.set_child(kid.slot, id);
            let dir = tree.dir_mut(id);
            dir.name_at = kid.name_at;
            if kid.changed {
                dir.listed = false;
            }
            let skip = dir.listed && dir.body.len() == 0;
            if (known && !task.deep) || skip {
                continue;
            }
            below.push(Task { id, fresh: !known, deep: true, len, parent: fd.clone() });
        }
        if too_deep {
            self.findings.unreadable.push((task.id, Errno::NAMETOOLONG));
        }
    }
}

/// The directory at hand.
struct OpenDirectory<'a> {
    task: &'a Task,
    fd: BorrowedFd<'a>,
    base: Base<'a>,
    source: Source,
    family: Family,
}

impl Round {
    fn new() -> Self {
        Self { came: Vec::new(), gone: Vec::new(), touched: Vec::new(), kids: Vec::new(), is_whole: true }
    }
}
