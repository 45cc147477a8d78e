//! The inotify instances of the chosen processes, as they come and go, with every watch they have or had.
//!
//! In: processes. Out: [`Instance`]s, each with the slot by which the kernel programs name it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hotr_common::delivery::{Usage, Used};
use rustix::fs::inotify::{self, WatchFlags};

use super::instance::{Instance, directory};
use super::scan::{duplicate, look};
use super::stand_in_instances::{ReceivedEvent, StandInInstances};
use crate::diagnose::process::{ProcDir, stat_field};
use crate::diagnose::select::{Choice, Error};
use crate::mounts::{DevId, MountTable};
use crate::source::ebpf::DeliverySource;
use crate::source::mono_ns;

/// Filesystems whose reads all call `touch_atime`, as mountinfo names them. Others may read without it: by a server, or directly.
const READS_ARE_SEEN: [&str; 12] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "devtmpfs", "ramfs", "rootfs", "vfat", "overlay",
];

/// All of them.
pub(super) struct Targets {
    choices: Vec<Choice>,
    instances: Vec<Instance>,
    next_slot: u32,
    /// Directories that were reported as not traced.
    untraced: BTreeSet<PathBuf>,
    /// Where no program sees what is queued.
    shadows: Option<StandInInstances>,
    is_short_told: bool,
    /// Those that were named by their ids. Held from the start: when one has exited, its number may be given to another
    /// process, which is no target.
    named: BTreeMap<u32, ProcDir>,
    exited: BTreeSet<u32>,
    /// When the named ones were there for the last time, where their end is not seen: what was made and read later may be
    /// another process', with the same id and an instance at the same address.
    last_there: BTreeMap<u32, u64>,
    /// A process may have used files unseen: only system calls are seen where stand-ins are, and a request of io_uring
    /// is none; elsewhere, reads that do not call `touch_atime` are not seen.
    may_use_unseen: bool,
    /// Where stand-ins are not: by device, whether reads of its files are seen. As of the last look.
    reads_are_seen: RefCell<HashMap<u32, bool>>,
}

impl Targets {
    pub(super) fn new(choices: &[Choice]) -> Result<Self, Error> {
        let pids = choices.iter().filter_map(pid_of);
        let named: BTreeMap<_, _> = pids.filter_map(|pid| Some((pid, ProcDir::open(pid).ok()?))).collect();
        let instances = look(choices, None)?;
        Ok(Self {
            choices: choices.to_vec(),
            instances,
            named,
            next_slot: 1,
            untraced: BTreeSet::new(),
            shadows: None,
            is_short_told: false,
            exited: BTreeSet::new(),
            last_there: BTreeMap::new(),
            may_use_unseen: false,
            reads_are_seen: RefCell::default(),
        })
    }

    /// From the next look on, instances of hotr's own stand in for those of the processes.
    pub(super) fn double(&mut self) {
        self.shadows = Some(StandInInstances::new());
    }

    /// Whether they do.
    pub(super) fn are_doubled(&self) -> bool {
        self.shadows.is_some()
    }

    /// Hands over what the stand-ins got, with the slots of the instances.
    pub(super) fn receive(&mut self, mut each: impl FnMut(u32, ReceivedEvent)) {
        let Self { shadows: Some(shadows), instances, .. } = self else { return };
        shadows.drain(|at, heard| {
            let is_it = |one: &&Instance| one.slot != 0 && one.closed.is_none() && one.at() == at;
            if let Some(instance) = instances.iter().find(is_it) {
                each(instance.slot, heard);
            }
        });
    }

    /// Until when events of the stand-ins may be missing.
    pub(super) fn gap_until(&self) -> u64 {
        self.shadows.as_ref().map_or(0, StandInInstances::gap_until)
    }

    /// A remark, once, when watches have no stand-in.
    pub(super) fn short(&mut self) -> Option<String> {
        let shadows = self.shadows.as_ref().filter(|shadows| shadows.is_full())?;
        let is_first = !std::mem::replace(&mut self.is_short_told, true);
        is_first.then(|| {
            let count = shadows.lacking();
            format!("{count} watches have no stand-in: changes there are judged only by what the process reads; raise fs.inotify.max_user_watches")
        })
    }

    /// Remarks on named processes that have exited, each once; and whether there is nobody left to follow.
    pub(super) fn exited(&mut self) -> (Vec<String>, bool) {
        let is_new = |pid: &u32| !self.exited.contains(pid) && self.has_exited(*pid);
        let gone: BTreeSet<u32> = self.choices.iter().filter_map(pid_of).filter(is_new).collect();
        self.exited.extend(&gone);
        let notes = gone.iter().map(|pid| format!("process {pid} has exited: it is followed no longer"));
        let is_over =
            self.choices.iter().all(|choice| pid_of(choice).is_some_and(|pid| self.exited.contains(&pid)));
        (notes.collect(), is_over)
    }

