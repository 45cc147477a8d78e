//! The path a system call named in, the watched path it stands for out.
//!
//! At the tracepoint tier the kernel side can report only what the caller wrote: a string, the directory it is relative
//! to, a pid. Here that becomes a [`Location`] (superblock and path from its root: what a `d_parent` walk would have
//! seen) and is compared with the locations of the watched roots and their aliases. Locations are used instead of
//! climbing `..` and comparing inodes, because `..` leaves a bind mount at its mount point: through a bind mount of
//! something *below* a root, a climb never meets the root.
//!
//! The kernel resolves the parent directory for us, symbolic links and `..` included. The answer is as of now, not as
//! of the call: where a directory has been renamed in the meantime the new name is given, and where it no longer exists
//! the nearest existing ancestor is used and the rest is taken as written.
//!
//! On this tier every mkdir, unlink, rename and chmod of the machine comes here. A directory's verdict is kept for a
//! moment, so a burst in one directory costs its first call four system calls, and the others none.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::mounts::{AliasRoot, LayerCache, Location, MountTable, join};
use hotr_events::Layer;

mod proc_path;
mod start;
mod view;

use start::Start;
use view::Views;

/// Which registered inode a change was found under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootRef {
    /// Index of the watched root.
    pub root: usize,
    /// Index among its aliases; `None` is the root's own inode.
    pub alias: Option<usize>,
}

/// A watched root with everything that leads to the same files.
#[derive(Clone, Debug)]
pub struct CallRoot {
    /// Absolute, without symbolic links.
    pub dir: PathBuf,
    /// From [`aliases`](crate::mounts::aliases).
    pub aliases: Vec<AliasRoot>,
    /// Indices of those that are no directories: files that are mounted by themselves.
    pub files: Vec<usize>,
}

/// The directory that a relative string starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base<'a> {
    /// The kernel side found it below a registered inode.
    Root {
        /// Which one.
        root: RootRef,
        /// Path from there.
        rel: &'a Path,
    },
    /// The kernel side found it elsewhere.
    Mount {
        /// The mount it was opened through.
        mount_id: u64,
        /// Path from the root of the superblock.
        fs_path: &'a Path,
    },
    /// Only the descriptor number is known (`AT_FDCWD` included): asked of `/proc/<pid>` while the process lives.
    Fd(i32),
    /// Nothing is known; only an absolute string can be resolved.
    Unknown,
}

/// What a system call named.
#[derive(Clone, Copy, Debug)]
pub struct CallPath<'a> {
    /// The caller, in the initial pid namespace.
    pub pid: u32,
    /// Inode number of the caller's mount namespace, when the kernel side reported it: another process in it is used
    /// when the caller has exited. Without it such a caller is taken for one of our own namespace.
    pub mount_ns: Option<u64>,
    /// Where the string starts: for an absolute one the caller's root directory, as it was at the call.
    pub base: Base<'a>,
    /// The string as the caller wrote it, without its NUL; empty with `AT_EMPTY_PATH`: the base itself.
    pub string: &'a [u8],
    /// The call follows a symbolic link in the last component.
    pub follow: bool,
    /// The call is about the name, not about the file that has it: a file that is mounted elsewhere stays what it is.
    pub of_name: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A watched path.
    Ours {
        /// The registered inode it lies below.
        root: RootRef,
        /// Path relative to the watched root, an alias's prefix included; empty for the root itself.
        rel: PathBuf,
        /// The other way it came by.
        layer: Option<Layer>,
    },
    /// Outside all watched roots.
    NotOurs,
    /// Not to be found out, and why.
    Unknown(&'static str),
}

/// A registered inode, as a location.
#[derive(Debug)]
struct RootLocation {
    location: Location,
    root: RootRef,
    dir: PathBuf,
    prefix: PathBuf,
    layer: Option<Layer>,
    mount_id: u64,
    /// No directory: it has one name at its location, which another file may get.
    is_file: bool,
    /// What is there now is something else.
    has_left: bool,
}

/// Where a directory was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    location: Location,
    /// Its path in our namespace, when it is of our namespace.
    real: Option<PathBuf>,
    /// The mount it was reached through, when it is known.
    mount_id: Option<u64>,
}

type Answer<T> = Result<T, &'static str>;

/// Resolves what system calls named.
#[derive(Debug)]
pub struct CallResolver {
    places: Vec<RootLocation>,
    table: MountTable,
    views: Views,
    layers: LayerCache,
    verdicts: HashMap<Start, (Answer<Found>, Instant)>,
    has_moved: bool,
}

