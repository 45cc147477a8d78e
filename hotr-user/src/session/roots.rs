//! The watched roots as the kernel programs know them: which inode stands for which path, and when it stops to.
//!
//! In: the user's paths, the mount table, what records say of roots that were renamed or removed. Out: registered slots,
//! and for a record's slot the path to report.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hotr_common::config::{ROOT_FILE, ROOT_LAYER, Registered};
use hotr_common::hook::Hook;
use hotr_common::record::Record;
use rustix::fs::inotify::ReadFlags;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, openat, statx};

use super::pin::{InodePin, InodePins};
use super::watched_directories::{Spot, WatchedDirectory, bases, identity, look_up, spots};
use crate::error::Error;
use crate::kernel::load::LoadError;
use crate::mounts::{Aliases, MountTable, aliases, join, mount_id};
use crate::pipeline::callpath::{CallRoot, RootRef};
use crate::pipeline::decode::RENAME_EXCHANGE;
use crate::source::ebpf::EbpfSource;
use hotr_events::Layer;
use hotr_events::LossReason;
use hotr_events::{Alias, Root};
use hotr_events::{Change, Op};

mod chosen;
mod mounted;

/// One registered inode.
#[derive(Clone, Debug)]
pub(super) struct RegisteredInode {
    /// The path its files are reported under.
    pub(super) visible: PathBuf,
    /// Index of its base.
    pub(super) base: usize,
    /// Set when it is a layer of a watched overlay.
    pub(super) layer: Option<Layer>,
    /// The mount the expected way leads through.
    pub(super) mount_id: u64,
    /// Where it is in our namespace, to tell whether it is there already.
    dir: PathBuf,
    /// Device and inode number.
    identity: Option<(u64, u64)>,
    /// A file that is mounted by itself: it stays where it is, whatever becomes of its name.
    is_file: bool,
    /// Address of the inode.
    inode: u64,
    /// It was moved out of the watched tree, with what it is mounted in.
    pub(super) is_outside: bool,
    /// When the mount table that says where it is was read, `CLOCK_MONOTONIC` nanoseconds: that shows what was renamed
    /// before.
    placed_ns: u64,
    pin: InodePin,
}

/// An inode to be registered.
struct Wanted {
    base: usize,
    dir: PathBuf,
    prefix: PathBuf,
    layer: Option<Layer>,
    /// Of no use if it is a directory.
    is_covered: bool,
}

/// An inode that was asked for, and what the kernel says of it.
struct Found {
    want: Wanted,
    fd: OwnedFd,
    is_dir: bool,
    mount_id: u64,
    registered: Registered,
}

/// A path the user named.
#[derive(Clone, Debug)]
struct Watched {
    /// As named, absolute.
    path: PathBuf,
    /// What it led to when it last led anywhere.
    spots: Vec<Spot>,
    fs: String,
    /// A line told that it is not what it was; what its path leads to now has not been taken up since.
    is_told: bool,
    /// A look found that it is not what it was, and nothing was reported yet: until when (`CLOCK_MONOTONIC` nanoseconds) the
    /// kernel may still tell what became of it.
    untold_until_ns: Option<u64>,
}

impl Watched {
    /// What a path leads to now.
    fn look_up(path: &Path, table: &MountTable) -> Result<Self, Error> {
        let spots = look_up(path)?;
        let mount = spots.last().and_then(|spot| table.mount_of(spot.dir()));
        let fs = mount.map(|mount| mount.fs_type.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { path: path.to_owned(), spots, fs, is_told: false, untold_until_ns: None })
    }
}

