//! What the kernel programs know of roots, and how they are told.
//!
//! In: descriptors of directories. Out: kernel addresses, and slots by which records name roots. Until programs are
//! attached the maps are written by bpf(2); later by the program `adjust`, for with a call on a map hotr would make the
//! kernel skip programs (see [`super::run`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use hotr_common::config::{
    ADJUST_ADD, ADJUST_FOLLOW, ADJUST_LEAVE, ADJUST_PUBLISH, ADJUST_REMOVE, ADJUST_RESOLVE, Exchange, Live,
    MAX_ROOTS, ROOT_FILE, ROOT_LAYER, Registered, RootSlot,
};

use super::delivery::Groups;
use super::run::{self, run};
use super::shared::Shared;
use super::{ExchangePod, LivePod, SlotPod, raw_tracepoint, shared, take};
use crate::kernel::load::LoadError;

/// Name of the program that resolves descriptors before others are attached.
pub(super) const REGISTER: &str = "register";
/// Calls that are made until it sees one.
const REGISTER_ATTEMPTS: u32 = 200;
/// Name of the program that does it afterwards, and changes the maps.
pub(super) const UPDATE_ROOTS: &str = "update_roots";

/// The maps, and what was written there.
pub(super) struct Registry {
    live: Array<MapData, LivePod>,
    roots: HashMap<MapData, u64, u32>,
    slots: Array<MapData, SlotPod>,
    exchange: Shared<ExchangePod>,
    settings: Live,
    used: Vec<Option<Registered>>,
    /// Programs on tracepoints can be preempted.
    is_preemptible: bool,
    update_roots: UpdateRoots,
}

/// The program [`UPDATE_ROOTS`].
enum UpdateRoots {
    /// No program is attached that could be skipped, or the kernel refuses this one.
    NotUsed,
    /// Loaded when it is first needed: most runs never do, and `ready` would wait for it.
    NotLoaded,
    Loaded(OwnedFd),
}

impl Registry {
    /// Takes the maps of a loaded object, and writes the first settings.
    pub(super) fn new(ebpf: &mut Ebpf, window_ns: u64) -> Result<Self, LoadError> {
        let settings = Live { lowest: u64::MAX, window: window_ns, cookie: cookie(), ..Live::ZERO };
        let mut registry = Self {
            live: take(ebpf, ".bss")?,
            roots: take(ebpf, "ROOTS")?,
            slots: take(ebpf, "ROOT_SLOTS")?,
            exchange: shared(ebpf, "EXCHANGE", 1)?,
            settings,
            used: Vec::new(),
            is_preemptible: true,
            update_roots: UpdateRoots::NotUsed,
        };
        registry.publish_by_map()?;
        Ok(registry)
    }

    /// Programs are going to be attached. A kernel that refuses [`UPDATE_ROOTS`] goes on with bpf(2): what it skips then is reported.
    pub(super) fn programs_come(&mut self) {
        self.update_roots = UpdateRoots::NotLoaded;
    }

    /// Whether programs on tracepoints can be preempted on this kernel; `None` when nothing was registered.
    pub(super) fn is_preemptible(&self) -> Option<bool> {
        (self.settings.own_tgid != 0).then_some(self.is_preemptible)
    }

