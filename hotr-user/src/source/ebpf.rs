//! The eBPF channel: starts the kernel programs, registers roots with them, and reads their records.

mod shared;
mod skipped;

use std::cell::OnceCell;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use aya::{Ebpf, Pod};
use hotr_common::config::{
    ASK_FORGET, ASK_READ, Live, MAX_ROOTS, MAX_SUPERBLOCKS, ROOT_LAYER, Registered, RootSlot, Storm, StormKey,
};
use hotr_common::counters::Counters;
use hotr_common::record::Record;

use crate::kernel::load::{self, LoadError, PlannedHook};
use crate::kernel::types::KernelTypes;
use crate::options::TierChoice;
use crate::report::KernelTotals;
use shared::Shared;
use skipped::Skipped;

/// Newtypes that let maps hold the common crate's values.
macro_rules! pod {
    ($($name:ident($inner:ty);)*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($inner);
        // SAFETY: the inner type is `repr(C)`, made of integers, without padding.
        unsafe impl Pod for $name {}
    )*};
}
pod! {
    LivePod(Live);
    SlotPod(RootSlot);
    RegisteredPod(Registered);
    CountersPod(Counters);
    StormKeyPod(StormKey);
    StormPod(Storm);
}

/// How the channel is started.
#[derive(Clone, Copy, Debug)]
pub struct EbpfOptions {
    /// Tier of the programs.
    pub tier: TierChoice,
    /// Size of the ring buffer in bytes, a power of two and at least a page.
    pub ring_bytes: u32,
    /// Coalescing window in nanoseconds; 0 makes every change a record.
    pub window_ns: u64,
}

/// The running channel.
pub struct EbpfSource {
    /// Mapped when everything is attached: it is large, and what is needed until then is given back before.
    ring: Option<RingBuf<MapData>>,
    /// Of the ring buffer's map: readable when there are records.
    wake: OwnedFd,
    live: Array<MapData, LivePod>,
    roots: HashMap<MapData, u64, u32>,
    slots: Array<MapData, SlotPod>,
    storms: HashMap<MapData, StormKeyPod, StormPod>,
    answer: Shared<StormPod>,
    /// Why the kernel does not run [`ASK`] for us.
    unasked: OnceCell<String>,
    counters: Shared<CountersPod>,
    skipped: Skipped,
    registered: Array<MapData, RegisteredPod>,
    settings: Live,
    used: Vec<Option<Registered>>,
    plan: Vec<PlannedHook>,
    ebpf: Ebpf,
}

impl EbpfSource {
    /// Loads the programs; nothing is attached until [`Self::attach`].
    ///
    /// # Errors
    /// When the kernel refuses the object, or lacks what every tier needs.
    pub fn load(options: EbpfOptions) -> Result<(Self, KernelTypes), LoadError> {
        let kernel = KernelTypes::read()?;
        let cpus = load::possible_cpus();
        let mut ebpf = load::load(&kernel, options.ring_bytes)?;
        let asking: &mut RawTracePoint =
            ebpf.program_mut(ASK).and_then(|program| program.try_into().ok()).ok_or(LoadError::Map(ASK))?;
        asking.load().map_err(|error| LoadError::Program { program: ASK, error })?;
        let settings = Live {
            superblocks: [0; MAX_SUPERBLOCKS],
            own_group: 0,
            window: options.window_ns,
            cookie: cookie(),
            regs_off: 0,
            own_tgid: 0,
            epoch: 0,
            layers: 0,
            reserved: 0,
        };
        let mut source = Self {
            ring: None,
            wake: descriptor(&ebpf, RECORDS)?,
            live: take(&mut ebpf, ".bss")?,
            roots: take(&mut ebpf, "ROOTS")?,
            slots: take(&mut ebpf, "ROOT_SLOTS")?,
            storms: take(&mut ebpf, "STORM_MAP")?,
            answer: shared(&mut ebpf, "ANSWER", 1)?,
            unasked: OnceCell::new(),
            counters: shared(&mut ebpf, "COUNTERS", cpus)?,
            skipped: Skipped::default(),
            registered: take(&mut ebpf, "REGISTERED")?,
            settings,
            used: Vec::new(),
            plan: Vec::new(),
            ebpf,
        };
        source.publish()?;
        // Asked once for nothing: whether it can be is known before `ready`.
        source.ask(&StormKey { inode: 0, pid: 0, hook: 0 }, ASK_READ);
        Ok((source, kernel))
    }

