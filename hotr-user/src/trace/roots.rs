//! The watched roots as the kernel programs know them: which inode stands for which path, and when it stops to.
//!
//! In: the user's paths, the mount table. Out: registered slots, and for a record's slot the path to report. An
//! inotify watch on each registered directory keeps its inode in memory and tells when it goes, without blocking
//! an unmount as an open descriptor would.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::Error;
use crate::event::Layer;
use crate::kernel::load::LoadError;
use crate::mounts::{AliasRoot, MountTable, aliases, join, mount_id};
use crate::pipeline::callpath::{CallRoot, RootRef};
use crate::report::{Alias, Root};
use crate::source::ebpf::EbpfSource;

/// One registered inode.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The path its files are reported under.
    pub(super) visible: PathBuf,
    /// Index of the watched root.
    pub(super) root: usize,
    /// Set when it is a layer of a watched overlay.
    pub(super) layer: Option<Layer>,
    /// The mount the expected way leads through.
    pub(super) mount_id: u64,
    /// Where it is in our namespace, to tell whether it is there already.
    dir: PathBuf,
    /// Keeps the inode where no watch could be had.
    _kept: Option<std::sync::Arc<OwnedFd>>,
    watch: Option<i32>,
}

/// A path the user named.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// As named, absolute.
    pub(super) path: PathBuf,
    /// Without symbolic links: the directory that is registered.
    dir: PathBuf,
    /// For a file: its name; changes of other names in the directory are not reported.
    pub(super) only: Option<OsString>,
    fs: String,
}

/// All of them.
pub(super) struct Roots {
    pub(super) watched: Vec<Watched>,
    places: HashMap<u16, Place>,
    pins: Option<OwnedFd>,
    pub(super) table: MountTable,
    /// The roots with their aliases, as of the last plan.
    calls: Vec<CallRoot>,
    plans: u64,
    /// Found gone by the last plan.
    gone: Vec<Gone>,
    /// Events of registered inodes that are not acted upon yet.
    noticed: Vec<(i32, ReadFlags)>,
}

/// What happened to a registered inode.
pub(super) struct Gone {
    pub(super) path: PathBuf,
    pub(super) reason: &'static str,
}

impl Roots {
    /// Looks the paths up; nothing is registered yet.
    pub(super) fn new(paths: &[PathBuf], table: MountTable) -> Result<Self, Error> {
        let watched = paths.iter().map(|path| look_up(path, &table)).collect::<Result<_, _>>()?;
        let pins = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Ok(Self {
            watched,
            places: HashMap::new(),
            pins,
            table,
            calls: Vec::new(),
            gone: Vec::new(),
            noticed: Vec::new(),
            plans: 0,
        })
    }

    /// The place of a slot.
    pub(super) fn place(&self, slot: u16) -> Option<&Place> {
        self.places.get(&slot)
    }

    /// How often the roots were planned.
    pub(super) fn plans(&self) -> u64 {
        self.plans
    }

    /// The roots with their aliases, in the order of [`Self::watched`].
    pub(super) fn call_roots(&self) -> &[CallRoot] {
        &self.calls
    }

    /// Which root or alias a slot is.
    pub(super) fn root_ref(&self, slot: u16) -> Option<RootRef> {
        let place = self.place(slot)?;
        let root = self.calls.get(place.root)?;
        let alias = if place.dir == root.dir {
            None
        } else {
            Some(root.aliases.iter().position(|alias| alias.dir == place.dir)?)
        };
        Some(RootRef { root: place.root, alias })
    }

    /// As reported in `ready`.
    pub(super) fn report(&self) -> Vec<Root> {
        let described = self.watched.iter().enumerate().map(|(index, watched)| {
            let mut found: Vec<Alias> = self
                .places
                .values()
                .filter(|place| place.root == index)
                .filter_map(|place| Some(Alias { path: place.dir.clone(), layer: place.layer? }))
                .collect();
            found.sort_by(|one, other| one.path.cmp(&other.path));
            Root { path: watched.path.clone(), fs: watched.fs.clone(), aliases: found }
        });
        described.collect()
    }