/// All of them.
pub(super) struct Roots {
    watched: Vec<Watched>,
    /// The directories they lead to.
    pub(super) bases: Vec<WatchedDirectory>,
    places: HashMap<u16, RegisteredInode>,
    /// Further places at which a file is mounted that has a slot, with that slot.
    twins: Vec<(u16, RegisteredInode)>,
    pins: InodePins,
    pub(super) table: MountTable,
    /// When it was read, or somewhat before, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) table_ns: u64,
    /// The roots with their aliases, as of the last plan.
    calls: Vec<CallRoot>,
    plans: u64,
    /// What is mounted below the bases, by its path and the mount's number.
    mounted: Vec<(PathBuf, u64)>,
    /// Paths of those that came or went.
    remounted: Vec<PathBuf>,
    /// Found gone by the last plan.
    gone: Vec<Gone>,
    /// What became of registered inodes, not acted upon yet.
    noticed: Vec<(Noticed, ReadFlags)>,
    /// See [`Self::mounts_have_moved`].
    table_is_old: bool,
    /// Roots of which a move was reported just now, and until when (`CLOCK_MONOTONIC` nanoseconds) more is the same move.
    moved: Vec<(PathBuf, u64)>,
}

/// What is told of one move by several ways comes within this time of the next look.
const SAME_MOVE_NS: u64 = 500_000_000;

/// The kernel tells what became of a root a moment after a look can see it: a system call is told when it ends, a removal
/// when the last reference to the inode goes (fs/inode.c `iput`).
const TELLS_WITHIN_NS: u64 = 50_000_000;

/// Who something was noticed of.
#[derive(Clone, Copy)]
enum Noticed {
    /// The place with this watch.
    Watch(i32),
    /// The place with this slot, by a record of a rename.
    Move(u16),
    /// The place with this slot, by what removed its name. A watch reports that when the inode goes, which whoever holds
    /// it open, or works in it, puts off (fs/dcache.c `dentry_unlink_inode`).
    Removal(u16),
}

/// What happened to a registered inode.
pub(super) struct Gone {
    pub(super) path: PathBuf,
    pub(super) reason: LossReason,
}

/// What became of paths that lead elsewhere.
#[derive(Default)]
pub(super) struct Followed {
    /// Some do.
    pub(super) any: bool,
    /// When to look again at one of which the kernel may still tell what became of it.
    pub(super) again_ns: Option<u64>,
    /// Those to be told of.
    pub(super) gone: Vec<Gone>,
    /// Paths below them at which something was mounted or unmounted.
    pub(super) remounted: Vec<PathBuf>,
}

impl Roots {
    /// Looks the paths up; nothing is registered yet.
    pub(super) fn new(paths: &[PathBuf], table: MountTable) -> Result<Self, Error> {
        let watched: Vec<Watched> =
            paths.iter().map(|path| Watched::look_up(path, &table)).collect::<Result<_, Error>>()?;
        let bases = bases_of(&watched);
        Ok(Self {
            watched,
            bases,
            places: HashMap::new(),
            twins: Vec::new(),
            pins: InodePins::new(),
            table,
            table_ns: 0,
            calls: Vec::new(),
            gone: Vec::new(),
            noticed: Vec::new(),
            table_is_old: false,
            plans: 0,
            mounted: Vec::new(),
            remounted: Vec::new(),
            moved: Vec::new(),
        })
    }

    /// The place of a slot.
    pub(super) fn place(&self, slot: u16) -> Option<&RegisteredInode> {
        self.places.get(&slot)
    }

