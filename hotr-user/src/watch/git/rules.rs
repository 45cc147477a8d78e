//! Which paths below one root git would ignore.
//!
//! In: the root, and paths below it. Out: ignored or not. Rules come from the `.gitignore` of each directory between the
//! top of the working tree and the path, the deepest first, then from `info/exclude` of the repository; a directory that
//! is ignored takes all it holds with it. A root is named by the user, so rules from above it that exclude the root
//! itself, or that name everything in it, are set aside for it.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::pattern::{self, Rule};
use super::{GitDir, read_small};
use crate::beneath::{Dir as Held, End, NamedPath};

/// Most bytes of a file of rules, and of all files that hold for one directory: each path is compared with all of them.
const LIMIT: u64 = 256 << 10;
/// Bytes of the files whose rules are remembered.
const REMEMBERED: u64 = 4 * LIMIT;
/// Directories whose rules are remembered.
const DIRS: usize = 4096;
/// Names that a rule matches only if it matches all names of a directory.
const ANY: [&str; 2] = ["\u{1}hotr\u{2}", "\u{3}A.b\u{4}0"];

/// Messages about files of rules, once each; shared by all clones of a filter.
#[derive(Clone, Debug, Default)]
pub(in crate::watch) struct Notices(Arc<Mutex<(HashSet<PathBuf>, Vec<String>)>>);

impl Notices {
    fn add(&self, path: &Path, why: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.0.len() < DIRS && inner.0.insert(path.to_owned()) {
            let text = format!("read {}: {why}; its rules are not applied", path.display());
            inner.1.push(text);
        }
    }

    /// What was not said yet.
    pub(in crate::watch) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

/// The rules of one file, and those that are asked when none of them decides.
#[derive(Debug)]
struct List {
    /// Bytes of a path up to what the rules are matched with.
    base: usize,
    rules: Vec<Rule>,
    /// Bytes of the files of this list and those above.
    bytes: u64,
    above: Option<Arc<List>>,
}

/// What is known of a directory.
#[derive(Clone, Debug, Default)]
struct Dir {
    is_ignored: bool,
    rules: Option<Arc<List>>,
}

impl Dir {
    /// The rule that decides about a path, if any does.
    fn decides(&self, path: &[u8], is_dir: bool) -> Option<&Rule> {
        let mut list = self.rules.as_deref();
        while let Some(one) = list {
            let relative = path.get(one.base..).unwrap_or_default();
            let rule = one.rules.iter().rev().find(|rule| rule.matches(relative, is_dir));
            if rule.is_some() {
                return rule;
            }
            list = one.above.as_deref();
        }
        None
    }

    fn ignores(&self, path: &[u8], is_dir: bool) -> bool {
        self.is_ignored || self.decides(path, is_dir).is_some_and(|rule| !rule.is_negative)
    }

    fn bytes(&self) -> u64 {
        self.rules.as_ref().map_or(0, |list| list.bytes)
    }

    fn add(&mut self, dir: &Path, rules: Vec<Rule>, bytes: u64) {
        if rules.is_empty() {
            return;
        }
        let length = dir.as_os_str().len();
        let base = if dir == Path::new("/") { length } else { length + 1 };
        let bytes = self.bytes() + bytes;
        self.rules = Some(Arc::new(List { base, rules, bytes, above: self.rules.take() }));
    }
}

/// Rules for one root.
#[derive(Clone, Debug)]
pub(in crate::watch) struct Rules {
    named: PathBuf,
    /// The directory without links; none while it leads nowhere.
    real: Option<PathBuf>,
    dirs: BTreeMap<PathBuf, Dir>,
    /// Bytes of the files that were read for them, at most.
    remembered: u64,
    notices: Notices,
}

impl Rules {
    /// For paths below this root, which may be a file.
    pub(in crate::watch) fn new(named: PathBuf, notices: Notices) -> Self {
        Self { named, real: None, dirs: BTreeMap::new(), remembered: 0, notices }
    }

    /// Reads all files again.
    pub(in crate::watch) fn forget(&mut self) {
        self.real = None;
        self.dirs.clear();
    }

    /// Reads the files below a directory again.
    pub(in crate::watch) fn forget_below(&mut self, dir: &Path) {
        let Ok(relative) = dir.strip_prefix(&self.named) else { return };
        let Some(real) = self.real.as_ref().map(|real| real.join(relative)) else { return };
        let below = self.dirs.range(real.clone()..).take_while(|(path, _)| path.starts_with(&real));
        for path in below.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.dirs.remove(&path);
        }
    }

    /// Whether git ignores a path, which is relative to the root and not empty.
    pub(in crate::watch) fn ignore(&mut self, relative: &Path, is_dir: bool) -> bool {
        if self.real.is_none() {
            self.begin();
        }
        let Some(real) = &self.real else { return false };
        let path = real.join(relative);
        let Some(parent) = path.parent() else { return false };
        let dir = self.dir(&real.clone(), parent);
        dir.ignores(path.as_os_str().as_bytes(), is_dir)
    }

