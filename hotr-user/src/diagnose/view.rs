//! A process with the places of all its watches: what the judges look at.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use super::fdinfo::Watch;
use super::finding::{Finding, Proof, Severity, Target};
use super::hints::{self, Hint};
use super::namespaces::{Namespace, Namespaces, Reachability, Seen};
use super::process::{Instance, Kind, Process};
use super::watched_inode::{InodeFinder, WatchedInode};
use crate::mounts::{DevId, Location};
use hotr_events::Cause;

/// Bits of a mask; fanotify has the same ones.
pub(super) mod bits {
    pub(crate) use hotr_common::uapi::inotify::*;

    /// The content of a file changed.
    pub(crate) const CONTENT: u32 = MODIFY | CLOSE_WRITE;
    /// A name appeared in a directory.
    pub(crate) const APPEARED: u32 = CREATE | MOVED_TO;
    /// What reading a directory causes.
    pub(crate) const LISTING: u32 = ACCESS | OPEN | CLOSE_NOWRITE;
}

/// A watch and where it is.
#[derive(Debug)]
pub(super) struct WatchLocation<'a> {
    pub(super) instance: &'a Instance,
    pub(super) watch: &'a Watch,
    pub(super) place: Rc<WatchedInode>,
}

/// A process with its watches.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) process: &'a Process,
    pub(super) namespace: Rc<Namespace>,
    pub(super) ours: Rc<Namespace>,
    pub(super) seats: Vec<WatchLocation<'a>>,
    /// What its command line names.
    pub(super) hints: Vec<Hint>,
    /// Watched directories, with all that is watched for in them.
    dirs: HashMap<Location, u32>,
    watched: HashSet<(DevId, u64)>,
    /// Directories in which it watches a file.
    with_files: HashSet<Location>,
}

impl<'a> View<'a> {
    /// Finds the places of all watches of a process.
    pub(super) fn new(
        process: &'a Process,
        space: &mut Namespaces,
        places: &mut InodeFinder,
    ) -> rustix::io::Result<Self> {
        let namespace = space.of(&process.dir)?;
        let hints = hints::read(process, &namespace);
        let cwd = process.dir.cwd().and_then(|cwd| hints::resolve(&namespace, &cwd));
        let mut seats = Vec::new();
        for instance in &process.instances {
            for watch in &instance.marks.watches {
                let mut place = places.find(space, &namespace, watch);
                if place.location.is_none()
                    && let Some(named) = named(watch, &hints, cwd.as_ref())
                {
                    place = Rc::new(WatchedInode { fs_type: place.fs_type.clone(), ..named });
                }
                seats.push(WatchLocation { instance, watch, place });
            }
        }
        let mut dirs = HashMap::new();
        let alive = seats.iter().filter(|seat| seat.place.is_dir() && !seat.place.unlinked);
        for (seat, location) in alive.filter_map(|seat| Some((seat, seat.place.location.clone()?))) {
            *dirs.entry(location).or_insert(0) |= seat.receives_in_dir();
        }
        let watched = seats.iter().map(|seat| (seat.watch.dev, seat.watch.ino)).collect();
        let files = seats.iter().filter(|seat| !seat.place.is_dir());
        let with_files = files.filter_map(|seat| parent(seat.place.location.as_ref()?)).collect();
        let ours = Rc::clone(&space.ours);
        Ok(Self { process, namespace, ours, seats, hints, dirs, watched, with_files })
    }

    /// What the process asks for in a directory; 0 when it does not watch it.
    pub(super) fn dir_mask(&self, location: &Location) -> u32 {
        self.dirs.get(location).copied().unwrap_or(0)
    }

    /// What it asks for in the directory of a place.
    pub(super) fn parent_mask(&self, location: &Location) -> u32 {
        parent(location).map_or(0, |parent| self.dir_mask(&parent))
    }

