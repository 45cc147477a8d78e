//! What a scan found, put together: a name that disappeared and a name that appeared are a rename when they are of one
//! file.
//!
//! In: names that appeared and disappeared, by directory. Out: [`Difference`]s, so many at a time. What moved as a whole is
//! reported as a whole; then the rest is searched, because a file may have moved out of a directory that disappeared, or into
//! one that is new.
//!
//! There may be as many differences as files. So a name is a few numbers here, and its path is put together when it is handed
//! over.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::attr::{Attr, Source};
use super::tree::{NONE, Tree, join};
use crate::ending;
use crate::source::difference::{Difference, Kind};
use hotr_events::FileType;

/// A name that was not there before, or leads to another file.
pub(super) struct Appeared {
    pub(super) dir: u32,
    pub(super) slot: u32,
    pub(super) name_at: u32,
}

/// A name that disappeared, or led to another file. `child` is its directory, cut off from the tree.
pub(super) struct Disappeared {
    pub(super) parent: u32,
    pub(super) name: Box<[u8]>,
    pub(super) attr: Attr,
    pub(super) child: u32,
}

/// A file that is the same one with other content or attributes.
pub(super) struct Modified {
    pub(super) dir: u32,
    pub(super) slot: u32,
    pub(super) name_at: u32,
    pub(super) kind: Kind,
}

/// What a scan, or a thread of one, has found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) came: Vec<Appeared>,
    pub(super) gone: Vec<Disappeared>,
    pub(super) touched: Vec<Modified>,
    pub(super) unreadable: Vec<(u32, Errno)>,
    pub(super) unreadable_roots: Vec<(Box<[u8]>, Errno)>,
    pub(super) dirs: u64,
}

impl Findings {
    pub(super) fn append(&mut self, mut other: Self) {
        self.came.append(&mut other.came);
        self.gone.append(&mut other.gone);
        self.touched.append(&mut other.touched);
        self.unreadable.append(&mut other.unreadable);
        self.unreadable_roots.append(&mut other.unreadable_roots);
        self.dirs += other.dirs;
    }
}

/// How a file with two states differs. A rename sets the change time: then it says nothing about attributes. Nor does a
/// directory's when its names changed, which are reported separately.
pub(super) fn difference(before: &Attr, now: &Attr, same_name: bool) -> Option<Kind> {
    if !now.is_dir() && (before.mtime, before.size) != (now.mtime, now.size) {
        return Some(Kind::Content);
    }
    let dated = before.ctime != now.ctime && !(now.is_dir() && before.mtime != now.mtime);
    (before.mode != now.mode || (same_name && dated)).then_some(Kind::Attrib)
}

type Identity = (u64, u64, u32);

/// A name that disappeared: one that the scan found, or one in a directory that is cut off from the tree.
struct Departed {
    parent: u32,
    /// Its directory, cut off from the tree.
    child: u32,
    /// Of one that the scan found: the tree does not know it any more.
    found: Option<Box<(Box<[u8]>, Attr)>>,
    /// Of another: its place in its directory.
    slot: u32,
    name_at: u32,
}

impl Departed {
    fn attr(&self, tree: &Tree) -> Attr {
        self.found.as_ref().map_or_else(|| tree.attr(self.parent, self.slot), |found| found.1)
    }

    fn name<'a>(&'a self, tree: &'a Tree) -> &'a [u8] {
        match &self.found {
            Some(found) => &found.0,
            None => tree.dir(self.parent).body.name(self.name_at).to_bytes(),
        }
    }
}

/// Differences that are handed over together.
const PART: usize = 4096;

/// Where differences go.
struct Parts<'a> {
    part: Vec<Difference>,
    each: &'a mut dyn FnMut(Vec<Difference>),
}

impl Parts<'_> {
    fn push(&mut self, difference: Difference) {
        self.part.push(difference);
        if self.part.len() == PART {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.part.is_empty() {
            (self.each)(std::mem::take(&mut self.part));
        }
    }
}