    /// Registers every root and alias that is not registered yet; forgets aliases that are not any more.
    pub(super) fn plan(&mut self, source: &mut EbpfSource) -> Result<(), LoadError> {
        let mut wanted = Vec::new();
        self.plans += 1;
        self.calls.clear();
        for (index, watched) in self.watched.iter().enumerate() {
            wanted.push((index, watched.dir.clone(), PathBuf::new(), None));
            // Only a directory has anything below or behind it.
            let found = aliases(&watched.dir, &self.table).roots;
            for AliasRoot { dir, prefix, layer, .. } in &found {
                wanted.push((index, dir.clone(), prefix.clone(), *layer));
            }
            self.calls.push(CallRoot { dir: watched.dir.clone(), aliases: found });
        }
        let stale: Vec<u16> = self
            .places
            .iter()
            .filter(|(_, place)| {
                !wanted.iter().any(|(root, dir, ..)| *root == place.root && *dir == place.dir)
                    || self.is_covered(place)
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in stale {
            let told = self.places.get(&slot).and_then(|place| self.became(place));
            self.gone.extend(told);
            self.forget(slot, source)?;
        }
        wanted.retain(|(root, dir, ..)| {
            !self.places.values().any(|place| place.root == *root && place.dir == *dir)
        });
        self.register(wanted, source)
    }

    /// What became of a place that is to be forgotten. The mount table tells an unmount before the superblock goes, and
    /// with it the inode. What is mounted over an alias takes nothing from the root.
    fn became(&self, place: &Place) -> Option<Gone> {
        let is_root = place.dir == self.watched[place.root].dir;
        let reason = match self.table.by_id(place.mount_id) {
            None => "unmounted",
            Some(_) if is_root && self.is_covered(place) => "mounted-over",
            Some(_) => return None,
        };
        Some(Gone { path: place.visible.clone(), reason })
    }

    /// Whether something else was mounted over a place: its path then leads to another inode.
    fn is_covered(&self, place: &Place) -> bool {
        self.table.mount_of(&place.dir).is_some_and(|mount| mount.id != place.mount_id)
    }

    /// Whether a path is that of a watched directory.
    pub(super) fn is_root(&self, path: &Path) -> bool {
        self.watched.iter().any(|watched| watched.dir == path)
    }

    /// A directory got another name: roots in it are found there from now on, and reported as the user named them.
    pub(super) fn moved(&mut self, old: &Path, new: &Path) {
        let follow = |dir: &mut PathBuf| {
            if let Ok(rest) = dir.strip_prefix(old) {
                *dir = join(new, rest);
            }
        };
        for (watched, call) in self.watched.iter_mut().zip(&mut self.calls) {
            if watched.only.is_none() && watched.dir.starts_with(old) {
                follow(&mut watched.dir);
                follow(&mut call.dir);
                self.plans += 1;
            }
        }
        self.places.values_mut().for_each(|place| follow(&mut place.dir));
    }

    fn register(
        &mut self,
        wanted: Vec<(usize, PathBuf, PathBuf, Option<Layer>)>,
        source: &mut EbpfSource,
    ) -> Result<(), LoadError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened: Vec<_> = wanted
            .into_iter()
            // What has gone since is told of by the next change of the mount table.
            .filter_map(|want| Some((openat(CWD, &want.1, flags, Mode::empty()).ok()?, want)))
            .collect();
        if opened.is_empty() {
            return Ok(());
        }
        let fds: Vec<BorrowedFd<'_>> = opened.iter().map(|(fd, _)| fd.as_fd()).collect();
        let found = source.register(&fds)?;
        for ((fd, (root, dir, prefix, layer)), registered) in opened.into_iter().zip(found) {
            let slot = source.add_root(&registered, layer.is_some())?;
            let watch = self.pin(&dir);
            let place = Place {
                visible: join(&self.watched[root].shown(), &prefix),
                root,
                layer,
                mount_id: mount_id(&fd).unwrap_or(u64::from(registered.mnt_id)),
                dir,
                _kept: watch.is_none().then(|| std::sync::Arc::new(fd)),
                watch,
            };
            self.places.insert(slot, place);
        }
        Ok(())
    }

    fn pin(&self, dir: &Path) -> Option<i32> {
        let pins = self.pins.as_ref()?;
        let flags = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::DONT_FOLLOW;
        inotify::add_watch(pins, dir, flags).ok()
    }

    fn forget(&mut self, slot: u16, source: &mut EbpfSource) -> Result<(), LoadError> {
        if let Some(place) = self.places.remove(&slot)
            && let (Some(pins), Some(watch)) = (&self.pins, place.watch)
        {
            // Gone already when the inode is.
            let _ = inotify::remove_watch(pins, watch);
        }
        source.remove_root(slot)
    }

    /// What the last plan found gone.
    pub(super) fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    /// The descriptor that is readable when something happened to a registered inode.
    pub(super) fn pins(&self) -> Option<BorrowedFd<'_>> {
        self.pins.as_ref().map(AsFd::as_fd)
    }