    /// All places, with their slots.
    fn all(&self) -> impl Iterator<Item = (u16, &RegisteredInode)> {
        self.places
            .iter()
            .chain(self.twins.iter().map(|(slot, place)| (slot, place)))
            .map(|(slot, place)| (*slot, place))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut RegisteredInode> {
        self.places.values_mut().chain(self.twins.iter_mut().map(|(_, place)| place))
    }

    /// How often the roots were planned.
    pub(super) fn plans(&self) -> u64 {
        self.plans
    }

    /// The roots with their aliases, in the order of [`Self::bases`].
    pub(super) fn call_roots(&self) -> &[CallRoot] {
        &self.calls
    }

    /// Which root or alias a slot is.
    pub(super) fn root_ref(&self, slot: u16) -> Option<RootRef> {
        let place = self.place(slot)?;
        let root = self.calls.get(place.base)?;
        let alias = if place.dir == root.dir {
            None
        } else {
            Some(root.aliases.iter().position(|alias| alias.dir == place.dir)?)
        };
        Some(RootRef { root: place.base, alias })
    }

    /// As reported in `ready`.
    pub(super) fn report(&self) -> Vec<Root> {
        let described = self.watched.iter().enumerate().map(|(index, watched)| {
            let mut found: Vec<Alias> = self
                .places
                .values()
                .filter(|place| self.bases[place.base].is_of(index))
                .filter_map(|place| Some(Alias { path: place.dir.clone(), layer: place.layer? }))
                .collect();
            found.sort_by(|one, other| one.path.cmp(&other.path));
            found.dedup_by(|one, other| one.path == other.path);
            Root { path: watched.path.clone(), fs: watched.fs.clone(), aliases: found }
        });
        described.collect()
    }

    /// Registers every root and alias that is not registered yet; forgets aliases that are not any more.
    pub(super) fn plan(&mut self, source: &mut EbpfSource) -> Result<(), LoadError> {
        let (mut wanted, mut mounted) = (Vec::new(), Vec::new());
        self.plans += 1;
        self.calls.clear();
        for (index, base) in self.bases.iter().enumerate() {
            let of = |dir: &Path, prefix: &Path, layer, is_covered| {
                let (dir, prefix) = (dir.to_path_buf(), prefix.to_path_buf());
                Wanted { base: index, dir, prefix, layer, is_covered }
            };
            wanted.push(of(&base.dir, Path::new(""), None, false));
            // Only a directory has anything below or behind it.
            let Aliases { roots: mut found, mut covered, .. } = aliases(&base.dir, &self.table);
            found.retain(|alias| base.wants(&alias.prefix));
            covered.retain(|alias| alias.layer.is_none() && base.wants(&alias.prefix));
            let below = found.iter().filter(|alias| alias.layer.is_none()).chain(&covered);
            mounted.extend(below.map(|alias| (join(&base.shown, &alias.prefix), alias.mount_id)));
            wanted.extend(found.iter().map(|it| of(&it.dir, &it.prefix, it.layer, false)));
            wanted.extend(covered.iter().map(|it| of(&it.dir, &it.prefix, None, true)));
            if !base.is_root() {
                // Its first name is none that counts.
                found.append(&mut covered);
            }
            self.calls.push(CallRoot { dir: base.dir.clone(), aliases: found, files: Vec::new() });
        }
        let before = std::mem::replace(&mut self.mounted, mounted);
        if self.plans > 1 {
            let came = self.mounted.iter().filter(|mount| !before.contains(mount));
            let went = before.iter().filter(|mount| !self.mounted.contains(mount));
            self.remounted.extend(came.chain(went).map(|(path, _)| path.clone()));
        }
        let is_stale = |place: &RegisteredInode| {
            let is_wanted = wanted.iter().any(|it| it.base == place.base && it.dir == place.dir);
            !is_wanted || place.is_outside || self.is_covered(place)
        };
        let stale: Vec<_> = self.all().filter(|(_, place)| is_stale(place)).collect();
        let mut stale: Vec<_> = stale.into_iter().map(|(slot, place)| (slot, place.dir.clone())).collect();
        let stays = |slot: u16, dir: &PathBuf| !stale.iter().any(|it| it.0 == slot && it.1 == *dir);
        wanted.retain(|it| {
            let is_it = |place: &RegisteredInode| place.base == it.base && place.dir == it.dir;
            !self.all().any(|(slot, place)| is_it(place) && stays(slot, &place.dir))
        });
        let mut found = resolve(wanted, source)?;
        // Before anything is forgotten: what only moved is watched all along.
        found.retain(|found| !self.follow_mount(found, &mut stale));
        let told =
            self.all().filter(|(slot, place)| stale.iter().any(|it| it.0 == *slot && it.1 == place.dir));
        let told: Vec<Gone> = told.filter_map(|(_, place)| self.became(place)).collect();
        self.gone.extend(told);
        stale.into_iter().try_for_each(|(slot, dir)| self.forget(slot, &dir, source))?;
        self.register(found, source)?;
        let files: Vec<_> =
            self.all().filter(|(_, it)| it.is_file).map(|(_, it)| (it.base, it.dir.clone())).collect();
        for (base, dir) in files {
            let call = &mut self.calls[base];
            call.files.extend(call.aliases.iter().position(|alias| alias.dir == dir));
        }
        Ok(())
    }

    /// What became of a place that is to be forgotten. The mount table tells an unmount before the superblock goes, and
    /// with it the inode. What is mounted over an alias takes nothing from the root.
    fn became(&self, place: &RegisteredInode) -> Option<Gone> {
        let is_root = place.dir == self.bases[place.base].dir;
        let reason = match self.table.by_id(place.mount_id) {
            None => LossReason::Unmounted,
            Some(_) if is_root && self.is_covered(place) => LossReason::MountedOver,
            Some(_) => return None,
        };
        Some(Gone { path: place.visible.clone(), reason })
    }

    /// Whether something else was mounted over a place: its path then leads to another inode.
    fn is_covered(&self, place: &RegisteredInode) -> bool {
        self.table.mount_of(&place.dir).is_some_and(|mount| mount.id != place.mount_id)
    }

    /// Whether a path is that of a watched directory.
    pub(super) fn is_root(&self, path: &Path) -> bool {
        self.bases.iter().any(|base| base.dir == path)
    }

    /// A directory got another name: roots in it are found there from now on, and reported as the user named them.
    pub(super) fn moved(&mut self, old: &Path, new: &Path) {
        let follow = |dir: &mut PathBuf| {
            if let Ok(rest) = dir.strip_prefix(old) {
                *dir = join(new, rest);
            }
        };
        for (base, call) in self.bases.iter_mut().zip(&mut self.calls) {
            if base.is_root() && base.dir.starts_with(old) {
                follow(&mut base.dir);
                follow(&mut call.dir);
                call.aliases.iter_mut().filter(|it| it.layer.is_none()).for_each(|it| follow(&mut it.dir));
                self.plans += 1;
            }
        }
        self.all_mut().for_each(|place| follow(&mut place.dir));
    }

    fn register(&mut self, found: Vec<Found>, source: &mut EbpfSource) -> Result<(), LoadError> {
        for Found { want, fd, is_dir, mount_id, registered } in found {
            let Wanted { base, dir, prefix, layer, .. } = want;
            let of_layer = if layer.is_some() { ROOT_LAYER } else { 0 };
            let of_file = if is_dir { 0 } else { ROOT_FILE };
            let (is_file, inode) = (!is_dir, registered.inode);
            let mut place = RegisteredInode {
                visible: join(&self.bases[base].shown, &prefix),
                base,
                layer,
                mount_id,
                dir,
                identity: identity(&fd),
                is_file,
                inode,
                is_outside: false,
                placed_ns: self.table_ns,
                pin: InodePin::Nothing,
            };
            // One inode has one slot: of directories that of the last, of files one for all.
            let its = self.places.iter().find(|(_, it)| is_file && it.is_file && it.inode == inode);
            if let Some((&slot, _)) = its {
                self.twins.push((slot, place));
                continue;
            }
            let slot = source.add_root(&registered, of_layer | of_file)?;
            place.pin = self.pins.pin(fd);
            self.places.insert(slot, place);
        }
        Ok(())
    }

    /// Forgets the place of this slot that is there.
    fn forget(&mut self, slot: u16, dir: &Path, source: &mut EbpfSource) -> Result<(), LoadError> {
        if let Some(at) = self.twins.iter().position(|(its, place)| *its == slot && place.dir == dir) {
            self.twins.swap_remove(at);
            return Ok(());
        }
        let Some(place) = self.places.remove(&slot) else { return source.remove_root(slot) };
        if let Some(at) = self.twins.iter().position(|(its, _)| *its == slot) {
            // The inode stays, and is kept by the same pin.
            let (_, twin) = self.twins.swap_remove(at);
            self.places.insert(slot, RegisteredInode { pin: place.pin, ..twin });
            return Ok(());
        }
        self.pins.release(&place.pin);
        source.remove_root(slot)
    }

    /// No record will tell of roots: gives them pins that do.
    pub(super) fn watch_pins(&mut self, source: &mut EbpfSource) -> Result<(), LoadError> {
        self.pins.must_tell();
        let mut moved = Vec::new();
        for (slot, place) in &mut self.places {
            match open(&place.dir).filter(|fd| identity(fd) == place.identity) {
                Some(fd) => place.pin = self.pins.pin(fd),
                None => moved.push((*slot, place.dir.clone())),
            }
        }
        // The path leads elsewhere since it was registered.
        moved.into_iter().try_for_each(|(slot, dir)| self.forget(slot, &dir, source))
    }

    /// Paths at which something was mounted or unmounted since the last call.
    pub(super) fn take_remounted(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.remounted)
    }

