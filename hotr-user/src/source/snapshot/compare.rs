//! Comparing two snapshots, without touching the filesystem: same name first, same file second.

use std::collections::HashMap;

use super::nodes::{Id, Identity, Meta, Nodes};
use super::{Difference, Kind};

/// What is known of a file of one snapshot so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its directory has not been compared.
    Unseen,
    /// Its name does not lead to it in the other snapshot.
    Loose,
    /// Found in the other snapshot.
    Found,
}

struct Comparison<'a> {
    old: &'a Nodes,
    new: &'a Nodes,
    old_state: Vec<State>,
    new_state: Vec<State>,
    /// Directories that are the same in both, to be compared.
    pairs: Vec<(Id, Id)>,
    /// Loose files of the new snapshot.
    arrivals: Vec<Id>,
    /// Loose files of the old one.
    departures: HashMap<Identity, Vec<Id>>,
    /// Loose files that have not been looked into yet.
    unopened_new: Vec<Id>,
    unopened_old: Vec<Id>,
    differences: Vec<(Id, Kind)>,
}

/// All differences, in the order told by `Snapshot::diff`.
pub(super) fn compare(old: &Nodes, new: &Nodes) -> Vec<Difference> {
    let mut comparison = Comparison {
        old,
        new,
        old_state: vec![State::Unseen; old.len()],
        new_state: vec![State::Unseen; new.len()],
        pairs: Vec::new(),
        arrivals: Vec::new(),
        departures: HashMap::new(),
        unopened_new: Vec::new(),
        unopened_old: Vec::new(),
        differences: Vec::new(),
    };
    comparison.roots();
    comparison.run();
    comparison.into_differences()
}