    /// Resolves descriptors to kernel addresses.
    pub(super) fn register(
        &mut self,
        ebpf: &mut Ebpf,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<Registered>, LoadError> {
        let found: Option<Vec<_>> = fds.iter().map(|fd| self.resolve(ebpf, *fd)).collect();
        if let Some(found) = found {
            return Ok(found);
        }
        let program = raw_tracepoint(ebpf, REGISTER)?;
        let refused = |error| LoadError::Program { program: REGISTER, error };
        if program.fd().is_err() {
            program.load().map_err(refused)?;
        }
        let link = program.attach("sys_enter").map_err(refused)?;
        let found = fds.iter().map(|fd| self.resolve_by_call(*fd)).collect();
        raw_tracepoint(ebpf, REGISTER)?.detach(link).map_err(refused)?;
        found
    }

    /// `None` where [`UPDATE_ROOTS`] is not there to do it, or fails.
    fn resolve(&mut self, ebpf: &mut Ebpf, fd: BorrowedFd<'_>) -> Option<Registered> {
        let descriptor = u64::try_from(fd.as_raw_fd()).ok()?;
        let is_done = self.updated_roots(ebpf, [ADJUST_RESOLVE, descriptor, 0, 0]).ok()?;
        self.answer().ok().filter(|_| is_done).map(|answer| answer.found)
    }

    fn resolve_by_call(&mut self, fd: BorrowedFd<'_>) -> Result<Registered, LoadError> {
        let mut found = Registered::default();
        for attempt in 0..REGISTER_ATTEMPTS {
            if attempt > 0 {
                // Skipped, for another task was preempted in the program on this CPU: it needs the time to leave.
                std::thread::sleep(Duration::from_millis(1));
            }
            ask(&mut self.exchange, &self.settings);
            // SAFETY: F_GETFD takes no third argument; the kernel program reads it.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD, self.settings.cookie) };
            found = self.answer()?.found;
            if found.inode != 0 {
                break;
            }
        }
        if found.inode == 0 {
            return Err(LoadError::Register {
                object: format!("descriptor {}", fd.as_raw_fd()),
                source: io::Error::other("the program on sys_enter did not see hotr's own system call"),
            });
        }
        if self.settings.regs_off != found.regs_off || self.settings.own_tgid != found.tgid {
            self.settings.regs_off = found.regs_off;
            self.settings.own_tgid = found.tgid;
            self.publish_by_map()?;
        }
        self.is_preemptible = found.preemptible != 0;
        Ok(found)
    }

    /// Watches a registered inode; returns its slot. One inode has one slot. `flags`: `ROOT_*` bits.
    pub(super) fn add(&mut self, ebpf: &mut Ebpf, root: &Registered, flags: u32) -> Result<u16, LoadError> {
        let full = |what: &str| LoadError::Register {
            object: what.to_owned(),
            source: io::Error::other("more of them than the kernel programs can hold"),
        };
        let slot = self.used.iter().position(Option::is_none).unwrap_or(self.used.len());
        if slot >= MAX_ROOTS {
            return Err(full("root"));
        }
        let sbs = &mut self.settings.superblocks;
        if !sbs.contains(&root.superblock) {
            *sbs.iter_mut().find(|sb| **sb == 0).ok_or_else(|| full("filesystem"))? = root.superblock;
        }
        self.settings.layers |= u16::from(flags & ROOT_LAYER != 0);
        self.settings.files |= u16::from(flags & ROOT_FILE != 0);
        let number = u32::try_from(slot).map_err(|_| full("root"))?;
        self.roots_changed();
        if !self.updated_roots(ebpf, [ADJUST_ADD, root.inode, number.into(), flags.into()])? {
            let value = RootSlot { inode: root.inode, flags, reserved: 0 };
            self.slots.set(number, SlotPod(value), 0).map_err(|_| LoadError::Map("ROOT_SLOTS"))?;
            self.roots.insert(root.inode, number, 0).map_err(|_| LoadError::Map("ROOTS"))?;
            self.publish_by_map()?;
        }
        if slot == self.used.len() {
            self.used.push(Some(*root));
        } else {
            self.used[slot] = Some(*root);
        }
        u16::try_from(slot).map_err(|_| full("root"))
    }

    /// Forgets a root: its inode is going away.
    pub(super) fn remove(&mut self, ebpf: &mut Ebpf, slot: u16) -> Result<(), LoadError> {
        let Some(root) = self.used.get_mut(usize::from(slot)).and_then(Option::take) else { return Ok(()) };
        if !self.used.iter().flatten().any(|other| other.superblock == root.superblock) {
            let sbs = &mut self.settings.superblocks;
            let last = sbs.iter().rposition(|sb| *sb != 0).unwrap_or(0);
            if let Some(at) = sbs.iter().position(|sb| *sb == root.superblock) {
                sbs.swap(at, last);
                sbs[last] = 0;
            }
        }
        self.roots_changed();
        if !self.updated_roots(ebpf, [ADJUST_REMOVE, root.inode, 0, 0])? {
            // Gone already is what was wanted.
            let _ = self.roots.remove(&root.inode);
            self.publish_by_map()?;
        }
        Ok(())
    }

    /// Tells the delivery hooks which inotify instance is hotr's.
    pub(super) fn set_group(&mut self, ebpf: &mut Ebpf, inotify: &Registered) -> Result<(), LoadError> {
        self.settings.own_group = inotify.private_data;
        self.publish(ebpf)
    }

    /// Hands the settings to the programs.
    pub(super) fn publish(&mut self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        if self.updated_roots(ebpf, [ADJUST_PUBLISH, 0, 0, 0])? { Ok(()) } else { self.publish_by_map() }
    }

    /// Follows another process's instance, or (without a slot) follows it no longer.
    pub(super) fn follow(
        &mut self,
        ebpf: &mut Ebpf,
        groups: &mut Groups,
        group: u64,
        slot: Option<u32>,
    ) -> Result<(), LoadError> {
        let arguments = match slot {
            Some(slot) => [ADJUST_FOLLOW, group, slot.into(), 0],
            None => [ADJUST_LEAVE, group, 0, 0],
        };
        if self.updated_roots(ebpf, arguments)? {
            return Ok(());
        }
        groups.set(group, slot)
    }

    fn roots_changed(&mut self) {
        let watched = || self.settings.superblocks.iter().copied().filter(|superblock| *superblock != 0);
        let range = (watched().min().unwrap_or(u64::MAX), watched().max().unwrap_or(0));
        (self.settings.lowest, self.settings.highest) = range;
        self.settings.epoch += 1;
    }

    fn publish_by_map(&mut self) -> Result<(), LoadError> {
        self.live.set(0, LivePod(self.settings), 0).map_err(|_| LoadError::Map(".bss"))
    }

    /// Has [`UPDATE_ROOTS`] do it; `false` when that is not there to do it.
    fn updated_roots(&mut self, ebpf: &mut Ebpf, arguments: [u64; 4]) -> Result<bool, LoadError> {
        if matches!(self.update_roots, UpdateRoots::NotLoaded) {
            self.update_roots =
                run::load(ebpf, UPDATE_ROOTS).map_or(UpdateRoots::NotUsed, UpdateRoots::Loaded);
        }
        let UpdateRoots::Loaded(program) = &self.update_roots else { return Ok(false) };
        ask(&mut self.exchange, &self.settings);
        if run(program.as_fd(), &arguments).is_err() {
            self.update_roots = UpdateRoots::NotUsed;
            return Ok(false);
        }
        if self.answer()?.done == 1 { Ok(true) } else { Err(LoadError::Map("ROOTS")) }
    }

    fn answer(&self) -> Result<Exchange, LoadError> {
        self.exchange.get(0).map(|pod| pod.0).ok_or(LoadError::Map("EXCHANGE"))
    }
}

/// Hands the settings over, with nothing found and nothing done.
fn ask(exchange: &mut Shared<ExchangePod>, settings: &Live) {
    let question = Exchange { settings: *settings, found: Registered::default(), done: 0 };
    exchange.set(0, ExchangePod(question));
}

/// A number that no other system call on the machine carries as its third argument.
fn cookie() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() | 1 << 63
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::{EbpfOptions, EbpfSource};
    use super::*;
    use crate::options::TierChoice;

