//! The polling channel: a compact snapshot of whole trees, and what has changed since the last look at it.
//!
//! In: root paths. Out: an [`Audit`] with the differences of a full comparison. A file takes 24 to 32 bytes and its
//! name; a warm audit makes one `statx` per file and reads a directory only when its times say that a name may have
//! changed.

mod attr;
mod bulk;
pub mod interval;
mod matcher;
mod moves;
mod pace;
mod roots;
mod scan;
mod threads;
mod tree;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use globset::GlobSet;

use self::attr::Attr;
use self::moves::{Findings, Modified};
use self::scan::Task;
use self::tree::{Base, Body, Dir, NONE, TOP, Tree};
use crate::source::difference::{Difference, Kind};
use crate::source::ebpf::ChildReader;

pub use pace::Progress;

/// What a poller looks at, and how hard.
#[derive(Clone, Debug)]
pub struct PollOptions {
    /// Whole trees, not just the root directories.
    pub recursive: bool,
    /// Directories and files left out, by path relative to their root.
    pub exclude: GlobSet,
    /// Share of one core that a scan may take, above 0; the scan then has one thread and rests in between. `None`: all.
    pub budget: Option<f64>,
    /// Lowest priority for processor and disk.
    pub idle: bool,
    /// Threads of a scan without a budget.
    pub threads: usize,
    /// Reads directories of tmpfs from the kernel's memory. `None`: each of their files is queried separately.
    pub children: Option<Arc<ChildReader>>,
}

impl Default for PollOptions {
    /// In the background: a tenth of a core, at idle priority.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            recursive: true,
            exclude: GlobSet::empty(),
            budget: Some(0.1),
            idle: true,
            threads,
            children: None,
        }
    }
}

/// A directory or root that could not be read. What is known of it stays as it was.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// The system's answer.
    pub error: io::Error,
}

/// What one round found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Audit {
    /// Removals first (deepest first), then renames, creations (a directory before what it holds), changes of content,
    /// changes of attributes.
    pub differences: Vec<Difference>,
    /// Files and directories known now, roots included.
    pub files: u64,
    /// Directories that were looked into.
    pub dirs: u64,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
    /// From the start until all was looked at.
    pub took: Duration,
    /// Processor time of all threads.
    pub cpu: Duration,
    /// Not cancelled. What a cancelled audit did not reach is compared by the next.
    pub is_complete: bool,
}

/// The state of the roots as of the last round.
#[derive(Debug)]
pub struct Poller {
    options: PollOptions,
    tree: Tree,
}

impl Poller {
    /// Reads the roots; with a budget this takes its time, so read them without and call [`Self::set_pace`] after. A
    /// root that does not exist is empty.
    ///
    /// # Errors
    /// `InvalidInput` when a root's path holds a NUL, or the budget is not above 0.
    pub fn new(roots: &[PathBuf], options: PollOptions) -> io::Result<Self> {
        Self::with_progress(roots, options, &AtomicBool::new(false), &Progress::default())
    }

    /// As [`Self::new`]; a cancelled scan knows less, and the next audit reports the rest as created.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_progress(
        roots: &[PathBuf],
        options: PollOptions,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> io::Result<Self> {
        if options.budget.is_some_and(|share| share.is_nan() || share <= 0.0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a budget must be above 0"));
        }
        let mut poller = Self { tree: top(roots)?, options };
        // Nothing was known before: what has come is not a difference.
        let mut findings = Findings::default();
        let tasks = roots::look(&mut poller.tree, &mut findings, None);
        threads::run(&mut poller.tree, &poller.options, tasks, true, cancel, progress);
        Ok(poller)
    }

    /// Looks at these roots from now on, and reads the new ones; what they hold is not a difference. A cancelled call knows
    /// less of them, and the next audit reports the rest as created.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn set_roots(
        &mut self,
        roots: &[PathBuf],
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> io::Result<()> {
        let mut findings = Findings::default();
        let mut tasks = Vec::new();
        for slot in replace_top(&mut self.tree, roots)? {
            tasks.extend(roots::look(&mut self.tree, &mut findings, Some(slot)));
        }
        if !tasks.is_empty() {
            threads::run(&mut self.tree, &self.options, tasks, false, cancel, progress);
        }
        Ok(())
    }

    /// Other values of [`PollOptions::budget`] and [`PollOptions::idle`] for the rounds to come.
    pub fn set_pace(&mut self, budget: Option<f64>, idle: bool) {
        self.options.budget = budget.filter(|share| *share > 0.0);
        self.options.idle = idle;
    }

    /// Number of files and directories, roots included.
    pub fn files(&self) -> u64 {
        self.tree.count
    }

    /// Compares everything with what is on disk, and takes that as the new state. `cancel` ends it early, within
    /// about 50 ms; no difference is lost by that.
    ///
    /// # Errors
    /// None today; single directories that fail are in [`Audit::unreadable`].
    pub fn audit(&mut self, cancel: &AtomicBool, progress: &Progress) -> io::Result<Audit> {
        let mut all = Vec::new();
        let audit = self.audit_in_parts(cancel, progress, &mut |part| all.extend(part))?;
        Ok(Audit { differences: all, ..audit })
    }

