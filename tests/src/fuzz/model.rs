//! The tree as hotr's lines say it is: each line in turn changes it, and nothing else does.
//!
//! A directory that came from outside is reported by one line; what is in it was never reported, so it is taken from
//! the disk at the next comparison (`unknown`).
// size: one tree, what each kind of line does to it, and its comparison

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::real::{Entry, File};
use crate::observed::Observed;

/// A name as it was reported.
#[derive(Clone, Debug, Default)]
pub struct Node {
    kind: Option<String>,
    ino: Option<u64>,
    size: Option<u64>,
    /// `time` of the line with the size, or that it is not known.
    time: String,
    /// A line said that its content was changed.
    written: bool,
    /// It was made empty by a line since the last comparison.
    made: bool,
    /// What is in it is not known.
    unknown: bool,
    children: BTreeMap<OsString, Node>,
}

/// The reported tree.
#[derive(Debug, Default)]
pub struct Model {
    top: Node,
    root: PathBuf,
    /// See [`Compared::types`].
    exact: bool,
    /// Inodes that a line said were written to, since the last comparison.
    written: HashSet<u64>,
    /// What the last line about an inode said of its size, since the last report of a name that disappeared.
    sizes: HashMap<u64, Told>,
    /// What lines said that cannot be, since the last comparison.
    pub contradictions: Vec<(PathBuf, String)>,
    /// Lines about names that are not there, with the inode.
    nameless: Vec<(PathBuf, Option<u64>, String)>,
}

/// Time and size of a line.
type Told = (String, Option<u64>);

/// Which facts can be compared on a filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Inode numbers of lines are those of `stat`.
    pub inodes: bool,
    /// Every line has the exact type of its file. At the tracepoint tier one that no longer exists has none, and a name
    /// may have led to another file when the line was made; directories are told apart.
    pub types: bool,
}

impl Compared {
    fn same(self, told: &str, is: &str) -> bool {
        told == is || !self.types && told != "dir" && is != "dir"
    }
}

impl Model {
    /// The tree below `root` as it is now.
    pub fn new(root: &Path, real: &BTreeMap<PathBuf, Entry>, exact: bool) -> Self {
        let mut model = Self { root: root.to_owned(), exact, ..Self::default() };
        model.adopt(real);
        model
    }

    /// Takes over the tree as it is.
    pub fn adopt(&mut self, real: &BTreeMap<PathBuf, Entry>) {
        self.top = Node { kind: Some("dir".to_owned()), ..Node::default() };
        self.written.clear();
        self.sizes.clear();
        self.contradictions.clear();
        self.nameless.clear();
        for (path, entry) in real {
            let node = Node {
                kind: Some(entry.kind.to_owned()),
                ino: Some(entry.file.inode),
                size: entry.size,
                ..Node::default()
            };
            // Sorted: a directory comes before what is in it.
            let _ = self.put(path, node);
        }
    }

    /// Says that what is below a path is not known.
    pub fn forget(&mut self, path: &Path) {
        if let Some(node) = path.strip_prefix(&self.root).ok().and_then(|path| self.top.find(path)) {
            node.unknown = true;
            node.children.clear();
        }
    }

    /// Applies a line. One of inotify's alone comes 1.5 s late, and none of the operations may lead to one.
    pub fn apply(&mut self, line: &Observed) {
        if line.seen_by == ["inotify"] {
            return;
        }
        let before = self.contradictions.len();
        self.follow(line);
        for (_, what) in &mut self.contradictions[before..] {
            let _ = write!(what, " (line {})", line.number);
        }
    }

    fn follow(&mut self, line: &Observed) {
        let path = line.path.strip_prefix(&self.root).ok().map(Path::to_owned);
        let old = line.old_path.as_ref().map(|old| old.strip_prefix(&self.root).ok().map(Path::to_owned));
        match (line.op.as_str(), path, old) {
            ("create", Some(path), _) => self.create(&path, line),
            ("remove", Some(path), _) => self.remove(&path, line),
            ("write" | "attrib", Some(path), _) => self.change(&path, line),
            ("rename", Some(path), None | Some(None)) => self.come(&path, line),
            ("rename", None, Some(Some(old))) => self.go(&old, line),
            ("rename", Some(path), Some(Some(old))) => self.rename(&old, &path, line),
            _ => self.wrong(&line.path, "a line about nothing below the root"),
        }
    }

    fn wrong(&mut self, path: &Path, what: impl Into<String>) {
        self.contradictions.push((path.to_owned(), what.into()));
    }

    fn create(&mut self, path: &Path, line: &Observed) {
        let mut node = Node::default();
        node.told(line);
        if !self.exact && line.detail.iter().any(|word| word == "link") {
            (node.ino, node.size) = (None, None);
        }
        self.doubt(line);
        node.made = line.detail.iter().any(|word| word == "open" || word == "mknod");
        if self.top.find(path).is_some_and(|known| known.kind.is_some() && !known.unknown)
            && !self.is_below_unknown(path)
        {
            self.wrong(path, "created, and was there");
        }
        self.insert(path, node);
    }