    /// What the last plan found gone.
    pub(super) fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    /// The descriptor that is readable when something happened to a registered inode.
    pub(super) fn pins(&self) -> Option<BorrowedFd<'_>> {
        self.pins.as_fd()
    }

    /// Reads what happened to registered inodes, for [`Self::losses`]. Records that are read after this call and
    /// before that one were made while the inodes were there.
    pub(super) fn notice(&mut self) {
        let read = self.pins.read().into_iter();
        self.noticed.extend(read.map(|(watch, flags)| (Noticed::Watch(watch), flags)));
    }

    /// The same from a record.
    pub(super) fn notice_record(&mut self, record: &Record) {
        let [first, second] = record.lost_roots();
        let is_removal = record.hook == Hook::Rmdir as u16;
        let of_first = if is_removal { ReadFlags::DELETE_SELF } else { ReadFlags::MOVE_SELF };
        let exchanged = record.aux[0] & RENAME_EXCHANGE != 0;
        let of_second = if exchanged { ReadFlags::MOVE_SELF } else { ReadFlags::DELETE_SELF };
        let told = [(first, of_first), (second, of_second)];
        let new = told.into_iter().filter_map(|(slot, flags)| Some((slot?, flags)));
        self.noticed.extend(new.map(|(slot, flags)| match flags {
            ReadFlags::MOVE_SELF => (Noticed::Move(slot), flags),
            _ => (Noticed::Removal(slot), flags),
        }));
    }

    /// The same from a system call that removed or replaced a directory.
    pub(super) fn notice_removal(&mut self, change: &Change) {
        if !matches!(change.op, Op::Remove | Op::Rename) {
            return;
        }
        let is_it = |place: &RegisteredInode| {
            let base = &self.bases[place.base];
            !place.is_file && base.is_root() && place.dir == base.dir && place.dir == change.path
        };
        let slots: Vec<_> =
            self.places.iter().filter(|(_, place)| is_it(place)).map(|(slot, _)| *slot).collect();
        let removal = |slot| (Noticed::Removal(slot), ReadFlags::DELETE_SELF);
        self.noticed.extend(slots.into_iter().map(removal));
    }

    /// Whether [`Self::losses`] has something to do.
    pub(super) fn has_news(&self) -> bool {
        !self.noticed.is_empty() || self.table_is_old
    }

    /// Tells what was noticed of registered inodes, and forgets those that are no more.
    pub(super) fn losses(&mut self, source: &mut EbpfSource) -> Result<Vec<Gone>, LoadError> {
        let events = std::mem::take(&mut self.noticed);
        let mut gone = Vec::new();
        for (who, flags) in events {
            let found = self.places.iter().find(|(slot, place)| match (who, &place.pin) {
                (Noticed::Watch(watch), InodePin::Watch(its)) => watch == *its,
                // A watch reports it as well.
                (Noticed::Move(_), InodePin::Watch(_)) | (Noticed::Watch(_), _) => false,
                (Noticed::Move(number), _) => number == **slot,
                // It may be there again, and registered, since it was removed.
                (Noticed::Removal(number), _) => {
                    number == **slot && open(&place.dir).and_then(|fd| identity(&fd)) != place.identity
                }
            });
            let Some((&slot, place)) = found else { continue };
            let (path, base, dir) = (place.visible.clone(), place.base, place.dir.clone());
            if place.is_file {
                // It stays where it is mounted; its inode goes with the last mount.
                while flags.intersects(ReadFlags::UNMOUNT | ReadFlags::IGNORED)
                    && let Some(place) = self.places.get(&slot)
                {
                    gone.push(Gone { path: place.visible.clone(), reason: LossReason::Unmounted });
                    let dir = place.dir.clone();
                    self.forget(slot, &dir, source)?;
                }
                continue;
            }
            if flags.contains(ReadFlags::MOVE_SELF) {
                gone.push(Gone { path, reason: LossReason::RootMoved });
            } else if flags.contains(ReadFlags::UNMOUNT) {
                gone.push(Gone { path, reason: LossReason::Unmounted });
            } else if flags.contains(ReadFlags::DELETE_SELF) {
                gone.push(Gone { path, reason: LossReason::RootDeleted });
            }
            for watched in
                self.watched.iter_mut().enumerate().filter(|(index, _)| self.bases[base].is_of(*index))
            {
                watched.1.is_told = true;
            }
            // Reported once, though the end of a watch and the mount table tell it as well.
            if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED) {
                self.forget(slot, &dir, source)?;
            }
        }
        Ok(gone)
    }

    /// One move of a root is told once: by the kernel, by a look at its path, or by the end of its watch, whichever comes
    /// first. `next_look_ns` is the time of the next look.
    pub(super) fn once(&mut self, gone: &mut Vec<Gone>, next_look_ns: u64) {
        self.moved.retain(|(_, until_ns)| *until_ns > crate::source::mono_ns());
        gone.retain(|gone| {
            if gone.reason != LossReason::RootMoved {
                return true;
            }
            let is_new = self.moved.iter().all(|(path, _)| *path != gone.path);
            if is_new {
                self.moved.push((gone.path.clone(), next_look_ns.saturating_add(SAME_MOVE_NS)));
            }
            is_new
        });
    }

    /// The place of a base's own directory.
    fn own_place(&self, base: usize) -> Option<&RegisteredInode> {
        self.places.values().find(|place| place.base == base && place.dir == self.bases[base].dir)
    }

    /// Paths that lead to another directory than the registered one are followed there; those of which nothing was told
    /// yet are returned. A path that leads nowhere stands for what it led to last.
    pub(super) fn follow_paths(&mut self, source: &mut EbpfSource) -> Result<Followed, LoadError> {
        let mut followed = Followed::default();
        let now_ns = crate::source::mono_ns();
        let mut replaced = Vec::new();
        for index in 0..self.watched.len() {
            let Ok(now) = spots(&self.watched[index].path) else { continue };
            let is_same = now.iter().map(Spot::place).eq(self.watched[index].spots.iter().map(Spot::place));
            let (is_whole, lost) = self.compare(index, &now);
            if is_same && is_whole {
                self.watched[index].untold_until_ns = None;
                continue;
            }
            let watched = &mut self.watched[index];
            // A root that has gone was told of, and has no place.
            let is_lost = !lost.is_empty();
            if is_lost && !watched.is_told {
                let until_ns = *watched.untold_until_ns.get_or_insert(now_ns + TELLS_WITHIN_NS);
                if now_ns < until_ns {
                    followed.again_ns = Some(followed.again_ns.map_or(until_ns, |other| other.min(until_ns)));
                    continue;
                }
            }
            watched.untold_until_ns = None;
            watched.spots = now;
            followed.any = true;
            if !std::mem::take(&mut watched.is_told) && is_lost {
                followed.gone.push(Gone { path: watched.path.clone(), reason: LossReason::RootMoved });
            }
            replaced.extend(lost);
        }
        if followed.any {
            self.rebase(&replaced, source)?;
            self.plan(source)?;
        }
        Ok(followed)
    }

    /// What a path leads to now beside the places of its bases: whether every spot has a place, and the bases whose place
    /// is somewhere else.
    fn compare(&self, index: usize, now: &[Spot]) -> (bool, Vec<usize>) {
        let bases = || (0..self.bases.len()).filter(|base| self.bases[*base].is_of(index));
        let is_whole = now.iter().all(|spot| {
            let place = bases()
                .find(|base| self.bases[*base].dir == spot.dir())
                .and_then(|base| self.own_place(base));
            place.is_some_and(|place| place.identity == Some(spot.id()))
        });
        let is_lost = |base: &usize| {
            let there = now.iter().find(|spot| spot.dir() == self.bases[*base].dir);
            self.own_place(*base)
                .is_some_and(|place| there.is_none_or(|spot| place.identity != Some(spot.id())))
        };
        (is_whole, bases().filter(is_lost).collect())
    }

    /// Takes over what the paths lead to now. Places stay registered, but for those of bases that are no more or that were
    /// `replaced`. One that has gone meanwhile stays as well: it is forgotten when that was told.
    fn rebase(&mut self, replaced: &[usize], source: &mut EbpfSource) -> Result<(), LoadError> {
        let former = std::mem::replace(&mut self.bases, bases_of(&self.watched));
        let mut stale = Vec::new();
        let twins = self.twins.iter_mut().map(|(slot, place)| (&*slot, place));
        for (slot, place) in self.places.iter_mut().chain(twins) {
            let before = &former[place.base];
            let is_there = !replaced.contains(&place.base)
                || open(&place.dir).and_then(|fd| identity(&fd)) == place.identity;
            let now = self.bases.iter().position(|base| base.dir == before.dir);
            let prefix = place.visible.strip_prefix(&before.shown).map(Path::to_path_buf);
            match (now, prefix) {
                (Some(base), Ok(prefix)) if is_there => {
                    place.base = base;
                    place.visible = join(&self.bases[base].shown, &prefix);
                }
                _ => stale.push((*slot, place.dir.clone())),
            }
        }
        stale.into_iter().try_for_each(|(slot, dir)| self.forget(slot, &dir, source))
    }

    /// Whether every user path is registered.
    pub(super) fn complete(&self) -> bool {
        (0..self.bases.len()).all(|index| self.own_place(index).is_some())
    }
}

