//! The eBPF channel: starts the kernel programs, registers roots with them, and reads their records.

pub(crate) mod children;
mod counts;
mod shared;
mod skipped;
mod storms;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, Pod};
use hotr_common::config::{
    Live, MAX_ROOTS, MAX_SUPERBLOCKS, ROOT_LAYER, Registered, RootSlot, STORMS, Storm,
};
use hotr_common::record::Record;

use crate::kernel::load::{self, Attached, LoadError, PlannedHook, Refused};
use crate::kernel::tracepoints::Manner;
use crate::kernel::types::KernelTypes;
use crate::options::TierChoice;
use crate::report::KernelTotals;
pub use children::ChildReader;
use counts::Counts;
use shared::Shared;
use skipped::Skipped;
use storms::StormTable;
pub use storms::{Ended, StormId};

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
    storms: StormTable,
    counts: Counts,
    skipped: Skipped,
    registered: Array<MapData, RegisteredPod>,
    settings: Live,
    used: Vec<Option<Registered>>,
    refused: Refused,
    attached: Attached,
    /// Programs on tracepoints can be preempted.
    is_preemptible: bool,
    children: children::Lazy,
    ebpf: Ebpf,
}

impl EbpfSource {
    /// Loads the programs; nothing is attached until [`Self::attach`].
    ///
    /// # Errors
    /// When the kernel refuses the object, or lacks what every tier needs.
    pub fn load(options: EbpfOptions) -> Result<(Self, KernelTypes), LoadError> {
        let mut kernel = KernelTypes::read()?;
        let cpus = load::possible_cpus();
        let refused = Refused::by(&kernel);
        if !refused.leaves_fentry(options.tier) {
            kernel.hook_no_functions();
        }
        let mut ebpf = std::thread::scope(|scope| {
            // Both take their time. Without another thread it is made when it is asked for.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || {
                let _ = kernel.for_aya();
            });
            load::load(&kernel, options.tier, &refused, options.ring_bytes)
        })?;
        let settings = Live {
            lowest: u64::MAX,
            highest: 0,
            superblocks: [0; MAX_SUPERBLOCKS],
            own_group: 0,
            window: options.window_ns,
            cookie: cookie(),
            regs_off: 0,
            own_tgid: 0,
            layers: 0,
            epoch: 0,
            zero: 0,
        };
        let mut source = Self {
            ring: None,
            wake: descriptor(&ebpf, RECORDS)?,
            live: take(&mut ebpf, ".bss")?,
            roots: take(&mut ebpf, "ROOTS")?,
            slots: take(&mut ebpf, "ROOT_SLOTS")?,
            storms: StormTable::new(shared(&mut ebpf, "STORM_SLOTS", STORMS as usize)?),
            counts: Counts::new(shared(&mut ebpf, "COUNTERS", cpus)?, take(&mut ebpf, ".bss.frequent")?),
            skipped: Skipped::default(),
            registered: take(&mut ebpf, "REGISTERED")?,
            settings,
            used: Vec::new(),
            refused,
            attached: Attached::default(),
            is_preemptible: true,
            children: children::Lazy::of(&kernel.offsets),
            ebpf,
        };
        source.publish()?;
        Ok((source, kernel))
    }

    /// Attaches every hook at the best tier. Roots should be registered before.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn attach(&mut self, kernel: KernelTypes, choice: TierChoice) -> Result<(), LoadError> {
        let manner = self.manner();
        let refused = std::mem::take(&mut self.refused);
        self.attached = load::attach(&mut self.ebpf, &kernel, choice, refused, manner);
        self.skipped = Skipped::of(&self.ebpf);
        drop(kernel);
        self.ring = Some(take(&mut self.ebpf, RECORDS)?);
        Ok(())
    }

    /// What each hook got.
    #[must_use]
    pub fn plan(&self) -> &[PlannedHook] {
        &self.attached.plan
    }

    /// How this kernel runs programs on tracepoints, which the registering one tells. When it cannot be asked, the plan
    /// will say why.
    fn manner(&mut self) -> Manner {
        // Asked again, the kernel would wait until everyone has seen that the program was taken off.
        if self.settings.own_tgid != 0 {
            return Manner { preemptible: self.is_preemptible };
        }
        let Ok(own) = self.wake.try_clone() else { return Manner::default() };
        let found = self.register(&[own.as_fd()]).ok().and_then(|found| found.into_iter().next());
        Manner { preemptible: found.is_some_and(|found| found.preemptible != 0) }
    }

    /// Resolves descriptors of hotr's own to kernel addresses.
    ///
    /// # Errors
    /// When the registering program cannot be attached or did not see the call.
    pub fn register(&mut self, fds: &[BorrowedFd<'_>]) -> Result<Vec<Registered>, LoadError> {
        let program = raw_tracepoint(&mut self.ebpf, REGISTER)?;
        let refused = |error| LoadError::Program { program: REGISTER, error };
        if program.fd().is_err() {
            program.load().map_err(refused)?;
        }
        let link = program.attach("sys_enter").map_err(refused)?;
        let found = fds.iter().map(|fd| self.resolve(*fd)).collect();
        raw_tracepoint(&mut self.ebpf, REGISTER)?.detach(link).map_err(refused)?;
        found
    }

    fn resolve(&mut self, fd: BorrowedFd<'_>) -> Result<Registered, LoadError> {
        let map = |_| LoadError::Map("REGISTERED");
        let mut found = Registered::default();
        for attempt in 0..REGISTER_ATTEMPTS {
            if attempt > 0 {
                // Skipped, for another task was preempted in the program on this CPU: it needs the time to leave.
                std::thread::sleep(Duration::from_millis(1));
            }
            self.registered.set(0, RegisteredPod(Registered::default()), 0).map_err(map)?;
            // SAFETY: F_GETFD takes no third argument; the kernel program reads it.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD, self.settings.cookie) };
            found = self.registered.get(&0, 0).map_err(map)?.0;
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
            self.publish()?;
        }
        self.is_preemptible = found.preemptible != 0;
        Ok(found)
    }

    /// Reads directories from the kernel's memory, for the poller; `None` where the kernel has other fields than hotr
    /// knows, or refuses the program.
    pub fn child_reader(&mut self) -> Option<Arc<ChildReader>> {
        self.children.get(&mut self.ebpf)
    }

    /// Whether a program of this tier may be preempted where it wakes a reader. fentry programs are called like any
    /// kernel function; kprobes forbid it (kernel/trace/bpf_trace.c `trace_call_bpf`); tracepoints of some kernels
    /// do (asked when a root was registered).
    #[must_use]
    pub fn is_preemptible(&self, tier: load::Tier) -> bool {
        match tier {
            load::Tier::Fentry => true,
            load::Tier::Kprobe => false,
            load::Tier::Tracepoint => self.is_preemptible,
        }
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
        let watched = || self.settings.superblocks.iter().copied().filter(|superblock| *superblock != 0);
        let range = (watched().min().unwrap_or(u64::MAX), watched().max().unwrap_or(0));
        (self.settings.lowest, self.settings.highest) = range;
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

    /// Totals of a storm; `None` when it has ended.
    #[must_use]
    pub fn storm(&self, id: StormId) -> Option<Storm> {
        self.storms.read(id)
    }

    /// Ends a storm: the next change of its file gives a record at once.
    #[must_use]
    pub fn end_storm(&self, id: StormId) -> Ended {
        self.storms.end(id)
    }

    /// How often a program was not run although its hook was passed.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.count() + self.attached.missed()
    }

    /// See [`Counts::usual`].
    #[must_use]
    pub fn counters(&self) -> KernelTotals {
        self.counts.usual()
    }

    /// See [`Counts::all`]; [`Self::skipped`] included.
    #[must_use]
    pub fn totals(&self) -> KernelTotals {
        KernelTotals { recursion_misses: self.skipped(), ..self.counts.all() }
    }
}

/// Calls that are made until the registering program sees one.
const REGISTER_ATTEMPTS: u32 = 200;

/// Name of the program that resolves descriptors.
const REGISTER: &str = "register";
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

fn raw_tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, LoadError> {
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(LoadError::Map(name))
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
