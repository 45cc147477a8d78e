//! Loads the kernel programs and attaches them: for each hook the first tier, and in it the first function, that
//! the kernel accepts. What it answered to the others is kept for `hotr doctor`.

mod attach;

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use hotr_common::hook::Hook;
pub use hotr_common::tier::Tier;

pub use super::error::{LoadError, chain};
pub use super::plan::PlannedHook;
use super::probes::Probes;
use super::sections::AlignedObject;
use super::table::{DELIVERY, HELPERS, SITES, Site, USAGE};
use super::tracepoints::Manner;
use super::types::{self, KernelTypes};
use super::{log, preload, rules, tracepoints, trampolines};
use crate::memory;
use crate::options::TierChoice;
use attach::{Attaching, is_altogether};

/// The eBPF object, part of the program.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("HOTR_EBPF_OBJECT")));

/// Raises the limit of locked memory, which kernels before 5.11 account maps to. Newer ones do not need it, and
/// containers often refuse it.
fn raise_memlock() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}

/// Numbers a CPU of this machine may have: one more than the last one in `/sys/devices/system/cpu/possible`.
#[must_use]
pub fn possible_cpus() -> usize {
    let possible = aya::util::nr_cpus().unwrap_or_else(|_| {
        // Without sysfs: what the C library knows, which leaves out CPUs that are added later.
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    });
    possible.max(1)
}

/// Threads of an audit that can read directories from the kernel's memory at a time; each takes some kilobytes there.
#[must_use]
pub fn scanners() -> u32 {
    const MOST: usize = 64;
    possible_cpus().min(MOST) as u32
}