    /// The number of a line's file may be another file's from now on.
    fn doubt(&mut self, line: &Observed) {
        let Some(ino) = line.ino else { return };
        let told = self.sizes.entry(ino).or_default();
        if line.time >= told.0 {
            *told = (line.time.clone(), None);
        }
    }

    fn remove(&mut self, path: &Path, line: &Observed) {
        self.doubt(line);
        match self.take(path) {
            Some(node) if !node.children.is_empty() => self.wrong(path, "removed, and not empty"),
            None if !self.is_below_unknown(path) => self.wrong(path, "removed, and was not there"),
            Some(_) | None => {}
        }
    }

    fn change(&mut self, path: &Path, line: &Observed) {
        let is_write = line.op == "write";
        if let Some(ino) = line.ino
            && is_write
        {
            self.written.insert(ino);
            let told = self.sizes.entry(ino).or_default();
            if line.time >= told.0 {
                *told = (line.time.clone(), line.size);
            }
        }
        if path.as_os_str().is_empty() {
            return;
        }
        // At the tracepoint tier the name may be another file's by now.
        let exact = self.exact;
        if let Some(node) = self.top.find(path) {
            if exact {
                node.told(line);
            }
            node.written |= is_write;
        } else if self.is_below_unknown(path) {
            // There the name may also be gone by now: nothing is known by this line.
            if exact {
                let mut node = Node { unknown: !is_write, ..Node::default() };
                node.told(line);
                node.written = is_write;
                self.insert(path, node);
            }
        } else {
            self.nameless.push((
                path.to_owned(),
                line.ino,
                format!("{} of what is not there (line {})", line.op, line.number),
            ));
        }
    }

    /// From outside the tree.
    fn come(&mut self, path: &Path, line: &Observed) {
        let mut node = Node { unknown: true, ..Node::default() };
        node.told(line);
        if !self.exact {
            // What had the name when the line was made may be another file, and nothing else reports this one.
            (node.kind, node.ino, node.size) = (None, None, None);
            node.time.clone_from(&line.time);
        }
        self.insert(path, node);
    }

    /// Out of the tree; an exchange leaves something else there.
    fn go(&mut self, old: &Path, line: &Observed) {
        if self.take(old).is_none() && !self.is_below_unknown(old) {
            self.wrong(old, "moved out, and was not there");
        }
        if line.detail.iter().any(|word| word == "exchange") {
            self.insert(old, Node { unknown: true, ..Node::default() });
        } else if line.detail.iter().any(|word| word == "whiteout") {
            self.insert(old, Node { kind: Some("char".to_owned()), ..Node::default() });
        }
    }

    fn rename(&mut self, old: &Path, new: &Path, line: &Observed) {
        let is = |wanted: &str| line.detail.iter().any(|word| word == wanted);
        let exact = self.exact;
        let mut moved = match self.take(old) {
            Some(node) => node,
            None => {
                if !self.is_below_unknown(old) {
                    self.wrong(old, "renamed, and was not there");
                }
                Node { unknown: true, ..Node::default() }
            }
        };
        if is("exchange") {
            let other = self.take(new);
            if other.is_none() && !self.is_below_unknown(new) {
                self.wrong(new, "exchanged, and was not there");
            }
            self.insert(old, other.unwrap_or(Node { unknown: true, ..Node::default() }));
        } else if is("whiteout") {
            self.insert(old, Node { kind: Some("char".to_owned()), ..Node::default() });
        }
        // At the tracepoint tier the line's facts are of what has the name when it is made; what is known of the file that was
        // moved says more.
        if exact {
            moved.told(line);
        }
        self.insert(new, moved);
    }

    fn insert(&mut self, path: &Path, node: Node) {
        if self.put(path, node).is_err() && !self.is_below_unknown(path) {
            self.wrong(path, "told, and its directory was not there");
        }
    }

