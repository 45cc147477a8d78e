//! The roots: the only files that are known by a path.
//!
//! In: the tree. Out: its topmost records brought up to date, what was found, and the tasks to begin with.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, open, statx};
use rustix::io::Errno;

use super::attr::{self, Attr, Source, WANTED};
use super::moves::{Appeared, Disappeared, Findings, Modified};
use super::scan::{Task, Verdict, judge};
use super::tree::{Base, NONE, TOP, Tree};

/// Looks at the roots, which are known by their paths; a symbolic link is followed here, and nowhere below.
pub(super) fn look(tree: &mut Tree, findings: &mut Findings, only: Option<u32>) -> Vec<Task> {
    let mut tasks = Vec::new();
    let now = attr::coarse_now();
    let places: Vec<(u32, u32)> = tree.dir(TOP).body.names().map(|(slot, at, _)| (slot, at)).collect();
    for (slot, name_at) in places {
        if only.is_some_and(|only| only != slot) {
            continue;
        }
        let name = tree.dir(TOP).body.name(name_at).to_owned();
        let (old, mut child) = (tree.attr(TOP, slot), tree.dir(TOP).body.child(slot));
        let was = old.mode != 0;
        // The path is followed once: its attributes and its generation are those of one inode.
        let file = open(name.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let found = file.and_then(|file| Ok((statx(&file, c"", AtFlags::EMPTY_PATH, WANTED)?, file)));
        let verdict = match found {
            Ok((stat, file)) if was => Some(judge(&old, Attr::of(&stat, now), || ident(&file, &stat))),
            Ok((stat, file)) => {
                Some(Verdict::Replaced(Attr { ident: ident(&file, &stat), ..Attr::of(&stat, now) }))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => {
                findings.unreadable_roots.push((name.to_bytes().into(), error));
                continue;
            }
        };
        let lost = matches!(verdict, None | Some(Verdict::Replaced(_)));
        if was && lost {
            findings.gone.push(Disappeared { parent: TOP, name: name.to_bytes().into(), attr: old, child });
        }
        let attr = match verdict {
            None => Attr { mode: 0, ..old },
            Some(Verdict::Same(attr)) => attr,
            Some(Verdict::Modified(attr, kind)) => {
                findings.touched.push(Modified { dir: TOP, slot, name_at, kind });
                attr
            }
            Some(Verdict::Replaced(attr)) => {
                findings.came.push(Appeared { dir: TOP, slot, name_at });
                child = NONE;
                attr
            }
        };
        let fresh = attr.is_dir() && (lost || child == NONE);
        if fresh {
            child = tree.add(TOP, name_at, (attr.dev, attr.ino));
        }
        tree.note_device(attr.dev);
        let devices = std::mem::take(&mut tree.devices);
        tree.dir_mut(TOP).body.set(slot, &attr, child, Base { ino: 0, dev: 0, devices: &devices });
        tree.devices = devices;
        if attr.is_dir() {
            let changed = old.racy || (attr.mtime, attr.ctime) != (old.mtime, old.ctime);
            tree.dir_mut(child).listed &= !changed;
            let len = name.count_bytes();
            tasks.push(Task { id: child, fresh, deep: true, len, parent: None });
        }
    }
    tasks
}

fn ident(file: impl AsFd, stat: &rustix::fs::Statx) -> u32 {
    attr::ident(Source::Generation, file.as_fd(), c"", stat)
}