struct Moves<'a> {
    tree: &'a Tree,
    /// Names appeared and disappeared: one may be the other's.
    is_mixed: bool,
    old: Vec<Departed>,
    new: Vec<Appeared>,
    old_found: Vec<bool>,
    new_found: Vec<bool>,
    /// Loose entries of cut-off and of new directories, by (directory, slot).
    old_at: HashMap<(u32, u32), usize>,
    new_at: HashMap<(u32, u32), usize>,
    departures: HashMap<Identity, Vec<usize>>,
    /// Cut-off directories: how they were reached.
    cut: HashMap<u32, usize>,
    pairs: Vec<(u32, u32)>,
    told: Vec<(Kind, u32, u32, u32)>,
}

/// The state is the new one, and nobody asks what the differences were.
pub(super) fn forget(tree: &mut Tree, findings: Findings) {
    for gone in findings.gone.into_iter().filter(|gone| gone.child != NONE) {
        tree.remove(gone.child);
    }
}

/// Hands over all differences: removals first (deepest first), then renames, creations (a directory before what it holds),
/// content, attributes. The cut-off directories are forgotten.
pub(super) fn resolve(tree: &mut Tree, findings: &mut Findings, each: &mut dyn FnMut(Vec<Difference>)) {
    let (came, gone) = (std::mem::take(&mut findings.came), std::mem::take(&mut findings.gone));
    let cut: Vec<u32> = gone.iter().map(|gone| gone.child).filter(|child| *child != NONE).collect();
    let told = std::mem::take(&mut findings.touched);
    let mut moves = Moves {
        tree,
        is_mixed: !came.is_empty() && !gone.is_empty(),
        old: Vec::new(),
        new: Vec::new(),
        old_found: Vec::new(),
        new_found: Vec::new(),
        old_at: HashMap::new(),
        new_at: HashMap::new(),
        departures: HashMap::new(),
        cut: HashMap::new(),
        pairs: Vec::new(),
        told: told.into_iter().map(|told| (told.kind, told.dir, told.slot, told.name_at)).collect(),
    };
    for Disappeared { parent, name, attr, child } in gone {
        let found = Some(Box::new((name, attr)));
        moves.departs(Departed { parent, child, found, slot: 0, name_at: 0 }, None);
    }
    for came in came {
        moves.arrives(came);
    }
    moves.run();
    if !ending::gives_up() {
        let mut parts = Parts { part: Vec::new(), each };
        moves.hand_over(&mut parts);
        parts.hand_over();
    }
    for id in cut {
        tree.remove(id);
    }
}