    /// Notes which of the named processes are there. Whether one is not any more of which instances are still followed.
    pub(super) fn note_there(&mut self) -> bool {
        if self.shadows.is_none() {
            return false;
        }
        let now = mono_ns();
        let followed = |pid: u32| self.instances.iter().any(|one| one.pid == pid && one.closed.is_none());
        let pids: Vec<u32> = self.named.keys().copied().filter(|pid| followed(*pid)).collect();
        let (gone, there): (Vec<u32>, Vec<u32>) = pids.into_iter().partition(|pid| self.has_exited(*pid));
        self.last_there.extend(there.into_iter().map(|pid| (pid, now)));
        !gone.is_empty()
    }

    /// Whether the process that had this id at the start has ended; one that nobody has waited for has no descriptors any
    /// more.
    fn has_exited(&self, pid: u32) -> bool {
        let Some(Ok(stat)) = self.named.get(&pid).map(|process| process.read("stat")) else { return true };
        matches!(stat_field(&stat, 3), Some('Z' | 'X'))
    }

    /// The process set a watch.
    pub(super) fn added(&mut self, slot: u32, wd: i32, time: u64) {
        if let Some(instance) = self.instances.iter_mut().find(|instance| instance.slot == slot) {
            instance.added.entry(wd).or_insert(time);
            // A look may have been faster.
            let known = instance.watches.iter_mut().filter(|watch| watch.wd == wd && watch.gone.is_none());
            known.for_each(|watch| watch.since = watch.since.min(time));
        }
    }

    /// Bytes that are unread in an instance; `None` when it is gone.
    pub(super) fn unread(&self, slot: u32) -> Option<u64> {
        let instance = self.of_slot(slot).filter(|instance| instance.closed.is_none())?;
        let own = duplicate(instance.pid, instance.fd)?;
        rustix::io::ioctl_fionread(&own).ok()
    }