/// Loads the object with this kernel's offsets, attaches nothing yet. Programs of tiers that are `refused`, or not
/// wanted, are left out.
///
/// # Errors
/// When the kernel has no BTF, lacks a field, or refuses the maps.
pub fn load(
    kernel: &KernelTypes,
    choice: TierChoice,
    refused: &Refused,
    sizes: &[(&'static str, u32)],
) -> Result<Ebpf, LoadError> {
    raise_memlock();
    // Asked with the smallest program there is: a refusal of all would come out as a defect of the object.
    is_program_supported(ProgramType::RawTracePoint)
        .map_err(|error| LoadError::Program { program: "any program", error })?;
    let mut offsets = kernel.offsets;
    for site in SITES.iter().rev() {
        // The preferred site of a hook comes first in the table, so it is set last.
        if let Some(arguments) = kernel.function(site.function).and_then(|found| site.arguments(found)) {
            offsets.arguments[site.hook as usize] = arguments;
        }
    }
    tracepoints::set_arguments(kernel, &mut offsets);
    let offsets = OffsetsPod(offsets);
    let copy = AlignedObject::without(&OBJECT.0, &refused.sections(choice));
    let level = log::level();
    let mut loader = types::loader();
    log::set_level(&mut loader, &level);
    for (map, size) in sizes {
        loader.map_max_entries(map, *size);
    }
    let loaded = loader
        .override_global("OFF", &offsets, true)
        .map_max_entries("COUNTERS", u32::try_from(possible_cpus()).unwrap_or(u32::MAX))
        .map_max_entries("CHILDREN", scanners())
        .load(copy.as_ref().map_or(&OBJECT.0, AlignedObject::bytes))
        .map_err(LoadError::Object);
    memory::let_go(&OBJECT.0);
    loaded
}

/// Whether this program carries its kernel side: `cargo install` alone builds it without.
///
/// # Errors
/// When it does not.
pub fn is_built() -> Result<(), LoadError> {
    if OBJECT.0.is_empty() { Err(LoadError::NotBuilt) } else { Ok(()) }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct OffsetsPod(hotr_common::offsets::Offsets);
// SAFETY: `Offsets` is `repr(C)` of integers without padding.
unsafe impl aya::Pod for OffsetsPod {}

/// Hooks that are attached.
#[derive(Default)]
#[non_exhaustive]
pub struct Attached {
    /// What each got.
    pub plan: Vec<PlannedHook>,
    /// The perf events that programs hang on; others hang on links that belong to the object.
    pub events: Vec<OwnedFd>,
    /// The probes that programs hang on.
    probes: Option<Probes>,
}

impl Attached {
    /// Calls that the probes did not see, as far as tracefs shows them; of others their links do.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.probes.as_ref().map_or(0, Probes::missed)
    }
}

/// Attaches every hook. `manner` is how this kernel runs programs on tracepoints.
pub fn attach(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    choice: TierChoice,
    refused: Refused,
    manner: Manner,
) -> Attached {
    let tiers: &[Tier] = match choice {
        TierChoice::Auto => &[Tier::Fentry, Tier::Kprobe],
        TierChoice::Fentry => &[Tier::Fentry],
        TierChoice::Kprobe => &[Tier::Kprobe],
        TierChoice::Tracepoint => &[],
    };
    rules::write_compat(ebpf);
    preload_tiers(ebpf, kernel, choice, manner, &refused);
    let mut attaching = Attaching::new(ebpf, kernel, refused);
    let mut plan = Vec::new();
    for hook in Hook::ALL {
        let sites: Vec<&Site> = SITES.iter().filter(|site| site.hook == hook).collect();
        if sites.is_empty() {
            continue;
        }
        plan.push(attaching.hook(hook, &sites, tiers));
    }
    let best = plan.iter().filter_map(|hook| hook.tier).min();
    if let Some(tier) = best {
        for (function, programs) in HELPERS {
            // What a helper adds is missing then; the correlation works without.
            let _ = attaching.site(function, programs, tier);
        }
    }
    let probes = attaching.into_probes();
    let mut events = Vec::new();
    if matches!(choice, TierChoice::Auto | TierChoice::Tracepoint) {
        // A hook that the kernel merely lacks, because another one reports the same there, gets none.
        events = tracepoints::attach(ebpf, kernel, manner, &mut plan);
    }
    Attached { plan, events, probes }
}

/// Attaches the programs of a diagnosis, all of one tier; which, and why not those that see what processes use.
///
/// # Errors
/// What the kernel answered to each tier.
pub fn attach_delivery(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    tiers: &[Tier],
    refused: Refused,
) -> Result<(Attached, Tier, Result<(), String>), String> {
    let mut attaching = Attaching::new(ebpf, kernel, refused);
    let mut why = Vec::new();
    for &tier in tiers {
        match attaching.all(DELIVERY, tier) {
            Ok(()) => {
                // What the processes do with the files is known only where both can be attached.
                let usage = attaching.all(USAGE, tier);
                let probes = attaching.into_probes();
                return Ok((Attached { probes, ..Attached::default() }, tier, usage));
            }
            Err(error) => why.push(format!("{}: {error}", tier.as_str())),
        }
    }
    Err(why.join("; "))
}

/// Loads the programs that will be attached: of the first tier that the kernel does not refuse altogether.
fn preload_tiers(
    ebpf: &mut Ebpf,
    kernel: &KernelTypes,
    choice: TierChoice,
    manner: Manner,
    refused: &Refused,
) {
    let mut wanted = HashMap::new();
    if refused.leaves_fentry(choice) {
        wanted = programs_of(kernel, Tier::Fentry);
    }
    if wanted.is_empty() && refused.leaves_kprobe(choice) {
        wanted = programs_of(kernel, Tier::Kprobe);
    }
    if wanted.is_empty() && matches!(choice, TierChoice::Auto | TierChoice::Tracepoint) {
        wanted = tracepoints::programs(kernel, manner);
    }
    preload::preload(ebpf, kernel, &wanted);
}

/// A function that every kernel has.
const PROBED: &str = "vfs_write";

/// Names of a tier's programs, each with the function it will be attached to.
fn programs_of(kernel: &KernelTypes, tier: Tier) -> HashMap<&'static str, &'static str> {
    let mut wanted = HashMap::new();
    let sites = SITES
        .iter()
        .filter(|site| kernel.function(site.function).is_some_and(|it| site.arguments(it).is_some()));
    let helpers = HELPERS.iter().filter(|(function, _)| kernel.function(function).is_some());
    let all = sites
        .map(|site| (site.function, &site.programs))
        .chain(helpers.map(|(function, them)| (*function, them)));
    for (function, programs) in all {
        let (entry, exit) = programs.of(tier);
        for name in entry.iter().chain(exit) {
            // The preferred site of a hook comes first.
            wanted.entry(*name).or_insert(function);
        }
    }
    wanted
}

/// There when the kernel can attach kprobes (kernel/events/core.c `perf_kprobe`, CONFIG_KPROBE_EVENTS).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// Tiers that the kernel refuses altogether, and why: asked once, before any program is verified in vain.
#[derive(Default)]
pub struct Refused {
    fentry: Option<String>,
    kprobe: Option<String>,
}

impl Refused {
    /// Asks the kernel.
    #[must_use]
    pub fn by(kernel: &KernelTypes) -> Self {
        let mut refused = Self::default();
        if let Some(Err(error)) = kernel.function_id(PROBED).map(trampolines::for_fexit)
            && is_altogether(error.raw_os_error())
        {
            refused.fentry = Some(format!("the BPF_PROG_LOAD syscall returned {error}"));
        }
        if !std::path::Path::new(KPROBES).exists() {
            refused.kprobe = Some("this kernel has no kprobes".to_owned());
        }
        refused
    }

    /// Why a tier is refused.
    fn reason(&self, tier: Tier) -> Option<&str> {
        match tier {
            Tier::Fentry => self.fentry.as_deref(),
            Tier::Kprobe => self.kprobe.as_deref(),
            Tier::Tracepoint => None,
        }
    }

    /// The kernel's answer to one program was one to the whole tier.
    fn refuse(&mut self, tier: Tier, why: &str) {
        match tier {
            Tier::Fentry => self.fentry = Some(why.to_owned()),
            Tier::Kprobe => self.kprobe = Some(why.to_owned()),
            Tier::Tracepoint => {}
        }
    }

    /// Whether fentry is requested and not refused.
    pub fn leaves_fentry(&self, choice: TierChoice) -> bool {
        self.fentry.is_none() && matches!(choice, TierChoice::Auto | TierChoice::Fentry)
    }

    /// The same of kprobes.
    fn leaves_kprobe(&self, choice: TierChoice) -> bool {
        self.kprobe.is_none() && matches!(choice, TierChoice::Auto | TierChoice::Kprobe)
    }

    /// The object's sections of programs that nobody will request.
    fn sections(&self, choice: TierChoice) -> Vec<&'static str> {
        let mut sections = Vec::new();
        if !self.leaves_fentry(choice) {
            sections.extend(["fentry", "fexit"]);
        }
        if !self.leaves_kprobe(choice) {
            sections.extend(["kprobe", "kretprobe"]);
        }
        sections
    }
}