/// Asks the kernel for what is wanted. What has disappeared since is reported by the next change of the mount table.
fn resolve(wanted: Vec<Wanted>, source: &mut EbpfSource) -> Result<Vec<Found>, LoadError> {
    let opened: Vec<_> = wanted
        .into_iter()
        .filter_map(|want| Some((open(&want.dir)?, want)))
        .map(|(fd, want)| (is_dir(&fd), fd, want))
        .filter(|(is_dir, _, want)| !(*is_dir && want.is_covered))
        .collect();
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let fds: Vec<BorrowedFd<'_>> = opened.iter().map(|(_, fd, _)| fd.as_fd()).collect();
    let answers = source.register(&fds)?;
    let found = opened.into_iter().zip(answers).map(|((is_dir, fd, want), registered)| {
        let mount_id = mount_id(&fd).unwrap_or(u64::from(registered.mnt_id));
        Found { want, fd, is_dir, mount_id, registered }
    });
    Ok(found.collect())
}

fn bases_of(watched: &[Watched]) -> Vec<WatchedDirectory> {
    bases(watched.iter().map(|watched| (watched.path.as_path(), watched.spots.as_slice())))
}

fn open(dir: &Path) -> Option<OwnedFd> {
    openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn is_dir(fd: &OwnedFd) -> bool {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory)
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