    /// What is known of a directory at or below the root.
    fn dir(&mut self, root: &Path, dir: &Path) -> Dir {
        let known = |at: &&Path| *at == root || self.dirs.contains_key(*at);
        let Some(begin) = dir.ancestors().find(known) else { return Dir::default() };
        let mut state = self.dirs.get(begin).cloned().unwrap_or_default();
        let mut at = begin.to_owned();
        for name in dir.strip_prefix(begin).into_iter().flatten() {
            at.push(name);
            let before = state.bytes();
            // Nobody asks git about what an ignored directory holds.
            if !state.is_ignored {
                state.is_ignored = state.ignores(at.as_os_str().as_bytes(), true);
                if !state.is_ignored {
                    self.read(&mut state, &at, None);
                }
            }
            self.remembered += state.bytes().saturating_sub(before);
            if self.dirs.len() >= DIRS || self.remembered > REMEMBERED {
                self.dirs.retain(|dir, _| dir == root);
                self.remembered = 0;
            }
            self.dirs.insert(at.clone(), state.clone());
        }
        state
    }

    /// Finds the working tree, and the rules above the root that hold for it.
    fn begin(&mut self) {
        let mut found = NamedPath::follow(&self.named);
        if !matches!(found.end, End::Directory(..)) {
            let Some(dir) = self.named.parent() else { return };
            found = NamedPath::follow(dir);
        }
        let owner = found.owner();
        let Some(real) = found.real() else { return };
        let owners = [0, rustix::process::geteuid().as_raw(), owner.unwrap_or(0)];
        let mut state = Dir::default();
        let mut above: Vec<&Path> = real.ancestors().collect();
        above.truncate(above.iter().position(|dir| self.is_top(dir, &owners)).map_or(1, |top| top + 1));
        for (i, dir) in above.iter().rev().enumerate() {
            let is_root = i + 1 == above.len();
            if i > 0 {
                set_aside(&mut state, dir.as_os_str().as_bytes(), true, |_| true);
            }
            if is_root {
                for name in ANY {
                    let (file, deeper) = (dir.join(name), dir.join(name).join(name));
                    for (path, is_dir) in [(&file, false), (&file, true), (&deeper, false)] {
                        set_aside(&mut state, path.as_os_str().as_bytes(), is_dir, |rule| rule.is_anchored);
                    }
                }
            }
            self.read(&mut state, dir, (!is_root).then_some(&owners));
        }
        self.dirs.insert(real.clone(), state);
        self.real = Some(real);
    }

    /// Whether a directory is the top of a working tree, of an owner whose rules may decide what is watched: somebody who
    /// can write in a directory above could make hotr deaf otherwise.
    fn is_top(&self, dir: &Path, owners: &[u32]) -> bool {
        let Some(git) = Held::search_real(dir).ok().and_then(|fd| GitDir::of(fd.as_fd(), dir)) else {
            return false;
        };
        if !git.is_repository() {
            return false;
        }
        let is_trusted = owners.contains(&git.owner);
        if !is_trusted {
            self.notices.add(&git.path, &format!("it belongs to user {}", git.owner));
        }
        is_trusted
    }

    /// Adds the rules that a directory holds.
    fn read(&self, state: &mut Dir, dir: &Path, owners: Option<&[u32]>) {
        let Ok(fd) = Held::search_real(dir) else { return };
        if let Some(git) = GitDir::of(fd.as_fd(), dir).filter(GitDir::is_repository)
            && let Some(common) = git.common()
        {
            // Another repository: rules from above are not its own.
            state.rules = None;
            let info = common.path.join("info");
            if let Ok(fd) = common.dir.search_below(Path::new("info")) {
                self.file(state, dir, (fd.as_fd(), &info, "exclude"), owners);
            }
        }
        self.file(state, dir, (fd.as_fd(), dir, ".gitignore"), owners);
    }

    /// Adds the rules of one file for a directory: the file's directory, opened and as a path, and its name.
    fn file(
        &self,
        state: &mut Dir,
        dir: &Path,
        (fd, at, name): (BorrowedFd<'_>, &Path, &str),
        owners: Option<&[u32]>,
    ) {
        match read_small(fd, name, LIMIT, owners) {
            Ok((text, _)) if state.bytes() + text.len() as u64 > LIMIT => {
                let why =
                    format!("with the rules of directories above it has more than {} KiB", LIMIT / 1024);
                self.notices.add(&at.join(name), &why);
            }
            Ok((text, _)) => state.add(dir, pattern::parse(&text), text.len() as u64),
            Err(unread) => {
                if let Some(why) = unread.why() {
                    self.notices.add(&at.join(name), &why);
                }
            }
        }
    }
}

/// Takes the rules out that ignore a path, of those that `which` picks, up to one that decides otherwise.
fn set_aside(state: &mut Dir, path: &[u8], is_dir: bool, which: impl Fn(&Rule) -> bool) {
    let mut lists = Vec::new();
    let mut next = state.rules.take();
    while let Some(list) = next {
        next = list.above.clone();
        lists.push(list);
    }
    let mut is_decided = false;
    let mut kept: Vec<(usize, u64, Vec<Rule>)> = Vec::with_capacity(lists.len());
    for list in &lists {
        let relative = path.get(list.base..).unwrap_or_default();
        let mut rules: Vec<Rule> = Vec::with_capacity(list.rules.len());
        for rule in list.rules.iter().rev() {
            if !is_decided && rule.matches(relative, is_dir) {
                if !rule.is_negative && which(rule) {
                    continue;
                }
                is_decided = true;
            }
            rules.push(rule.clone());
        }
        rules.reverse();
        kept.push((list.base, list.bytes, rules));
    }
    for (base, bytes, rules) in kept.into_iter().rev() {
        state.rules = Some(Arc::new(List { base, rules, bytes, above: state.rules.take() }));
    }
}