    /// As [`Self::audit`], but the differences are handed over some thousand at a time, in the order of
    /// [`Audit::differences`], which is empty: there may be as many as files, and each takes hundreds of bytes. `each` may
    /// take its time.
    ///
    /// # Errors
    /// As [`Self::audit`].
    pub fn audit_in_parts(
        &mut self,
        cancel: &AtomicBool,
        progress: &Progress,
        each: &mut dyn FnMut(Vec<Difference>),
    ) -> io::Result<Audit> {
        progress.done.store(0, Ordering::Relaxed);
        progress.of.store(self.tree.count, Ordering::Relaxed);
        let begin = Instant::now();
        let mut findings = Findings::default();
        let tasks = roots::look(&mut self.tree, &mut findings, None);
        Ok(self.round(begin, findings, (tasks, true), cancel, progress, each))
    }

    /// As [`Self::audit`], for who knows the differences: they are not put together, which takes memory for each.
    pub fn renew(&mut self, cancel: &AtomicBool, progress: &Progress) {
        progress.done.store(0, Ordering::Relaxed);
        progress.of.store(self.tree.count, Ordering::Relaxed);
        let mut findings = Findings::default();
        let tasks = roots::look(&mut self.tree, &mut findings, None);
        let (found, ..) = threads::run(&mut self.tree, &self.options, tasks, true, cancel, progress);
        findings.append(found);
        moves::forget(&mut self.tree, findings);
    }

    /// Files of which the last look says that they changed after one inode time and not after another, in nanoseconds
    /// since 1970: what a first look, which has nothing to compare with, can show. Names that disappeared leave nothing
    /// behind.
    pub fn changed_between(&mut self, after_ns: i64, until_ns: i64) -> Vec<Difference> {
        let mut all = Vec::new();
        self.changed_between_in_parts(after_ns, until_ns, &mut |part| all.extend(part));
        all
    }

    /// As [`Self::changed_between`], some thousand at a time, as [`Self::audit_in_parts`].
    pub fn changed_between_in_parts(
        &mut self,
        after_ns: i64,
        until_ns: i64,
        each: &mut dyn FnMut(Vec<Difference>),
    ) {
        let mut findings = Findings::default();
        for id in 0..u32::try_from(self.tree.dirs.len()).unwrap_or(u32::MAX) {
            for (slot, name_at, _) in self.tree.dir(id).body.names() {
                let attr = self.tree.attr(id, slot);
                if attr.ctime > after_ns && attr.ctime <= until_ns && !attr.is_dir() {
                    let kind = if attr.mtime > after_ns { Kind::Content } else { Kind::Attrib };
                    findings.touched.push(Modified { dir: id, slot, name_at, kind });
                }
            }
        }
        moves::resolve(&mut self.tree, &mut findings, each);
    }

    /// Compares only these directories, and what is new below them; for any other path, the nearest known directory
    /// above it. Files of known directories further down are not compared.
    ///
    /// # Errors
    /// None today, as [`Self::audit`].
    pub fn audit_paths(&mut self, paths: &[PathBuf], cancel: &AtomicBool) -> io::Result<Audit> {
        let begin = Instant::now();
        let mut findings = Findings::default();
        let mut tasks: Vec<Task> = Vec::new();
        for path in paths {
            for task in self.locate(path, &mut findings) {
                if !tasks.iter().any(|known| known.id == task.id) {
                    tasks.push(task);
                }
            }
        }
        let mut differences = Vec::new();
        let mut each = |part| differences.extend::<Vec<Difference>>(part);
        let audit = self.round(begin, findings, (tasks, false), cancel, &Progress::default(), &mut each);
        Ok(Audit { differences, ..audit })
    }

    fn round(
        &mut self,
        begin: Instant,
        mut findings: Findings,
        (tasks, whole): (Vec<Task>, bool),
        cancel: &AtomicBool,
        progress: &Progress,
        each: &mut dyn FnMut(Vec<Difference>),
    ) -> Audit {
        let (found, cpu, is_complete) =
            threads::run(&mut self.tree, &self.options, tasks, whole, cancel, progress);
        findings.append(found);
        let roots = std::mem::take(&mut findings.unreadable_roots).into_iter();
        let mut unreadable: Vec<Unreadable> = roots
            .map(|(path, error)| (tree::join(PathBuf::new(), &path), error))
            .chain(findings.unreadable.iter().map(|(id, error)| (self.tree.path(*id), *error)))
            .map(|(path, error)| Unreadable { path, error: error.into() })
            .collect();
        unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        let took = begin.elapsed();
        moves::resolve(&mut self.tree, &mut findings, each);
        let (files, dirs) = (self.tree.count, findings.dirs);
        Audit { differences: Vec::new(), files, dirs, unreadable, took, cpu, is_complete }
    }