impl CallResolver {
    /// How long a directory's verdict is kept.
    pub const TTL: Duration = Duration::from_millis(100);
    const MAX_VERDICTS: usize = 4096;

    /// For these roots, in this namespace.
    #[must_use]
    pub fn new(roots: &[CallRoot], table: MountTable) -> Self {
        Self {
            places: places(roots, &table),
            table,
            views: Views::default(),
            layers: LayerCache::default(),
            verdicts: HashMap::new(),
            has_moved: false,
        }
    }

    /// Whether a call has moved or removed what is mounted in a watched tree, where that was mounted from: the mount table
    /// says where it is now.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// To be called when the mounts changed, or a root was renamed or re-planned.
    pub fn set_roots(&mut self, roots: &[CallRoot], table: MountTable) {
        self.places = places(roots, &table);
        self.table = table;
        self.layers.clear();
        self.invalidate();
    }

    /// Forgets the verdicts: to be called for every rename anywhere, which may have moved a directory.
    pub fn invalidate(&mut self) {
        self.verdicts.clear();
    }

    /// Which watched path a call named. `now` is any monotonic time, taken once per batch.
    pub fn resolve(&mut self, call: &CallPath<'_>, now: Instant) -> Resolved {
        let mut resolved = self.try_resolve(call, now);
        // It may have ended just now; somebody else of its namespace is asked then.
        if resolved.is_err() && self.views.doubt(call.pid, call.mount_ns) {
            resolved = self.try_resolve(call, now);
        }
        resolved.unwrap_or_else(Resolved::Unknown)
    }

    fn try_resolve(&mut self, call: &CallPath<'_>, now: Instant) -> Answer<Resolved> {
        let (parent, name) = split(call.string);
        let in_base = !call.string.starts_with(b"/") && parent.is_empty();
        let witness = self.views.witness(call.pid, call.mount_ns, now);
        let known = if in_base { self.found_base(call, witness, now) } else { None };
        if let Some(found) = &known
            && !(call.follow && name.is_some())
        {
            return Ok(self.judge(found, name, call.of_name, witness, now));
        }
        let dir = Start::of(call, parent, self, now)?;
        let found = match known {
            Some(found) => Ok(found),
            None => self.verdict(&dir, now),
        };
        if let Some(name) = name.filter(|_| call.follow)
            && let Some(target) = dir.join(name).follow()?
        {
            let target = self.locate(&target, dir.rooted_at.as_ref())?;
            return Ok(self.judge(&target, None, call.of_name, witness, now));
        }
        Ok(self.judge(&found?, name, call.of_name, witness, now))
    }

    /// What the kernel side said about the base, when that says all: no system call but the first for a mount of
    /// another namespace.
    fn found_base(&mut self, call: &CallPath<'_>, witness: u32, now: Instant) -> Option<Found> {
        match call.base {
            Base::Root { root, rel } => {
                let place = self.place(root)?;
                let location =
                    Location { dev: place.location.dev, fs_path: join(&place.location.fs_path, rel) };
                Some(Found { location, real: Some(join(&place.dir, rel)), mount_id: None })
            }
            Base::Mount { mount_id, fs_path } => {
                let (dev, real) = match self.table.by_id(mount_id) {
                    Some(mount) => (mount.dev, mount.visible_path(fs_path)),
                    None => (self.views.mount(mount_id, witness, now)?.dev, None),
                };
                let location = Location { dev, fs_path: fs_path.to_path_buf() };
                Some(Found { location, real, mount_id: Some(mount_id) })
            }
            Base::Fd(_) | Base::Unknown => None,
        }
    }

    fn place(&self, root: RootRef) -> Option<&RootLocation> {
        self.places.iter().find(|place| place.root == root)
    }

    fn verdict(&mut self, dir: &Start, now: Instant) -> Answer<Found> {
        if let Some((found, since)) = self.verdicts.get(dir)
            && now.saturating_duration_since(*since) < Self::TTL
        {
            return found.clone();
        }
        let found = self.look(dir);
        if self.verdicts.len() >= Self::MAX_VERDICTS {
            self.verdicts.clear();
        }
        self.verdicts.insert(dir.clone(), (found.clone(), now));
        found
    }

    fn look(&self, dir: &Start) -> Answer<Found> {
        let (fd, rest) = dir.open_nearest()?;
        let mut found = self.locate(&fd, dir.rooted_at.as_ref())?;
        found.location.fs_path = join(&found.location.fs_path, &rest);
        found.real = found.real.map(|real| join(&real, &rest));
        Ok(found)
    }