impl Moves<'_> {
    fn departs(&mut self, gone: Departed, key: Option<(u32, u32)>) {
        let number = self.old.len();
        if self.is_mixed {
            if let Some(key) = key {
                if self.old_at.contains_key(&key) {
                    return;
                }
                self.old_at.insert(key, number);
            }
            let attr = gone.attr(self.tree);
            self.departures.entry((attr.dev, attr.ino, attr.ident)).or_default().push(number);
        }
        if gone.child != NONE {
            self.cut.insert(gone.child, number);
        }
        self.old.push(gone);
        self.old_found.push(false);
    }

    fn arrives(&mut self, came: Appeared) {
        if self.is_mixed {
            let key = (came.dir, came.slot);
            if self.new_at.contains_key(&key) {
                return;
            }
            self.new_at.insert(key, self.new.len());
        }
        self.new.push(came);
        self.new_found.push(false);
    }

    fn run(&mut self) {
        let (mut opened_old, mut opened_new, mut unmatched) = (0, 0, Vec::new());
        let mut next_new = 0;
        loop {
            while let Some((old, new)) = self.pairs.pop() {
                self.compare(old, new);
            }
            unmatched.extend(next_new..self.new.len());
            next_new = self.new.len();
            unmatched.retain(|number| !self.new_found[*number] && !self.find(*number));
            if !self.pairs.is_empty() {
                continue;
            }
            let (olds, news) = (self.old.len(), self.new.len());
            (opened_old..olds).for_each(|number| self.open_old(number));
            (opened_new..news).for_each(|number| self.open_new(number));
            (opened_old, opened_new) = (olds, news);
            if (self.old.len(), self.new.len()) == (olds, news) {
                return;
            }
        }
    }

    /// Looks for the former name of a file that came.
    fn find(&mut self, number: usize) -> bool {
        let (dir, slot, name_at) = self.place(number);
        let attr = self.tree.attr(dir, slot);
        let (tree, found, old) = (self.tree, &self.old_found, &self.old);
        let former = self.departures.get_mut(&(attr.dev, attr.ino, attr.ident)).and_then(|numbers| {
            numbers.retain(|number| !found[*number]);
            let at = numbers.iter().rposition(|number| old[*number].attr(tree).is_same(&attr))?;
            Some(numbers.remove(at))
        });
        let Some(former) = former else { return false };
        self.old_found[former] = true;
        self.new_found[number] = true;
        let path = self.old_path(former);
        self.told.push((Kind::Renamed { old: path }, dir, slot, name_at));
        let (before, child) = (self.old[former].attr(tree), self.old[former].child);
        self.same(&before, child, (dir, slot, name_at), false);
        true
    }

    fn same(&mut self, before: &Attr, child: u32, (dir, slot, name_at): (u32, u32, u32), same_name: bool) {
        let now = self.tree.attr(dir, slot);
        if let Some(kind) = difference(before, &now, same_name) {
            self.told.push((kind, dir, slot, name_at));
        }
        let now_child = self.tree.dir(dir).body.child(slot);
        if child != NONE && now_child != NONE {
            self.pairs.push((child, now_child));
        }
    }

    /// Two states of one directory that moved.
    fn compare(&mut self, old: u32, new: u32) {
        let tree = self.tree;
        let mut known: HashMap<&[u8], u32> =
            tree.dir(old).body.names().map(|(slot, _, name)| (name.to_bytes(), slot)).collect();
        for (slot, name_at, name) in tree.dir(new).body.names() {
            let former = known.get(name.to_bytes()).copied();
            if let Some(former) = former
                && tree.attr(old, former).is_same(&tree.attr(new, slot))
            {
                known.remove(name.to_bytes());
                if let Some(number) = self.old_at.get(&(old, former)) {
                    self.old_found[*number] = true;
                }
                if let Some(number) = self.new_at.get(&(new, slot)) {
                    self.new_found[*number] = true;
                }
                let child = tree.dir(old).body.child(former);
                if child != NONE {
                    self.cut_below(old, former, child);
                }
                self.same(&tree.attr(old, former), child, (new, slot, name_at), true);
                continue;
            }
            self.arrives(Appeared { dir: new, slot, name_at });
        }
        for (slot, name_at, name) in tree.dir(old).body.names() {
            if known.get(name.to_bytes()) == Some(&slot) {
                self.departs(self.gone_at(old, slot, name_at), Some((old, slot)));
            }
        }
    }

    /// Remembers how a cut-off directory was reached, although it is not loose itself.
    fn cut_below(&mut self, dir: u32, slot: u32, child: u32) {
        if self.cut.contains_key(&child) {
            return;
        }
        self.old.push(self.gone_at(dir, slot, self.tree.dir(child).name_at));
        self.old_found.push(true);
        self.cut.insert(child, self.old.len() - 1);
        self.old_at.insert((dir, slot), self.old.len() - 1);
    }

    fn gone_at(&self, dir: u32, slot: u32, name_at: u32) -> Departed {
        let child = self.tree.dir(dir).body.child(slot);
        Departed { parent: dir, child, found: None, slot, name_at }
    }

    fn open_old(&mut self, number: usize) {
        let (tree, child) = (self.tree, self.old[number].child);
        if self.old_found[number] || child == NONE {
            return;
        }
        for (slot, name_at, _) in tree.dir(child).body.names() {
            self.departs(self.gone_at(child, slot, name_at), Some((child, slot)));
        }
    }

    fn open_new(&mut self, number: usize) {
        let (dir, slot, _) = self.place(number);
        let (tree, child) = (self.tree, self.tree.dir(dir).body.child(slot));
        if self.new_found[number] || child == NONE {
            return;
        }
        for (slot, name_at, _) in tree.dir(child).body.names() {
            self.arrives(Appeared { dir: child, slot, name_at });
        }
    }

    fn place(&self, number: usize) -> (u32, u32, u32) {
        let came = &self.new[number];
        (came.dir, came.slot, came.name_at)
    }

    fn old_path(&self, number: usize) -> PathBuf {
        let mut names = vec![self.old[number].name(self.tree)];
        let mut at = self.old[number].parent;
        while let Some(above) = self.cut.get(&at) {
            names.push(self.old[*above].name(self.tree));
            at = self.old[*above].parent;
        }
        let start = if at == super::tree::TOP { PathBuf::new() } else { self.tree.path(at) };
        names.iter().rev().fold(start, |path, name| join(path, name))
    }

    /// Names that appeared and are no other's former one. A directory is before what it holds: that was looked at later.
    fn created(&self) -> impl Iterator<Item = usize> {
        (0..self.new.len()).filter(|number| !self.new_found[*number])
    }

    /// Names that disappeared and did not become another: what a directory held is before it.
    fn removed(&self) -> Vec<usize> {
        let mut removed: Vec<usize> =
            (0..self.old.len()).rev().filter(|number| !self.old_found[*number]).collect();
        if !removed.is_empty() && self.created().next().is_some() {
            // A name that leads to a new file is reported as created; that implies that the old file has lost it.
            let hashes = RandomState::new();
            let hash = |path: &PathBuf| hashes.hash_one(path.as_os_str().as_bytes());
            let taken: HashMap<u64, usize> =
                self.created().map(|number| (hash(&self.new_path(number)), number)).collect();
            removed.retain(|number| {
                let path = self.old_path(*number);
                let by = taken.get(&hash(&path)).filter(|by| self.new_path(**by) == path);
                by.is_none_or(|by| {
                    let (dir, slot, _) = self.place(*by);
                    self.tree.attr(dir, slot).is_dir() != self.old[*number].attr(self.tree).is_dir()
                })
            });
        }
        removed
    }

    fn new_path(&self, number: usize) -> PathBuf {
        let (dir, _, name_at) = self.place(number);
        self.tree.path_of(dir, name_at)
    }

    fn hand_over(self, parts: &mut Parts<'_>) {
        let tree = self.tree;
        for number in self.removed() {
            if ending::gives_up() {
                return;
            }
            let attr = self.old[number].attr(tree);
            parts.push(to_difference(tree, Kind::Removed, self.old_path(number), &attr));
        }
        let now = |wanted: u8| {
            let places = self.told.iter().filter(move |(told, ..)| rank(told) == wanted);
            places.map(|(kind, dir, slot, name_at)| {
                to_difference(tree, kind.clone(), tree.path_of(*dir, *name_at), &tree.attr(*dir, *slot))
            })
        };
        now(RENAMED).for_each(|difference| parts.push(difference));
        for number in self.created() {
            if ending::gives_up() {
                return;
            }
            let (dir, slot, _) = self.place(number);
            parts.push(to_difference(tree, Kind::Created, self.new_path(number), &tree.attr(dir, slot)));
        }
        now(CONTENT).for_each(|difference| parts.push(difference));
        now(ATTRIB).for_each(|difference| parts.push(difference));
    }
}

const RENAMED: u8 = 0;
const CONTENT: u8 = 1;
const ATTRIB: u8 = 2;

fn rank(kind: &Kind) -> u8 {
    match kind {
        Kind::Renamed { .. } => RENAMED,
        Kind::Content => CONTENT,
        _ => ATTRIB,
    }
}

fn to_difference(tree: &Tree, kind: Kind, path: PathBuf, attr: &Attr) -> Difference {
    let facts = tree.devices.iter().find(|device| device.dev == attr.dev).and_then(|device| device.facts);
    let has_generation = facts.is_some_and(|facts| facts.source == Source::Generation);
    Difference {
        kind,
        path,
        dev: attr.dev,
        ino: attr.ino,
        gen_: if has_generation { attr.ident } else { 0 },
        file_type: FileType::from_mode(u32::from(attr.mode)),
        size: attr.size,
        ctime_ns: attr.ctime,
    }
}