    #[test]
    fn the_program_does_what_calls_on_maps_do() {
        let options = EbpfOptions { tier: TierChoice::Auto, ring_bytes: 1 << 12, window_ns: 7, sizes: &[] };
        let mut source = match EbpfSource::load(options) {
            Ok((source, _)) => source,
            Err(error) => return eprintln!("not run: {error}"),
        };
        let (registry, ebpf) = (&mut source.registry, &mut source.ebpf);
        let dirs = [std::env::temp_dir(), "/proc".into()].map(|dir| File::open(dir).unwrap());
        let fds = dirs.each_ref().map(File::as_fd);
        let by_call = registry.register(ebpf, &fds).unwrap();
        registry.programs_come();
        let by_program = registry.register(ebpf, &fds).unwrap();
        let is = |one: &Registered| {
            (one.inode, one.superblock, one.private_data, one.ino, one.dev, one.generation, one.mnt_id)
        };
        assert_eq!(by_program.iter().map(is).collect::<Vec<_>>(), by_call.iter().map(is).collect::<Vec<_>>());

        let settings_are_taken_over = |registry: &Registry| {
            let live = registry.live.get(&0, 0).unwrap().0;
            assert_eq!(format!("{live:?}"), format!("{:?}", registry.settings));
        };
        let root = by_program[0];
        let slot = registry.add(ebpf, &root, ROOT_LAYER).unwrap();
        assert_eq!(registry.roots.get(&root.inode, 0).unwrap(), u32::from(slot));
        let entry = registry.slots.get(&slot.into(), 0).unwrap().0;
        assert_eq!((entry.inode, entry.flags), (root.inode, ROOT_LAYER));
        settings_are_taken_over(registry);
        registry.set_group(ebpf, &by_program[1]).unwrap();
        settings_are_taken_over(registry);
        registry.remove(ebpf, slot).unwrap();
        assert!(registry.roots.get(&root.inode, 0).is_err());
        settings_are_taken_over(registry);
        assert!(
            matches!(registry.update_roots, UpdateRoots::Loaded(_)),
            "all of it was done by calls on maps"
        );
    }
}
