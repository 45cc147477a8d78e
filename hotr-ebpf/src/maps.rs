//! Every map and global of the kernel side.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use hotr_common::children::Children;
use hotr_common::config::{
    Delivered, Exchange, Live, MAX_ROOTS, MAX_SUPERBLOCKS, MMAPABLE, RootSlot, STORMS, Storm, Turn, Verdicts,
};
use hotr_common::counters::{Counters, FREQUENT_CELLS, Frequent};
use hotr_common::hook::HOOKS;
use hotr_common::offsets::{Arguments, Offsets};
use hotr_common::rules::{CLASSES, RULES, Rule};

use crate::draft::{DRAFT_COUNT, Draft};
use crate::hooks::{Batch, CallRecord, OldName, Removal, ToldFault, Victim};

/// Records for userspace. The size is set by the loader.
#[map(name = "RECORDS")]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Address of a watched root's inode → its slot.
#[map(name = "ROOTS")]
pub static ROOTS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_ROOTS as u32, 0);

/// Slot → root.
#[map(name = "ROOT_SLOTS")]
pub static ROOT_SLOTS: Array<RootSlot> = Array::with_max_entries(MAX_ROOTS as u32, 0);

/// Files under continuous change; hotr reads and frees the slots in its own mapping of it.
#[map(name = "STORM_SLOTS")]
pub static STORM_SLOTS: Array<Storm> = Array::with_max_entries(STORMS, MMAPABLE);

/// What the programs saw and did, one entry a CPU. Not a per-CPU map, because userspace could read that by
/// bpf(2) only, and while such a call is under way the kernel runs no kprobe program on that CPU (kernel/bpf/syscall.c
/// `bpf_disable_instrumentation`). The loader sets the number of entries.
#[map(name = "COUNTERS")]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(1, MMAPABLE);

/// Answers to the poller, one entry for each of its threads. The loader sets how many there are.
#[map(name = "CHILDREN")]
pub static CHILDREN: Array<Children> = Array::with_max_entries(1, MMAPABLE);

/// kprobe tier: arguments kept from a function's entry to its return, by (thread id << 32 | hook).
#[map(name = "CALLS")]
pub static CALLS: HashMap<u64, [u64; 2]> = HashMap::with_max_entries(4096, 0);

/// Files about to lose a name, by the address of the dentry.
#[map(name = "VICTIMS")]
pub static VICTIMS: HashMap<u64, Victim> = HashMap::with_max_entries(1024, 0);

/// Files that lose a name in the system call of a thread, by its id.
#[map(name = "CALL_VICTIMS")]
pub static CALL_VICTIMS: LruHashMap<u32, Victim> = LruHashMap::with_max_entries(1024, 0);

/// Directories about to be removed, by thread id: where the compiler put a copy of `vfs_rmdir` into its caller, the
/// function itself is never entered, and only the caller's return tells the end.
#[map(name = "RMDIRS")]
pub static RMDIRS: HashMap<u32, Removal> = HashMap::with_max_entries(1024, 0);

/// Names about to be changed, by the address of the `renamedata`.
#[map(name = "OLD_NAMES")]
pub static OLD_NAMES: HashMap<u64, OldName> = HashMap::with_max_entries(512, 0);

/// Submitters of libaio requests, by the address of the `kiocb`: their completion runs in any task.
#[map(name = "AIO_TASKS")]
pub static AIO_TASKS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// The last delivery to hotr's own inotify instance, by thread id.
#[map(name = "DELIVERIES")]
pub static DELIVERIES: LruHashMap<u32, Delivered> = LruHashMap::with_max_entries(4096, 0);

/// What hotr and its programs hand to each other about roots.
#[map(name = "EXCHANGE")]
pub static EXCHANGE: Array<Exchange> = Array::with_max_entries(1, MMAPABLE);

/// What to do at the exit of a system call, by its number; zeros for the ones that change nothing. See [`RULES`].
#[map(name = "SYSCALLS")]
pub static SYSCALLS: Array<Rule> = Array::with_max_entries(2 * RULES, 0);

/// For the number of a call in the 32-bit table one more than the native number of the same call, or 0.
#[map(name = "COMPAT_CALLS")]
pub static COMPAT_CALLS: Array<u32> = Array::with_max_entries(RULES, 0);

/// The program for each [`hotr_common::rules::Class`] of system calls.
#[map(name = "CLASS_PROGRAMS")]
pub static CLASS_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(CLASSES, 0);

/// The same for programs on tracepoints by way of perf: a map holds programs of one kind.
#[map(name = "PERF_CLASSES")]
pub static PERF_CLASSES: ProgramArray = ProgramArray::with_max_entries(CLASSES, 0);

/// The `io_submit` that is being reported.
#[map(name = "AIO_BATCH")]
pub static AIO_BATCH: PerCpuArray<Batch> = PerCpuArray::with_max_entries(1, 0);

/// When records were submitted on this CPU without waking userspace: one more than a place in the ring buffer that is
/// not behind the first of them.
#[map(name = "WAKE_DUE")]
pub static WAKE_DUE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The last store through a mapping that was told of a thread, by its id.
#[map(name = "TOLD_FAULTS")]
pub static TOLD_FAULTS: LruHashMap<u32, ToldFault> = LruHashMap::with_max_entries(1024, 0);

