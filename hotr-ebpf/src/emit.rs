//! Makes a record and passes it to userspace.
//!
//! Records are built inside the ring buffer's memory, not in a per-CPU buffer: a program on a function's entry
//! or exit may be preempted, and another one would then write into the same buffer. Long paths are copied from a
//! [draft](crate::path_draft).

use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use hotr_common::config::Delivered;
use hotr_common::hook::Hook;
use hotr_common::record::{
    COMM_LEN, Delivery, FLAG_IO_WORKER, FLAG_KTHREAD, LARGE_PATHS, MAX_NAME, Record, SMALL_DEPTH, SMALL_PATHS,
};

use crate::call::TRACEPOINT;
use crate::counters::{Count, count};
use crate::event::Event;
use crate::filter;
use crate::globals::{live, off};
use crate::kernel::{Mem, Probe, number, task};
use crate::messages::note;
use crate::path::{self, OVERFLOW};
use crate::path_draft::{self, ClaimedDraft, Ends};
use crate::records::{RECORDS, WAKE_DUE};

/// The last delivery to hotr's own inotify instance, by thread id.
#[map(name = "DELIVERIES")]
pub static DELIVERIES: LruHashMap<u32, Delivered> = LruHashMap::with_max_entries(4096, 0);

/// `BPF_RB_NO_WAKEUP`.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`.
const FORCE_WAKEUP: u64 = 2;
/// `BPF_RB_CONS_POS`: how far the ring was read.
const READ_TO: u64 = 2;
/// `BPF_RB_PROD_POS`: how far it is taken.
const TAKEN_TO: u64 = 3;
/// Times that a waking program looks again, for tasks may have run while it was preempted.
const WAKE_ROUNDS: u32 = 4;

/// A record of the ring buffer with room for paths. `MAX_NAME` more bytes are there because the verifier bounds
/// offset and length of a copy by themselves.
#[repr(C)]
struct Sized<const PATHS: usize> {
    record: Record,
    paths: [u8; PATHS],
    slack: [u8; MAX_NAME],
}

/// Emits an event with one path.
#[inline(always)]
pub fn emit(event: &Event) {
    emit_sized::<false>(event);
}

/// Emits a rename, with two paths.
#[inline(always)]
pub fn emit_rename(event: &Event) {
    emit_sized::<true>(event);
}

/// In one of two sizes, and not in the large one when the small one does not do: the verifier would look at the second at
/// every place where the first may end. Functions beside each other, not in each other: all stacks of a call together are
/// 512 bytes at most.
#[inline(always)]
fn emit_sized<const RENAME: bool>(event: &Event) {
    if event.is_small() {
        emit_small::<RENAME>(event);
        return;
    }
    let Some(draft) = ClaimedDraft::any() else {
        note!(no_draft, event.hook, event.inode);
        count(Count::Oversize);
        return;
    };
    let ends = path_draft::write::<RENAME>(&draft, event);
    emit_large(event, &draft, ends);
    draft.give_back();
}

#[inline(never)]
fn emit_small<const RENAME: bool>(event: &Event) -> u32 {
    let wakeup = submission(event.hook, event.tier);
    let Some(mut entry) = RECORDS.reserve::<Sized<SMALL_PATHS>>(0) else {
        note!(ring_full, event.hook, event.inode);
        count(Count::RingFull);
        return 0;
    };
    let sized = entry.as_mut_ptr();
    // SAFETY: `sized` is memory of the whole size reserved for this program alone; every field of the header is
    // written before it is submitted, and payload beyond the given lengths is not read by userspace.
    let fits = unsafe {
        let record = &raw mut (*sized).record;
        paths::<RENAME>(record, (&raw mut (*sized).paths).cast(), event)
    };
    if !fits {
        entry.discard(wakeup);
        note!(oversize, event.hook, event.inode);
        count(Count::Oversize);
        return 0;
    }
    // SAFETY: as above.
    unsafe { header(&raw mut (*sized).record, event) };
    entry.submit(wakeup);
    note!(when !event.inode.is_null() => sent, event.hook, event.inode, event.root);
    note!(when event.inode.is_null() => sent, event.hook, event.victim, event.root);
    count(Count::Submitted);
    0
}

