//! The eBPF channel: starts the kernel programs, registers roots with them, and reads their records.

pub(crate) mod children;
mod counts;
mod delivery;
mod records;
mod registry;
mod run;
mod shared;
mod skipped;
mod storms;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, Pod};
use hotr_common::config::{Exchange, Live, Registered, RootSlot, STORMS, Storm};

use crate::kernel::load::{self, Attached, LoadError, PlannedHook, Refused};
use crate::kernel::log::Messages;
use crate::kernel::table::is_optional;
use crate::kernel::tracepoints::Manner;
use crate::kernel::types::KernelTypes;
use crate::kernel::wanted;
use crate::options::TierChoice;
pub use children::ChildReader;
use counts::Counts;
pub use delivery::{DeliverySource, Seen as DeliverySeen};
use hotr_events::KernelTotals;
pub use records::{RawRecord, Records};
use registry::Registry;
use shared::Shared;
use skipped::Skipped;
pub use storms::{Ended, StormId, StormTable};

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
    ExchangePod(Exchange);
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
    /// Further maps that get their size from userspace.
    pub sizes: &'static [(&'static str, u32)],
}

/// The running channel.
pub struct EbpfSource {
    /// Mapped when everything is attached: it is large, and what is needed until then is given back before.
    ring: Option<RingBuf<MapData>>,
    /// Of the ring buffer's map: readable when there are records.
    wake: OwnedFd,
    registry: Registry,
    storms: StormTable,
    counts: Counts,
    skipped: Skipped,
    refused: Refused,
    attached: Attached,
    children: children::Lazy,
    ebpf: Ebpf,
    /// Ends after the programs.
    _messages: Option<Messages>,
}

impl EbpfSource {
    /// Loads the programs; nothing is attached until [`Self::attach`].
    ///
    /// # Errors
    /// When the kernel refuses the object, or lacks what every tier needs.
    pub fn load(options: EbpfOptions) -> Result<(Self, KernelTypes), LoadError> {
        // Before the kernel is blamed for anything.
        load::is_built()?;
        let mut kernel = KernelTypes::read(&wanted::all())?;
        let cpus = load::possible_cpus();
        let refused = Refused::by(&kernel);
        if !refused.leaves_fentry(options.tier) {
            kernel.hook_no_functions();
        }
        let mut ebpf = std::thread::scope(|scope| {
            // Both take their time. Without another thread it is made when it is needed.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || {
                let _ = kernel.for_aya();
            });
            let mut sizes = options.sizes.to_vec();
            sizes.push((RECORDS, options.ring_bytes));
            load::load(&kernel, options.tier, &refused, &sizes)
        })?;
        let messages = Messages::read(&mut ebpf)?;
        let source = Self {
            ring: None,
            wake: descriptor(&ebpf, RECORDS)?,
            registry: Registry::new(&mut ebpf, options.window_ns)?,
            storms: StormTable::new(shared(&mut ebpf, "STORM_SLOTS", STORMS as usize)?),
            counts: Counts::new(shared(&mut ebpf, "COUNTERS", cpus)?, take(&mut ebpf, ".bss.frequent")?),
            skipped: Skipped::default(),
            refused,
            attached: Attached::default(),
            children: children::Lazy::of(&kernel.offsets),
            ebpf,
            _messages: messages,
        };
        Ok((source, kernel))
    }

    /// Attaches every hook at the best tier. Roots should be registered before.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn attach(&mut self, kernel: KernelTypes, choice: TierChoice) -> Result<(), LoadError> {
        let manner = self.manner();
        self.registry.programs_come();
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

    /// The tier of all hooks, or `mixed`.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        let mut tiers: Vec<_> = self.plan().iter().filter_map(|hook| hook.tier).collect();
        tiers.sort();
        tiers.dedup();
        match tiers.as_slice() {
            [one] => one.as_str(),
            _ => "mixed",
        }
    }

    /// Hooks that could not be attached although changes are lost without them.
    pub fn missing(&self) -> impl Iterator<Item = &PlannedHook> {
        self.plan().iter().filter(|hook| hook.tier.is_none() && !is_optional(hook.hook))
    }

    /// How this kernel runs programs on tracepoints, which the registering program reports. When that cannot run, the
    /// plan will say why.
    fn manner(&mut self) -> Manner {
        // Asked again, the kernel would wait until everyone has seen that the program was taken off.
        if self.registry.is_preemptible().is_none() {
            let Ok(own) = self.wake.try_clone() else { return Manner::default() };
            let _ = self.register(&[own.as_fd()]);
        }
        Manner { preemptible: self.registry.is_preemptible().unwrap_or(false) }
    }

    /// Resolves hotr's own descriptors to kernel addresses.
    ///
    /// # Errors
    /// When the registering program cannot be attached or did not see the call.
    pub fn register(&mut self, fds: &[BorrowedFd<'_>]) -> Result<Vec<Registered>, LoadError> {
        self.registry.register(&mut self.ebpf, fds)
    }

    /// Watches a registered directory; returns its slot. One inode has one slot.
    ///
    /// # Errors
    /// When there are more roots or superblocks than the programs can hold.
    pub fn add_root(&mut self, root: &Registered, flags: u32) -> Result<u16, LoadError> {
        self.registry.add(&mut self.ebpf, root, flags)
    }

    /// Forgets a root: its inode is going away.
    ///
    /// # Errors
    /// When the maps cannot be changed.
    pub fn remove_root(&mut self, slot: u16) -> Result<(), LoadError> {
        self.registry.remove(&mut self.ebpf, slot)
    }

    /// Gives the delivery hooks hotr's inotify instance.
    ///
    /// # Errors
    /// When the map cannot be changed.
    pub fn set_inotify_group(&mut self, inotify: &Registered) -> Result<(), LoadError> {
        self.registry.set_group(&mut self.ebpf, inotify)
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
            load::Tier::Tracepoint => self.registry.is_preemptible().unwrap_or(true),
        }
    }

    /// The records that are there, at most so many, and the storms they are about.
    pub fn records(&mut self, limit: usize) -> (Records<'_>, &StormTable) {
        (Records::new(self.ring.as_mut(), limit), &self.storms)
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