    /// The task for the directory at a path. Its root is compared as well: it may have been replaced. A directory whose
    /// own inode changed is reported by its parent, so the parent is taken when the path no longer leads to the same
    /// directory.
    fn locate(&mut self, path: &Path, findings: &mut Findings) -> Vec<Task> {
        let tops: Vec<(u32, PathBuf)> = (self.tree.dir(TOP).body.names())
            .map(|(slot, _, name)| (slot, tree::join(PathBuf::new(), name.to_bytes())))
            .collect();
        let Some((slot, root)) = tops.into_iter().find(|(_, root)| path.starts_with(root)) else {
            return Vec::new();
        };
        let mut tasks = roots::look(&mut self.tree, findings, Some(slot));
        let Some(first) = tasks.first_mut().filter(|task| !task.fresh) else { return tasks };
        first.deep = false;
        let rest = path.strip_prefix(&root).unwrap_or(Path::new(""));
        let mut at = root;
        for part in rest.components() {
            let found = self.child(first.id, part.as_os_str().as_bytes());
            let Some((id, attr)) = found.filter(|(id, _)| *id != NONE) else { break };
            at.push(part);
            let now =
                rustix::fs::statx(rustix::fs::CWD, &at, rustix::fs::AtFlags::SYMLINK_NOFOLLOW, attr::WANTED);
            let is_there = now.is_ok_and(|stat| {
                let now = Attr::of(&stat, 0);
                (now.dev, now.ino, now.is_dir()) == (attr.dev, attr.ino, true)
            });
            if !is_there {
                break;
            }
            first.id = id;
            first.len = at.as_os_str().len();
        }
        // Its times in the snapshot are its parent's business, so they say nothing here.
        self.tree.dir_mut(first.id).listed = false;
        tasks
    }

    fn child(&self, dir: u32, name: &[u8]) -> Option<(u32, Attr)> {
        let body = &self.tree.dir(dir).body;
        let (slot, ..) = body.names().find(|(_, _, known)| known.to_bytes() == name)?;
        Some((body.child(slot), self.tree.attr(dir, slot)))
    }
}

/// A tree of nothing but names of roots.
fn top(roots: &[PathBuf]) -> io::Result<Tree> {
    let mut names = Vec::new();
    let mut entries: Vec<(Attr, u32)> = Vec::new();
    let absent = Attr { dev: 0, ino: 0, ident: 0, mode: 0, size: 0, mtime: 0, ctime: 0, racy: false };
    for root in roots {
        let bytes = root.as_os_str().as_bytes();
        if bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path must not hold a NUL"));
        }
        names.extend_from_slice(bytes);
        names.push(0);
        entries.push((absent, NONE));
    }
    let body = Body::build(&entries, names.into(), Base { ino: 0, dev: 0, devices: &[] });
    let dir = Dir { body, ino: 0, dev: 0, parent: TOP, name_at: 0, listed: true };
    Ok(Tree { dirs: vec![dir], count: entries.len() as u64, ..Tree::default() })
}

/// Makes these the roots of a tree. What is known of those that stay is kept. Returns the slots of the new ones.
fn replace_top(tree: &mut Tree, roots: &[PathBuf]) -> io::Result<Vec<u32>> {
    let fresh = top(roots)?;
    let former: Vec<(u32, Vec<u8>)> =
        tree.dir(TOP).body.names().map(|(slot, _, name)| (slot, name.to_bytes().to_vec())).collect();
    let mut names = Vec::new();
    let (mut entries, mut moved, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for (slot, root) in (0..).zip(roots) {
        let bytes = root.as_os_str().as_bytes();
        let name_at = u32::try_from(names.len()).unwrap_or(u32::MAX);
        if let Some((known, _)) = former.iter().find(|(_, name)| name == bytes) {
            let child = tree.dir(TOP).body.child(*known);
            entries.push((tree.attr(TOP, *known), child));
            moved.push((child, name_at));
        } else {
            entries.push((fresh.attr(TOP, slot), NONE));
            new.push(slot);
        }
        names.extend_from_slice(bytes);
        names.push(0);
    }
    for (slot, _) in
        former.iter().filter(|(_, name)| !roots.iter().any(|root| root.as_os_str().as_bytes() == name))
    {
        let child = tree.dir(TOP).body.child(*slot);
        if child != NONE {
            tree.remove(child);
        }
    }
    tree.count = tree.count - former.len() as u64 + entries.len() as u64;
    let devices = std::mem::take(&mut tree.devices);
    tree.dir_mut(TOP).body = Body::build(&entries, names.into(), Base { ino: 0, dev: 0, devices: &devices });
    tree.devices = devices;
    for (child, name_at) in moved.into_iter().filter(|(child, _)| *child != NONE) {
        tree.dir_mut(child).name_at = name_at;
    }
    Ok(new)
}

/// A directory's path below its root.
fn relative(tree: &Tree, id: u32) -> PathBuf {
    let mut root = id;
    while tree.dir(root).parent != TOP {
        root = tree.dir(root).parent;
    }
    let path = tree.path(id);
    path.strip_prefix(tree.path(root)).map(Path::to_owned).unwrap_or_default()
}