/// With paths from a draft, which end there.
#[inline(never)]
fn emit_large(event: &Event, draft: &ClaimedDraft, ends: u64) -> u32 {
    let Ends { path, all } = Ends::of(ends);
    if path == OVERFLOW || all > LARGE_PATHS as u32 {
        note!(oversize, event.hook, event.inode);
        count(Count::Oversize);
        return 0;
    }
    let wakeup = submission(event.hook, event.tier);
    let Some(mut entry) = RECORDS.reserve::<Sized<LARGE_PATHS>>(0) else {
        note!(ring_full, event.hook, event.inode);
        count(Count::RingFull);
        return 0;
    };
    let sized = entry.as_mut_ptr();
    let len = path::bounded::<{ 2 * LARGE_PATHS }>(u64::from(all)).min(LARGE_PATHS);
    // SAFETY: as in `emit_small`; the draft has as many bytes.
    unsafe {
        bpf_probe_read_kernel((&raw mut (*sized).paths).cast(), len as u32, draft.paths().cast());
        header(&raw mut (*sized).record, event);
        (*sized).record.path_len = path as u16;
        (*sized).record.old_len = all.wrapping_sub(path) as u16;
    }
    entry.submit(wakeup);
    note!(when !event.inode.is_null() => sent, event.hook, event.inode, event.root);
    note!(when event.inode.is_null() => sent, event.hook, event.victim, event.root);
    count(Count::Submitted);
    0
}

/// How to submit a record of this hook and tier: without waking userspace when [`wake`] will run next. To be asked before
/// there is room for the record: it begins at the place noted here, or later.
#[inline(always)]
pub fn submission(hook: u16, tier: u16) -> u64 {
    if hook != Hook::SysExit as u16 || tier != TRACEPOINT {
        return 0;
    }
    let Some(due) = WAKE_DUE.get_ptr_mut(0) else { return 0 };
    // Asked first: of two tasks that take turns on this CPU, the smaller place must not be overwritten.
    let place = RECORDS.query(TAKEN_TO);
    // SAFETY: this CPU's own word, read and written whole.
    unsafe {
        if core::ptr::read_volatile(due) == 0 {
            core::ptr::write_volatile(due, place.wrapping_add(1));
        }
    }
    NO_WAKEUP
}

/// Wakes userspace if something was submitted on this CPU without it, and it may be asleep.
///
/// It sleeps when it has read everything there was. The first record that it has not read then begins where it stopped:
/// whoever submitted that one finds here that the ring was read up to its place, and wakes. Who finds it read less far
/// need not: the reader is awake, and sees each record that was submitted before it goes to sleep.
#[inline(always)]
pub fn wake() {
    let Some(due) = WAKE_DUE.get_ptr_mut(0) else { return };
    let mut round = 0;
    while round < WAKE_ROUNDS {
        // SAFETY: as in `submission`.
        let noted = unsafe { core::ptr::read_volatile(due) };
        if noted == 0 {
            return;
        }
        // SAFETY: as in `submission`.
        unsafe { core::ptr::write_volatile(due, 0) };
        // Readers skip what is discarded. A full ring wakes nobody, because its reader has not reached its end.
        if RECORDS.query(READ_TO) >= noted.wrapping_sub(1)
            && let Some(entry) = RECORDS.reserve::<u64>(0)
        {
            entry.discard(FORCE_WAKEUP);
        }
        round += 1;
    }
}