    /// Reads what happened to registered inodes, for [`Self::losses`]. Records that are read after this call and
    /// before that one were made while the inodes were there.
    pub(super) fn notice(&mut self) {
        if let Some(pins) = &self.pins {
            self.noticed.extend(read_all(pins));
        }
    }

    /// Tells what was noticed of registered inodes, and forgets those that are no more.
    pub(super) fn losses(&mut self, source: &mut EbpfSource) -> Result<Vec<Gone>, LoadError> {
        let events = std::mem::take(&mut self.noticed);
        let mut gone = Vec::new();
        for (watch, flags) in events {
            let found = self.places.iter().find(|(_, place)| place.watch == Some(watch));
            let Some((&slot, place)) = found else { continue };
            let path = place.visible.clone();
            if flags.contains(ReadFlags::MOVE_SELF) {
                gone.push(Gone { path, reason: "root-moved" });
            } else if flags.contains(ReadFlags::UNMOUNT) {
                gone.push(Gone { path, reason: "unmounted" });
            } else if flags.contains(ReadFlags::DELETE_SELF) {
                gone.push(Gone { path, reason: "root-deleted" });
            } else if flags.contains(ReadFlags::IGNORED) {
                self.places.remove(&slot);
                source.remove_root(slot)?;
            }
        }
        Ok(gone)
    }

    /// Whether every user path is registered.
    pub(super) fn complete(&self) -> bool {
        (0..self.watched.len()).all(|index| {
            self.places.values().any(|place| place.root == index && place.dir == self.watched[index].dir)
        })
    }
}

impl Watched {
    /// The path of the registered directory as the user would write it.
    pub(super) fn shown(&self) -> PathBuf {
        match &self.only {
            Some(_) => self.path.parent().unwrap_or(&self.path).to_path_buf(),
            None => self.path.clone(),
        }
    }
}

fn look_up(path: &Path, table: &MountTable) -> Result<Watched, Error> {
    let real = path.canonicalize().map_err(|source| Error::Path {
        path: path.to_path_buf(),
        cause: source.to_string(),
        next: "check the path".to_owned(),
    })?;
    let is_dir = real.is_dir();
    let only = (!is_dir).then(|| path.file_name().map(OsString::from)).flatten();
    let dir = if is_dir {
        real
    } else {
        // The name the user gave, in the directory it is in: what replaces the file has the same name there.
        let parent = path.parent().unwrap_or(Path::new("/"));
        parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf())
    };
    let fs =
        table.mount_of(&dir).map(|mount| mount.fs_type.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Watched { path: path.to_path_buf(), dir, only, fs })
}

fn read_all(pins: &OwnedFd) -> Vec<(i32, ReadFlags)> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(pins, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => events.push((event.wd(), event.events())),
            Err(Errno::INTR) => {}
            Err(_) => return events,
        }
    }
}

/// The next step after the one that the cause names. It goes without saying where inotify is tried anyway.
pub(super) const OTHER_CHANNEL: &str = "or run with --channels inotify";

/// A load error as the end of the eBPF channel.
pub(super) fn channel_error(error: &LoadError) -> Error {
    Error::Channel {
        channel: "ebpf",
        // It has the next step at its end.
        cause: error.to_string(),
        next: OTHER_CHANNEL.to_owned(),
    }
}

/// An I/O error of `/proc`.
pub(super) fn proc_error(source: io::Error) -> Error {
    Error::Os { operation: "read", object: "/proc/self/mountinfo".to_owned(), source, next: "mount /proc" }
}
