//! What the programs saw and did, counted.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use hotr_common::config::MMAPABLE;
use hotr_common::counters::{Counters, FREQUENT_CELLS, Frequent};

use crate::globals::add;

/// What the programs saw and did, one entry a CPU. Not a per-CPU map, because userspace could read that by
/// bpf(2) only, and while such a call is under way the kernel runs no kprobe program on that CPU (kernel/bpf/syscall.c
/// `bpf_disable_instrumentation`). The loader sets the number of entries.
#[map(name = "COUNTERS")]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(1, MMAPABLE);

/// In a section of its own: userspace rewrites the map of `.bss` as a whole.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.frequent")]
// SAFETY: integers only, for which zero is a value.
pub static mut FREQUENT: [Frequent; FREQUENT_CELLS] = unsafe { core::mem::zeroed() };

/// What a counter counts; see [`Counters`] and [`Frequent`].
#[derive(Clone, Copy)]
pub enum Count {
    Seen,
    Submitted,
    Coalesced,
    Filtered,
    Outside,
    RingFull,
    Oversize,
}

/// Adds one.
#[inline(always)]
pub fn count(what: Count) {
    count_many(what, 1);
}

/// Adds a number. Atomic, because a program may be preempted by another one on the same CPU.
#[inline(always)]
pub fn count_many(what: Count, number: u64) {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let counters = || COUNTERS.get_ptr_mut(cpu);
    // SAFETY: the index is below the number of cells.
    let frequent = || unsafe { (&raw mut FREQUENT).cast::<Frequent>().add(cpu as usize % FREQUENT_CELLS) };
    // SAFETY: pointers to this CPU's map value, alive as long as the map, or to a static.
    let cell = unsafe {
        match what {
            Count::Seen => counters().map(|counters| &raw mut (*counters).seen),
            Count::Submitted => counters().map(|counters| &raw mut (*counters).submitted),
            Count::Filtered => counters().map(|counters| &raw mut (*counters).filtered),
            Count::RingFull => counters().map(|counters| &raw mut (*counters).ring_full),
            Count::Oversize => counters().map(|counters| &raw mut (*counters).oversize),
            Count::Coalesced => Some(&raw mut (*frequent()).coalesced),
            Count::Outside => Some(&raw mut (*frequent()).outside),
        }
    };
    if let Some(cell) = cell {
        add(cell, number);
    }
}