/// Fills everything but the paths.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
pub unsafe fn header(record: *mut Record, event: &Event) {
    let running = event.task.is_null();
    let task = if running { task::current() } else { event.task };
    let inode = event.inode;
    let sb = Probe::ptr(inode, off!(inode_i_sb));
    let mut flags = event.flags;
    if task::is_kthread(task) {
        flags |= FLAG_KTHREAD;
    }
    if task::is_io_worker(task) {
        flags |= FLAG_IO_WORKER;
    }
    let cred = Probe::ptr(task, off!(task_cred));
    let mnt_id = if event.mnt.is_null() {
        0
    } else {
        Probe::u32(event.mnt.wrapping_sub(off!(mount_mnt) as usize), off!(mount_mnt_id))
    };
    // SAFETY: the caller's promise.
    let record = unsafe { &mut *record };
    // SAFETY: no arguments.
    record.time = unsafe { bpf_ktime_get_ns() };
    record.inode = inode as u64;
    record.ino = Probe::u64(inode, off!(inode_i_ino));
    record.size = Probe::u64(inode, off!(inode_i_size));
    // SAFETY: no arguments.
    record.cgroup = if running { unsafe { bpf_get_current_cgroup_id() } } else { 0 };
    record.writes = event.writes;
    record.bytes = event.bytes;
    record.born = event.born;
    record.aux = event.aux;
    record.victim = event.victim;
    record.generation = Probe::u32(inode, off!(inode_i_generation));
    record.dev = Probe::u32(sb, off!(super_block_s_dev));
    record.pid = Probe::u32(task, off!(task_tgid));
    record.tid = Probe::u32(task, off!(task_pid));
    record.uid = Probe::u32(cred, off!(cred_euid));
    record.sysno = task::syscall(task);
    record.mode = u32::from(Probe::u16(inode, off!(inode_i_mode)));
    record.nlink = Probe::u32(inode, off!(inode_i_nlink));
    record.mnt_id = mnt_id;
    record.flags = flags;
    record.hook = event.hook;
    record.root = event.root;
    record.old_root = event.old_root;
    record.tier = event.tier as u8;
    record.storm = event.storm;
    record.way = event.way;
    if event.victim_mode != 0 {
        // The dentry has lost its inode: what is known was taken before.
        record.ino = event.victim;
        record.victim = 0;
        record.generation = event.victim_generation;
        record.mode = event.victim_mode;
        let named = if event.dentry.is_null() { event.old_parent } else { event.dentry };
        record.dev = Probe::u32(Probe::ptr(named, off!(dentry_d_sb)), off!(super_block_s_dev));
    }
    // SAFETY: the destination is the record's own array.
    unsafe {
        bpf_probe_read_kernel(
            record.comm.as_mut_ptr().cast(),
            COMM_LEN as u32,
            task.wrapping_add(off!(task_comm) as usize).cast(),
        );
    }
    delivery(record);
}

/// What became of the event in hotr's own inotify instance, if the delivery hooks saw this task.
#[inline(always)]
fn delivery(record: &mut Record) {
    record.delivery = Delivery::Unknown as u8;
    record.delivery_time = 0;
    record.delivery_mask = 0;
    if live!(own_group) == 0 {
        return;
    }
    let tid = record.tid;
    // SAFETY: the value belongs to this task, which is not running elsewhere.
    if let Some(delivered) = unsafe { DELIVERIES.get(&tid) } {
        record.delivery = delivered.state as u8;
        record.delivery_time = delivered.time;
        record.delivery_mask = delivered.mask;
    }
}

/// Writes the path, and for a rename the old path behind it; false when they do not fit.
///
/// # Safety
/// `record` is valid for writes and `buffer` has `SMALL_PATHS + MAX_NAME` writable bytes.
#[inline(always)]
unsafe fn paths<const RENAME: bool>(record: *mut Record, buffer: *mut u8, event: &Event) -> bool {
    let root = filter::root_of_slot(event.root);
    // SAFETY: the caller's promise.
    let end = unsafe { path::append::<SMALL_PATHS, SMALL_DEPTH>(buffer, 0, number(event.dentry), root) };
    if end == OVERFLOW {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*record).path_len = end as u16;
        (*record).old_len = 0;
    }
    if !RENAME {
        return true;
    }
    let root = filter::root_of_slot(event.old_root);
    // SAFETY: the caller's promise.
    let mut old_end = unsafe { path::name::<SMALL_PATHS>(buffer, end, event.old_name) };
    if old_end == OVERFLOW {
        return false;
    }
    // SAFETY: the caller's promise.
    old_end =
        unsafe { path::append::<SMALL_PATHS, SMALL_DEPTH>(buffer, old_end, number(event.old_parent), root) };
    if old_end == OVERFLOW {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe { (*record).old_len = old_end.wrapping_sub(end) as u16 };
    true
}