    fn put(&mut self, path: &Path, node: Node) -> Result<(), ()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(()) };
        let parent = self.top.find(parent).ok_or(())?;
        parent.children.insert(name.to_owned(), node);
        Ok(())
    }

    fn take(&mut self, path: &Path) -> Option<Node> {
        let name = path.file_name()?;
        self.top.find(path.parent()?)?.children.remove(name)
    }

    fn is_below_unknown(&self, path: &Path) -> bool {
        let mut node = &self.top;
        for name in path {
            if node.unknown {
                return true;
            }
            match node.children.get(name) {
                Some(child) => node = child,
                None => return false,
            }
        }
        false
    }

    /// Every difference from the tree as it is, by path. `before` is the tree at the last comparison; content of
    /// `unheard` files may differ without a line.
    pub fn differences(
        &self,
        real: &BTreeMap<PathBuf, Entry>,
        before: &BTreeMap<PathBuf, Entry>,
        unheard: &[u64],
        compared: Compared,
    ) -> Vec<(PathBuf, String)> {
        let mut found = self.contradictions.clone();
        // At the tracepoint tier a write may be reported after the rename that followed it. At all tiers a file that
        // has lost its names here and is linked elsewhere is reported by the name it was opened by.
        let inside: HashSet<u64> = real.values().map(|entry| entry.file.inode).collect();
        let nameless = self
            .nameless
            .iter()
            .filter(|(_, ino, _)| self.exact && ino.is_some_and(|ino| inside.contains(&ino)));
        found.extend(nameless.map(|(path, _, what)| (path.clone(), what.clone())));
        let mut known = BTreeMap::new();
        self.top.flatten(&PathBuf::new(), false, &mut known);
        for (path, (node, _)) in &known {
            if !real.contains_key(path) {
                found.push((path.clone(), format!("reported as {:?}, and is not there", node.kind)));
            }
        }
        let last = if self.exact { self.last_sizes(real, &known) } else { HashMap::new() };
        let is_written = |path: &PathBuf| known.get(path).is_some_and(|(node, _)| node.written);
        let by_name = real.iter().filter(|(path, _)| is_written(path)).map(|(_, entry)| entry.file);
        let by_name: HashSet<File> = by_name.collect();
        // Nothing reports what happened to a file while it was outside.
        let was_outside =
            |path: &PathBuf| known.get(path).is_none_or(|(node, unknown)| *unknown || node.unknown);
        let was_outside: HashSet<File> =
            real.iter().filter(|(path, _)| was_outside(path)).map(|(_, entry)| entry.file).collect();
        let contents: HashMap<_, _> = before.values().map(|entry| (entry.file, entry.content)).collect();
        for (path, entry) in real {
            let Some((node, _)) = known.get(path) else {
                if !self.is_below_unknown(path) {
                    found.push((path.clone(), format!("is a {}, and was not reported", entry.kind)));
                }
                continue;
            };
            let is_open = node.unknown || !compared.types;
            if node.kind.as_deref().map_or(!is_open, |kind| !compared.same(kind, entry.kind)) {
                found.push((
                    path.clone(),
                    format!("is a {}, and was reported as {:?}", entry.kind, node.kind),
                ));
                continue;
            }
            if compared.inodes && node.ino.is_some_and(|ino| ino != entry.file.inode) {
                found.push((
                    path.clone(),
                    format!("is inode {}, and was reported as {:?}", entry.file.inode, node.ino),
                ));
            }
            if was_outside.contains(&entry.file) {
                continue;
            }
            if let (Some(size), Some(Some(told))) = (entry.size, last.get(&entry.file))
                && size != *told
            {
                found.push((
                    path.clone(),
                    format!("inode {} has size {size}, and was reported with {told}", entry.file.inode),
                ));
            }
            let written = node.written
                || self.written.contains(&entry.file.inode)
                || by_name.contains(&entry.file)
                || unheard.contains(&entry.file.inode);
            let is_changed = match contents.get(&entry.file) {
                Some(content) if !node.made => *content != entry.content,
                _ => node.made && entry.size.is_some_and(|size| size > 0),
            };
            if entry.kind == "file" && is_changed && !written {
                found.push((
                    path.clone(),
                    format!("inode {}: its content was changed without a line", entry.file.inode),
                ));
            }
        }
        found
    }

    /// The size in the last line about a file, by any of its names; inner `None` when that line has none.
    fn last_sizes(
        &self,
        real: &BTreeMap<PathBuf, Entry>,
        known: &BTreeMap<PathBuf, (&Node, bool)>,
    ) -> HashMap<File, Option<u64>> {
        let mut last: HashMap<File, (&str, Option<u64>)> = HashMap::new();
        for (path, entry) in real {
            let Some((node, _)) = known.get(path) else { continue };
            // The line may have been about a name that is gone.
            let of_other = self.sizes.get(&entry.file.inode).map(|(time, size)| (time.as_str(), *size));
            for (time, size) in [Some((node.time.as_str(), node.size)), of_other].into_iter().flatten() {
                let told = last.entry(entry.file).or_insert((time, size));
                if time > told.0 {
                    *told = (time, size);
                }
            }
        }
        last.into_iter().map(|(file, (_, size))| (file, size)).collect()
    }
}

impl Node {
    /// What every line says of the file.
    fn told(&mut self, line: &Observed) {
        if let Some(kind) = &line.file_type {
            self.kind = Some(kind.clone());
        }
        if line.ino.is_some() {
            self.ino = line.ino;
        }
        // Lines about a file may come in another order than their times.
        if (line.size.is_some() || line.op == "write") && line.time >= self.time {
            self.size = line.size;
            self.time.clone_from(&line.time);
        }
    }

    fn find(&mut self, path: &Path) -> Option<&mut Self> {
        let mut node = self;
        for name in path {
            node = node.children.get_mut(name)?;
        }
        Some(node)
    }

    fn flatten<'a>(&'a self, at: &Path, unknown: bool, into: &mut BTreeMap<PathBuf, (&'a Self, bool)>) {
        let unknown = unknown || self.unknown;
        for (name, child) in &self.children {
            let path = at.join(name);
            child.flatten(&path, unknown, into);
            into.insert(path, (child, unknown));
        }
    }
}