    /// Attaches every hook at the best tier. Roots should be registered before.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn attach(&mut self, kernel: KernelTypes, choice: TierChoice) -> Result<(), LoadError> {
        self.plan = load::attach(&mut self.ebpf, &kernel, choice);
        self.skipped = Skipped::of(&self.ebpf);
        drop(kernel);
        self.ring = Some(take(&mut self.ebpf, RECORDS)?);
        Ok(())
    }

    /// What each hook got.
    #[must_use]
    pub fn plan(&self) -> &[PlannedHook] {
        &self.plan
    }

    /// Resolves descriptors of hotr's own to kernel addresses.
    ///
    /// # Errors
    /// When the registering program cannot be attached or did not see the call.
    pub fn register(&mut self, fds: &[BorrowedFd<'_>]) -> Result<Vec<Registered>, LoadError> {
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut("register")
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Map("register"))?;
        let refused = |error| LoadError::Program { program: "register", error };
        if program.fd().is_err() {
            program.load().map_err(refused)?;
        }
        let link = program.attach("sys_enter").map_err(refused)?;
        let found = fds.iter().map(|fd| self.resolve(*fd)).collect();
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut("register")
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Map("register"))?;
        program.detach(link).map_err(refused)?;
        found
    }

    fn resolve(&mut self, fd: BorrowedFd<'_>) -> Result<Registered, LoadError> {
        let map = |_| LoadError::Map("REGISTERED");
        self.registered.set(0, RegisteredPod(Registered::default()), 0).map_err(map)?;
        // SAFETY: F_GETFD takes no third argument; the kernel program reads it.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD, self.settings.cookie) };
        let found = self.registered.get(&0, 0).map_err(map)?.0;
        if found.inode == 0 {
            return Err(LoadError::Register {
                object: format!("descriptor {}", fd.as_raw_fd()),
                source: io::Error::other("the program on sys_enter did not see hotr's own system call"),
            });
        }
        if self.settings.regs_off != found.regs_off || self.settings.own_tgid != found.tgid {
            self.settings.regs_off = found.regs_off;
            self.settings.own_tgid = found.tgid;
            self.publish()?;
        }
        Ok(found)
    }

    /// Watches a registered directory; returns its slot. One inode has one slot.
    ///
    /// # Errors
    /// When there are more roots or superblocks than the programs can hold.
    pub fn add_root(&mut self, root: &Registered, layer: bool) -> Result<u16, LoadError> {
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
        let flags = if layer { ROOT_LAYER } else { 0 };
        self.settings.layers |= flags;
        let number = u32::try_from(slot).map_err(|_| full("root"))?;
        let value = RootSlot { inode: root.inode, flags, reserved: 0 };
        self.slots.set(number, SlotPod(value), 0).map_err(|_| LoadError::Map("ROOT_SLOTS"))?;
        self.roots.insert(root.inode, number, 0).map_err(|_| LoadError::Map("ROOTS"))?;
        if slot == self.used.len() {
            self.used.push(Some(*root));
        } else {
            self.used[slot] = Some(*root);
        }
        self.settings.epoch += 1;
        self.publish()?;
        u16::try_from(slot).map_err(|_| full("root"))
    }

    /// Forgets a root: its inode is going away.
    ///
    /// # Errors
    /// When the maps cannot be changed.
    pub fn remove_root(&mut self, slot: u16) -> Result<(), LoadError> {
        let Some(root) = self.used.get_mut(usize::from(slot)).and_then(Option::take) else { return Ok(()) };
        // Gone already is what was wanted.
        let _ = self.roots.remove(&root.inode);
        if !self.used.iter().flatten().any(|other| other.superblock == root.superblock) {
            let sbs = &mut self.settings.superblocks;
            let last = sbs.iter().rposition(|sb| *sb != 0).unwrap_or(0);
            if let Some(at) = sbs.iter().position(|sb| *sb == root.superblock) {
                sbs.swap(at, last);
                sbs[last] = 0;
            }
        }
        self.settings.epoch += 1;
        self.publish()
    }

    /// Tells the delivery hooks which inotify instance is hotr's.
    ///
    /// # Errors
    /// When the map cannot be changed.
    pub fn set_inotify_group(&mut self, inotify: &Registered) -> Result<(), LoadError> {
        self.settings.own_group = inotify.private_data;
        self.publish()
    }

    fn publish(&mut self) -> Result<(), LoadError> {
        self.live.set(0, LivePod(self.settings), 0).map_err(|_| LoadError::Map(".bss"))
    }

    /// Hands up to `limit` records to `each`: header, path, old path (names from leaf to root, each ended by NUL).
    /// Returns how many there were.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&Record, &[u8], &[u8])) -> usize {
        let mut read = 0;
        let Some(ring) = &mut self.ring else { return 0 };
        while read < limit {
            let Some(item) = ring.next() else { break };
            read += 1;
            let bytes: &[u8] = &item;
            let Some(header) = bytes.first_chunk::<{ size_of::<Record>() }>() else { continue };
            // SAFETY: `Record` is plain integers, any bytes are a value of it; the read is unaligned.
            let record = unsafe { header.as_ptr().cast::<Record>().read_unaligned() };
            let payload = &bytes[size_of::<Record>()..];
            let path_end = usize::from(record.path_len).min(payload.len());
            let old_end = (path_end + usize::from(record.old_len)).min(payload.len());
            each(&record, &payload[..path_end], &payload[path_end..old_end]);
        }
        read
    }

    /// Totals of a file under continuous change.
    #[must_use]
    pub fn storm(&self, key: &StormKey) -> Option<Storm> {
        match self.ask(key, ASK_READ) {
            Some(()) => self.answer.values().next().map(|storm| storm.0).filter(|storm| storm.born != 0),
            // A kernel that runs no program for us still reads the map, at the price told in `hooks/ask.rs`.
            None => self.storms.get(&StormKeyPod(*key), 0).ok().map(|storm| storm.0),
        }
    }

    /// Forgets a file that has been quiet for longer than the window: its next change gives a record at once.
    pub fn forget_storm(&mut self, key: &StormKey) {
        if self.ask(key, ASK_FORGET).is_none() {
            // Gone already is what was wanted.
            let _ = self.storms.remove(&StormKeyPod(*key));
        }
    }

    /// Why totals of storms are read at a price, if they are: see [`Self::storm`].
    #[must_use]
    pub fn unasked(&self) -> Option<&str> {
        self.unasked.get().map(String::as_str)
    }

    /// Runs the kernel side's `ask`; `None` when the kernel refuses to.
    fn ask(&self, key: &StormKey, what: u64) -> Option<()> {
        if self.unasked.get().is_some() {
            return None;
        }
        let program: &RawTracePoint = self.ebpf.program(ASK)?.try_into().ok()?;
        let mut run = RawTracePointRunOptions::new();
        run.args[..4].copy_from_slice(&[key.inode, key.pid.into(), key.hook.into(), what]);
        match program.test_run(run) {
            Ok(_) => Some(()),
            Err(error) => {
                let _ = self.unasked.set(load::chain(&error));
                None
            }
        }
    }

    /// How often a program was not run although its hook was passed.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.count()
    }

    /// Counters of all CPUs together; without [`Self::skipped`], which takes longer to read.
    #[must_use]
    pub fn counters(&self) -> KernelTotals {
        let mut sum = KernelTotals::default();
        for CountersPod(cpu) in self.counters.values() {
            sum.seen += cpu.seen + cpu.outside;
            sum.submitted += cpu.submitted;
            sum.coalesced += cpu.coalesced;
            sum.filtered += cpu.filtered + cpu.outside;
            sum.ring_full += cpu.ring_full;
            sum.oversize += cpu.oversize;
        }
        sum
    }
}

/// Name of the program that reads storms for us.
const ASK: &str = "ask";
/// Name of the ring buffer.
const RECORDS: &str = "RECORDS";

impl AsFd for EbpfSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn take<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LoadError> {
    ebpf.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or(LoadError::Map(name))
}

/// Another descriptor of a ring buffer's map.
fn descriptor(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let Some(Map::RingBuf(map)) = ebpf.map(name) else { return Err(LoadError::Map(name)) };
    map.fd().as_fd().try_clone_to_owned().map_err(|_| LoadError::Map(name))
}

/// Maps an array that the programs share with hotr.
fn shared<T: Pod>(ebpf: &mut Ebpf, name: &'static str, entries: usize) -> Result<Shared<T>, LoadError> {
    let map: Array<MapData, T> = take(ebpf, name)?;
    Shared::new(map, entries).map_err(|source| LoadError::Register { object: format!("map {name}"), source })
}

/// A number that no other system call on the machine carries as its third argument.
fn cookie() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() | 1 << 63
}