    /// Whether `name` in a directory (or the directory itself) is watched.
    fn judge(&mut self, dir: &Found, name: Option<&[u8]>, of_name: bool, pid: u32, now: Instant) -> Resolved {
        let Some(name) = name.map(|name| Path::new(OsStr::from_bytes(name))) else {
            return self.judge_location(&dir.location, of_name, dir.mount_id, pid, now);
        };
        let location = Location { dev: dir.location.dev, fs_path: dir.location.fs_path.join(name) };
        if of_name {
            self.renamed(&location, dir.real.as_ref().map(|real| real.join(name)).as_deref());
        }
        let resolved = self.judge_location(&location, of_name, dir.mount_id, pid, now);
        if resolved != Resolved::NotOurs {
            return resolved;
        }
        // A name that is a mount point stands for the root directory of what is mounted there.
        let Some(real) = dir.real.as_ref().map(|real| real.join(name)) else { return resolved };
        if !self.table.is_mount_point(&real) {
            return resolved;
        }
        match self.table.mount_of(&real) {
            Some(mount) => {
                let location = Location { dev: mount.dev, fs_path: mount.root.clone() };
                let id = mount.id;
                self.judge_location(&location, of_name, Some(id), pid, now)
            }
            None => resolved,
        }
    }

    /// A name was made, taken away or given to something else. It may have been one that leads to what is mounted elsewhere.
    fn renamed(&mut self, location: &Location, real: Option<&Path>) {
        for place in self.places.iter_mut().filter(|place| place.root.alias.is_some()) {
            if !place.location.is_within(location) {
                continue;
            }
            if place.is_file && place.location == *location {
                place.has_left = real.is_none_or(|real| !is_same(real, &place.dir));
            }
            self.has_moved = true;
        }
    }

    fn judge_location(
        &mut self,
        location: &Location,
        of_name: bool,
        mount: Option<u64>,
        pid: u32,
        now: Instant,
    ) -> Resolved {
        // Sorted by length: the first is the nearest, the one a climb would meet.
        let is_below = |place: &&RootLocation| {
            !place.has_left && location.is_within(&place.location) && !(of_name && place.is_file)
        };
        let Some(place) = self.places.iter().find(is_below) else { return Resolved::NotOurs };
        let below = location.fs_path.strip_prefix(&place.location.fs_path).unwrap_or(Path::new(""));
        let layer = place.layer.or_else(|| self.layers.layer(mount?, place.mount_id, pid, &self.table, now));
        Resolved::Ours { root: place.root, rel: join(&place.prefix, below), layer }
    }
}

/// Whether two paths lead to one file, no link followed.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = statx(CWD, path, flags, StatxFlags::INO).ok()?;
        Some((crate::source::device(&stat), stat.stx_ino))
    };
    identity(one).is_some_and(|found| identity(other) == Some(found))
}

fn places(roots: &[CallRoot], table: &MountTable) -> Vec<RootLocation> {
    let mut places = Vec::new();
    for (index, root) in roots.iter().enumerate() {
        if let Some(mount) = table.mount_of(&root.dir)
            && let Some(fs_path) = mount.fs_path(&root.dir)
        {
            places.push(RootLocation {
                location: Location { dev: mount.dev, fs_path },
                root: RootRef { root: index, alias: None },
                dir: root.dir.clone(),
                prefix: PathBuf::new(),
                layer: None,
                mount_id: mount.id,
                is_file: false,
                has_left: false,
            });
        }
        places.extend(root.aliases.iter().enumerate().map(|(alias_index, alias)| RootLocation {
            location: alias.location.clone(),
            root: RootRef { root: index, alias: Some(alias_index) },
            dir: alias.dir.clone(),
            prefix: alias.prefix.clone(),
            layer: alias.layer,
            mount_id: alias.mount_id,
            is_file: root.files.contains(&alias_index),
            has_left: alias.is_removed,
        }));
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.location.fs_path.components().count()));
    places
}

/// Splits into the directory and the name in it. Without a name (empty, `/`, `.` or `..` at the end) the whole
/// string is a directory.
fn split(string: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = string.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let trimmed = &string[..end];
    let start = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    match &trimmed[start..] {
        b"" | b"." | b".." => (string, None),
        name => (&string[..start], Some(name)),
    }
}

#[cfg(test)]
mod tests;