/// Requests in flight of one ring with the same user data.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// What is written: a file on a watched superblock; 0 for every other request.
    pub file: u64,
    /// Who submitted the first.
    pub task: u64,
    /// How many there were, and how many have ended.
    pub submitted: u64,
    pub completed: u64,
    /// Not 0: they are not of one file, and which one ended cannot be known.
    pub mixed: u64,
}

/// io_uring requests in flight, by (ring, user data), for kernels whose completion event does not name the request.
#[map(name = "URING_REQUESTS")]
pub static URING_REQUESTS: LruHashMap<[u64; 2], InFlight> = LruHashMap::with_max_entries(4096, 0);

/// Where a record about a path-taking system call is put together.
#[map(name = "CALL_RECORD")]
pub static CALL_RECORD: PerCpuArray<CallRecord> = PerCpuArray::with_max_entries(1, 0);

/// Offsets of this kernel, set by the loader and frozen.
#[unsafe(no_mangle)]
pub static OFF: Offsets = Offsets {
    arguments: [Arguments::NONE; HOOKS],
    // SAFETY: every other field of `Offsets` is an integer or an array of integers, for which zero is a value.
    ..unsafe { core::mem::zeroed() }
};

/// Settings userspace changes at run time; alone in `.bss`. While programs are attached, `adjust` writes them.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss")]
pub static mut LIVE: Live = Live {
    lowest: 0,
    highest: 0,
    superblocks: [0; MAX_SUPERBLOCKS],
    own_group: 0,
    window: 0,
    cookie: 0,
    regs_off: 0,
    own_tgid: 0,
    layers: 0,
    epoch: 0,
    zero: 0,
};

/// Bumped by every rename of a directory; empties the verdict cache. In a section of its own: the map of `.bss` is
/// rewritten by userspace as a whole.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.epoch")]
pub static mut EPOCH: u64 = 0;

/// Where directories are, as far as is known. In a section of its own, as above; no map function is needed to read it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.verdicts")]
// SAFETY: integers and arrays of integers only, for which zero is a value.
pub static mut VERDICTS: Verdicts = unsafe { core::mem::zeroed() };

/// In a section of its own, as above.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.frequent")]
// SAFETY: integers only, for which zero is a value.
pub static mut FREQUENT: [Frequent; FREQUENT_CELLS] = unsafe { core::mem::zeroed() };

/// In a section of its own, as above.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.drafts")]
// SAFETY: integers and arrays of integers only, for which zero is a value.
pub static mut DRAFTS: [Draft; DRAFT_COUNT as usize] = unsafe { core::mem::zeroed() };

/// Who takes a free slot of [`STORM_SLOTS`].
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.storm_turn")]
pub static mut STORM_TURN: Turn = Turn { came: 0, went: 0 };

/// Runs `work` when nobody else is inside.
///
/// Who reads `went` and then `came`, and finds himself the only one who has not gone, was alone when he read `came`; and
/// who comes later while he is inside finds two. This needs loads and stores in the order they are written, which the
/// only supported architecture keeps.
#[inline(always)]
pub fn alone(turn: *mut Turn, work: impl FnOnce()) {
    if come(turn) {
        work();
    }
    go(turn);
}

/// Goes inside; whether nobody else is there. Either way [`go`] has to follow.
#[inline(always)]
pub fn come(turn: *mut Turn) -> bool {
    // SAFETY: callers pass one of the statics above; words are read whole.
    unsafe {
        add(&raw mut (*turn).came, 1);
        let went = read(&raw const (*turn).went);
        read(&raw const (*turn).came).wrapping_sub(went) == 1
    }
}

/// See [`come`].
#[inline(always)]
pub fn go(turn: *mut Turn) {
    // SAFETY: as in `come`.
    unsafe { add(&raw mut (*turn).went, 1) };
}

/// Reads a field of [`OFF`] or [`LIVE`]; volatile, or rustc folds the initial zeros in. Only for the macros below.
#[inline(always)]
pub fn read<T: Copy>(field: *const T) -> T {
    // SAFETY: the macros pass the address of a field of a static; userspace writes whole words.
    unsafe { core::ptr::read_volatile(field) }
}

/// Reads one offset. The map is frozen, so the verifier knows the value.
macro_rules! off {
    ($($field:tt)+) => { $crate::maps::read(&raw const $crate::maps::OFF.$($field)+) };
}
pub(crate) use off;

/// Reads one live setting.
macro_rules! live {
    // SAFETY: only the address is taken.
    ($($field:tt)+) => { $crate::maps::read(unsafe { &raw const $crate::maps::LIVE.$($field)+ }) };
}
pub(crate) use live;

/// The same number, as one that the verifier knows nothing of. What differs between the ways to a place only by constants is
/// looked at once for each of them; this makes one way of them.
#[inline(always)]
pub fn blur(value: u64) -> u64 {
    value.wrapping_add(live!(zero))
}

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

/// Atomic add without a result: the one atomic instruction that every kernel's verifier knows.
#[inline(always)]
pub fn add(cell: *mut u64, value: u64) {
    // SAFETY: callers pass aligned pointers into map values; the prebuilt `core` has no atomics for this target.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) cell, in(reg) value, options(nostack));
    }
}