    /// Instances that are followed, or were.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.slot != 0)
    }

    /// All instances, followed or not.
    pub(super) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter()
    }

    /// The command name of the processes, when they have an instance.
    pub(super) fn comm(&self) -> Option<&[u8]> {
        self.instances.first().map(|instance| &*instance.comm)
    }

    fn processes(&self) -> BTreeSet<u32> {
        self.instances.iter().map(|instance| instance.pid).collect()
    }

    /// When a file was used last by any of the processes; `None` when that is not known of one of them.
    pub(super) fn usage(&self, source: &DeliverySource, dev: u32, ino: u64) -> Option<Usage> {
        if self.may_use_unseen || !self.are_doubled() && !self.reads_are_seen(dev) {
            return None;
        }
        self.processes().into_iter().try_fold(Usage::default(), |last, process| {
            let usage = source.usage(Used { process, dev, ino })?;
            Some(Usage { opened: last.opened.max(usage.opened), read: last.read.max(usage.read) })
        })
    }

    /// Whether all reads of files of a superblock are seen.
    fn reads_are_seen(&self, dev: u32) -> bool {
        *self.reads_are_seen.borrow_mut().entry(dev).or_insert_with(|| {
            let dev = DevId::from_kernel(dev);
            let tables = self.processes().into_iter().filter_map(|pid| MountTable::read_process(pid).ok());
            let fs = tables.into_iter().find_map(|table| {
                let mount = table.mounts().iter().find(|mount| mount.dev == dev)?;
                Some(mount.fs_type.clone())
            });
            fs.is_some_and(|fs| READS_ARE_SEEN.iter().any(|known| fs == *known))
        })
    }

    /// Instances of a process, followed or not.
    pub(super) fn of_process(&self, pid: u32) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.pid == pid)
    }

    pub(super) fn of_slot(&self, slot: u32) -> Option<&Instance> {
        self.instances().find(|instance| instance.slot == slot)
    }

    /// An instance was closed: its slot names it no more.
    pub(super) fn closed(&mut self, slot: u32, time: u64) {
        if let Some(instance) = self.instances.iter_mut().find(|instance| instance.slot == slot) {
            instance.closed = Some(time);
        }
    }

    /// The kernel took a watch off.
    pub(super) fn ignored(&mut self, slot: u32, wd: i32, time: u64) {
        let instance = self.instances.iter_mut().find(|instance| instance.slot == slot);
        let watches = instance.into_iter().flat_map(|instance| &mut instance.watches);
        for watch in watches.filter(|watch| watch.wd == wd && watch.gone.is_none()) {
            watch.gone = Some(time);
        }
    }

    /// Directories in which the watched things are.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let watches = self.instances.iter().flat_map(|instance| &instance.watches);
        let all: BTreeSet<_> = watches.filter_map(|watch| Some(directory(watch)?.to_path_buf())).collect();
        all.into_iter().filter(|path| path.is_dir()).collect()
    }

    pub(super) fn names(&self) -> String {
        let name = |choice: &Choice| match choice {
            Choice::Pid(pid) => format!("process {pid}"),
            Choice::Comm(name) | Choice::Unit(name) | Choice::Container(name) => name.clone(),
        };
        self.choices.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Follows every instance that is not yet.
    pub(super) fn follow(&mut self, source: &mut DeliverySource) {
        let first = self.next_slot;
        for instance in self.instances.iter().filter(|instance| instance.group == 0) {
            source.observe(instance.pid);
            if self.shadows.is_none() {
                // What it opens from now on is seen.
                let process = ProcDir::open(instance.pid);
                self.may_use_unseen |=
                    process.is_ok_and(|process| process.reads_without_atime().unwrap_or(true));
            }
        }
        for at in 0..self.instances.len() {
            let instance = &self.instances[at];
            // A forked child has the same instance as its parent, and is looked at once.
            if instance.group != 0 || instance.closed.is_some() {
                continue;
            }
            let Some(own) = duplicate(instance.pid, instance.fd) else { continue };
            let Ok(group) = source.group_of(own.as_fd()) else { continue };
            drop(own);
            let is_known = self.instances().any(|other| other.group == group && other.closed.is_none());
            let is_new = group != 0 && !is_known;
            if is_new && source.follow(group, self.next_slot).is_err() {
                continue;
            }
            let instance = &mut self.instances[at];
            instance.group = group;
            if is_new {
                instance.slot = self.next_slot;
                self.next_slot += 1;
            }
        }
        if first == self.next_slot {
            return;
        }
        end_deliveries();
        let since = mono_ns();
        for instance in self.instances.iter_mut().filter(|instance| instance.slot >= first) {
            instance.since = since;
        }
    }

    /// Looks again.
    pub(super) fn look(&mut self, source: &mut DeliverySource) {
        self.reads_are_seen.get_mut().clear();
        // Processes that ended are found closed.
        let runs = |choice: &&Choice| pid_of(choice).is_none_or(|pid| !self.has_exited(pid));
        let choices: Vec<_> = self.choices.iter().filter(runs).cloned().collect();
        let mut seen = look(&choices, self.shadows.as_mut()).unwrap_or_default();
        // Another process may have got the number since.
        seen.retain(|one| !self.named.contains_key(&one.pid) || !self.has_exited(one.pid));
        if self.shadows.is_some() {
            self.find_closed(source, &seen);
            // One that has ended was looked at before.
            let has_ring =
                |pid| ProcDir::open(pid).is_ok_and(|process| process.has_io_uring().unwrap_or(true));
            self.may_use_unseen = self.may_use_unseen || self.processes().into_iter().any(has_ring);
        }
        let mut known: HashMap<(u32, i32), usize> = HashMap::new();
        for (at, instance) in
            self.instances.iter().enumerate().filter(|(_, instance)| instance.closed.is_none())
        {
            known.insert((instance.pid, instance.fd), at);
        }
        for one in seen {
            match known.get(&(one.pid, one.fd)) {
                Some(&at) => self.instances[at].update(one.watches),
                None => self.instances.push(one),
            }
        }
        self.follow(source);
    }

    /// Where closing is not seen: instances that are gone, or whose descriptor is another one's now.
    fn find_closed(&mut self, source: &mut DeliverySource, seen: &[Instance]) {
        let seen: BTreeSet<_> = seen.iter().map(Instance::at).collect();
        for at in 0..self.instances.len() {
            let instance = &self.instances[at];
            if instance.closed.is_some() || instance.group == 0 {
                continue;
            }
            let is_there = seen.contains(&instance.at())
                && duplicate(instance.pid, instance.fd)
                    .and_then(|own| source.group_of(own.as_fd()).ok())
                    .is_some_and(|group| group == instance.group);
            if is_there {
                continue;
            }
            let (place, group) = (instance.at(), instance.group);
            let is_alone = !self
                .instances
                .iter()
                .any(|other| other.group == group && other.at() != place && other.closed.is_none());
            if is_alone {
                let _ = source.leave(group);
            }
            let has_exited = self.named.contains_key(&place.0) && self.has_exited(place.0);
            let last_there = self.last_there.get(&place.0).filter(|_| has_exited);
            self.instances[at].closed = Some(last_there.copied().unwrap_or_else(mono_ns));
            if let Some(shadows) = &mut self.shadows {
                shadows.close(place);
            }
        }
    }

    /// Remarks on directories that are watched and not traced, each once.
    pub(super) fn untraced(&mut self, is_traced: impl Fn(&Path) -> bool) -> Vec<String> {
        let open = self.instances.iter().filter(|instance| instance.closed.is_none());
        let dirs: BTreeSet<_> =
            open.flat_map(|one| &one.watches).filter_map(directory).map(Path::to_path_buf).collect();
        let mut notes = Vec::new();
        for dir in dirs {
            if !is_traced(&dir) && self.untraced.insert(dir.clone()) {
                let dir = dir.display();
                notes.push(format!(
                    "{dir} is watched and not traced: its changes are not judged; run it again"
                ));
            }
        }
        notes
    }
}

/// Waits until each delivery that is under way has ended: of one that began before its instance was followed there is no
/// record. When an instance goes away, the kernel waits for all of them (fs/notify/mark.c `fsnotify_wait_marks_destroyed`).
fn end_deliveries() {
    let Ok(own) = inotify::init(inotify::CreateFlags::CLOEXEC) else { return };
    let _ = inotify::add_watch(&own, "/", WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR);
}

/// The id by which a process was named.
const fn pid_of(choice: &Choice) -> Option<u32> {
    if let Choice::Pid(pid) = choice { Some(*pid) } else { None }
}