impl Comparison<'_> {
    fn roots(&mut self) {
        let (old, new) = (self.old, self.new);
        for (id, path) in new.roots() {
            let former = old.roots().iter().find(|(_, other)| other == path);
            self.name(former.map(|(former, _)| *former), *id);
        }
        for (id, path) in old.roots() {
            if !new.roots().iter().any(|(_, other)| other == path) {
                self.departs(*id);
            }
        }
    }

    /// Compares equal directories, then looks for files that moved, level by level, until nothing is left.
    fn run(&mut self) {
        loop {
            while let Some((old, new)) = self.pairs.pop() {
                self.directory(old, new);
            }
            self.find_moved();
            if !self.pairs.is_empty() {
                continue;
            }
            // What moved as a whole has been found as a whole. What is left is looked into: a file may have moved
            // out of a directory that is gone, or into one that is new.
            if !self.open_loose() {
                return;
            }
        }
    }

    fn directory(&mut self, old: Id, new: Id) {
        let (old_nodes, new_nodes) = (self.old, self.new);
        for child in new_nodes.children(new) {
            self.name(old_nodes.child(old, new_nodes.name(child)), child);
        }
        for child in old_nodes.children(old) {
            if new_nodes.child(new, old_nodes.name(child)).is_none() {
                self.departs(child);
            }
        }
    }

    /// A name of the new snapshot, and what it led to in the old one.
    fn name(&mut self, former: Option<Id>, now: Id) {
        match former {
            Some(former) if self.is_same(former, now) => self.same(former, now, true),
            former => {
                self.arrives(now);
                if let Some(former) = former {
                    self.departs(former);
                }
            }
        }
    }

    fn is_same(&self, old: Id, new: Id) -> bool {
        self.old.identity(old) == self.new.identity(new)
            && self.old.get(old).is_dir() == self.new.get(new).is_dir()
    }

    /// The same file in both. A rename sets the change time: then it says nothing about attributes.
    fn same(&mut self, old: Id, new: Id, same_name: bool) {
        self.old_state[old.0 as usize] = State::Found;
        self.new_state[new.0 as usize] = State::Found;
        let (before, now) = (self.old.get(old), self.new.get(new));
        if !now.is_dir() && (before.mtime, before.size) != (now.mtime, now.size) {
            self.differences.push((new, Kind::Content));
        } else if before.mode() != now.mode() || (same_name && has_other_attributes(before, now)) {
            self.differences.push((new, Kind::Attrib));
        }
        if now.is_dir() {
            self.pairs.push((old, new));
        }
    }

    fn arrives(&mut self, id: Id) {
        if self.new_state[id.0 as usize] == State::Unseen {
            self.new_state[id.0 as usize] = State::Loose;
            self.arrivals.push(id);
            self.unopened_new.push(id);
        }
    }

    fn departs(&mut self, id: Id) {
        if self.old_state[id.0 as usize] == State::Unseen {
            self.old_state[id.0 as usize] = State::Loose;
            self.departures.entry(self.old.identity(id)).or_default().push(id);
            self.unopened_old.push(id);
        }
    }

    fn find_moved(&mut self) {
        for new in std::mem::take(&mut self.arrivals) {
            if self.new_state[new.0 as usize] == State::Found {
                continue;
            }
            let states = &self.old_state;
            let former = self.departures.get_mut(&self.new.identity(new)).and_then(|ids| {
                ids.retain(|id| states[id.0 as usize] == State::Loose);
                ids.pop()
            });
            match former.filter(|old| self.is_same(*old, new)) {
                Some(old) => {
                    self.differences.push((new, Kind::Renamed { old: self.old.path(old) }));
                    self.same(old, new, false);
                }
                None => self.arrivals.push(new),
            }
        }
    }

    fn open_loose(&mut self) -> bool {
        let (old, new) = (self.old, self.new);
        let mut opened = false;
        for id in std::mem::take(&mut self.unopened_old) {
            if self.old_state[id.0 as usize] == State::Loose {
                old.children(id).for_each(|child| self.departs(child));
                opened |= !self.unopened_old.is_empty();
            }
        }
        for id in std::mem::take(&mut self.unopened_new) {
            if self.new_state[id.0 as usize] == State::Loose {
                new.children(id).for_each(|child| self.arrives(child));
                opened |= !self.unopened_new.is_empty();
            }
        }
        opened
    }

    fn into_differences(self) -> Vec<Difference> {
        let (old, new) = (self.old, self.new);
        // A name that leads to a new file is told as created; that the old file has lost it goes without saying.
        let is_gone = |id: &Id| {
            self.old_state[id.0 as usize] == State::Loose && !is_taken(old, new, &self.new_state, *id)
        };
        let mut removed: Vec<Id> = self.departures.values().flatten().copied().filter(is_gone).collect();
        removed.sort_by_key(|id| std::cmp::Reverse((old.depth(*id), id.0)));
        let mut created = self.arrivals;
        created.retain(|id| self.new_state[id.0 as usize] == State::Loose);
        created.sort_by_key(|id| (new.depth(*id), id.0));
        let mut rest = self.differences;
        rest.extend(created.into_iter().map(|id| (id, Kind::Created)));
        rest.sort_by_key(|(_, kind)| rank(kind));
        let removed = removed.into_iter().map(|id| difference(old, id, Kind::Removed));
        removed.chain(rest.into_iter().map(|(id, kind)| difference(new, id, kind))).collect()
    }
}

/// Whether the path of an old file leads to another file now, one that was not there before.
fn is_taken(old: &Nodes, new: &Nodes, new_state: &[State], id: Id) -> bool {
    let path = old.path(id);
    let found = new.find(&path);
    found.is_some_and(|now| {
        new_state[now.0 as usize] == State::Loose && old.get(id).is_dir() == new.get(now).is_dir()
    })
}

fn has_other_attributes(before: &Meta, now: &Meta) -> bool {
    // A directory's times change with every name in it, and those are told by themselves.
    before.ctime != now.ctime && !(now.is_dir() && before.mtime != now.mtime)
}

fn rank(kind: &Kind) -> u8 {
    match kind {
        Kind::Removed => 0,
        Kind::Renamed { .. } => 1,
        Kind::Created => 2,
        Kind::Content => 3,
        Kind::Attrib => 4,
    }
}

fn difference(nodes: &Nodes, id: Id, kind: Kind) -> Difference {
    let meta = nodes.get(id);
    Difference {
        kind,
        path: nodes.path(id),
        dev: nodes.device(id),
        ino: meta.ino,
        gen_: 0,
        file_type: meta.file_type(),
        size: meta.size,
        ctime_ns: meta.ctime,
    }
}