    /// Whether it watches a file in a directory.
    pub(super) fn watches_file_in(&self, dir: &Location) -> bool {
        self.with_files.contains(dir)
    }

    /// Whether it watches an inode.
    pub(super) fn watches(&self, dev: DevId, ino: u64) -> bool {
        self.watched.contains(&(dev, ino))
    }

    /// Whether something appearing at a place is reported by the directory it is in.
    pub(super) fn learns_of(&self, location: &Location) -> bool {
        self.parent_mask(location) & bits::APPEARED != 0
    }

    /// The seats of one instance.
    pub(super) fn of(&self, fd: i32) -> impl Iterator<Item = &WatchLocation<'a>> {
        self.seats.iter().filter(move |seat| seat.instance.fd == fd)
    }

    /// The target of a finding.
    pub(super) fn target(&self, instance: Option<&Instance>, wd: Option<i32>) -> Target {
        Target {
            pid: Some(self.process.pid),
            comm: self.process.comm.clone(),
            mechanism: instance.map(|instance| instance.kind),
            fd: instance.map(|instance| instance.fd),
            wd,
            uid: None,
            container: self.process.container.clone(),
        }
    }

    /// A finding about a watch.
    pub(super) fn about(
        &self,
        seat: &WatchLocation<'_>,
        severity: Severity,
        cause: Cause,
        proof: Proof,
    ) -> Finding {
        let wd = (seat.instance.kind == Kind::Inotify).then_some(seat.watch.wd);
        let mut finding = Finding::new(severity, cause, proof, self.target(Some(seat.instance), wd));
        finding.watched_ino = Some(seat.watch.ino);
        finding.mask = Some(seat.watch.mask);
        if let Some(location) = &seat.place.location {
            (finding.path, finding.path_in_target) = self.paths(location);
        }
        finding
    }

    /// A place as hotr and as the target see it.
    pub(super) fn paths(&self, location: &Location) -> (Option<PathBuf>, Option<PathBuf>) {
        let seen = |space: &Namespace| match space.sight(location.dev, &location.fs_path) {
            Reachability::Visible(path) | Reachability::Covered { path, .. } => Some(path),
            Reachability::Elsewhere | Reachability::NotMounted => None,
        };
        let in_target = seen(&self.namespace);
        (if self.namespace.ours { in_target.clone() } else { seen(&self.ours) }, in_target)
    }
}

/// The place of a watch whose handle opens nothing: what the command line names, or the working directory, when that
/// is the same inode.
fn named(watch: &Watch, hints: &[Hint], cwd: Option<&(Seen, Location)>) -> Option<WatchedInode> {
    let of_hints = hints.iter().map(|hint| (&hint.seen, &hint.real));
    let mut known = of_hints.chain(cwd.map(|(seen, real)| (seen, real)));
    let (seen, real) = known.find(|(seen, real)| real.dev == watch.dev && seen.ino == watch.ino)?;
    Some(WatchedInode {
        kind: Some(seen.kind),
        nlink: Some(seen.nlink),
        location: Some(real.clone()),
        ..WatchedInode::default()
    })
}

/// The directory in which a place is.
pub(super) fn parent(location: &Location) -> Option<Location> {
    Some(Location { dev: location.dev, fs_path: location.fs_path.parent()?.to_path_buf() })
}

impl WatchLocation<'_> {
    /// What it asks for of the names in its directory: an fanotify mark only with a flag for that.
    pub(super) fn receives_in_dir(&self) -> u32 {
        match self.instance.kind {
            Kind::Inotify => self.watch.mask,
            Kind::Fanotify if self.watch.mask & bits::ON_CHILD != 0 => self.watch.mask,
            // Names of a marked directory itself.
            Kind::Fanotify => self.watch.mask & bits::APPEARED,
        }
    }

    /// Type of its filesystem.
    pub(super) fn fs_type(&self) -> &str {
        self.place.fs_type.as_ref().and_then(|name| name.to_str()).unwrap_or_default()
    }
}
