//! Registers directories that hotr holds open with the programs.
//!
//! Before anything is attached, one of hotr's own system calls, marked by a cookie, lets [`register`] resolve a
//! descriptor to kernel addresses; it is attached only for that moment. Afterwards hotr runs [`update_roots`] with
//! `BPF_PROG_TEST_RUN`, for everything that it would else change by bpf(2) on a map: as long as such a call is under
//! way, in a task that may have been preempted, the kernel runs no program of a probe or of a perf event on that CPU
//! (kernel/bpf/syscall.c `bpf_disable_instrumentation`).

use aya_ebpf::macros::map;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::RawTracePointContext;
use hotr_common::config::{
    ADJUST_ADD, ADJUST_FOLLOW, ADJUST_LEAVE, ADJUST_PUBLISH, ADJUST_REMOVE, ADJUST_RESOLVE, Live, Registered,
    RootSlot,
};
use hotr_common::config::{Exchange, MMAPABLE, MOST_MARKS, NO_MARKS_FIELD};
use hotr_common::offsets::ABSENT;

use crate::filter::{ROOT_SLOTS, ROOTS};
use crate::globals::{LIVE, live, off};
use crate::hooks::delivery;
use crate::kernel::{Mem, Probe, task};

/// What hotr and its programs hand to each other about roots.
#[map(name = "EXCHANGE")]
pub static EXCHANGE: Array<Exchange> = Array::with_max_entries(1, MMAPABLE);

/// `sys_enter(regs, id)`: `fcntl(fd, F_GETFD, cookie)` by hotr.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn register(ctx: RawTracePointContext) -> u32 {
    let regs = ctx.arg::<*const u8>(0);
    if live!(cookie) == 0 || Probe::u64(regs, off!(regs_arg[2])) != live!(cookie) {
        return 0;
    }
    let fd = Probe::u64(regs, off!(regs_arg[0]));
    let Some(exchange) = EXCHANGE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value that only this program writes now, and userspace reads after the call returned.
    let found = unsafe { &mut (*exchange).found };
    let task = task::current();
    if !resolve(task, fd as u32, found) {
        return 0;
    }
    found.regs_off = (regs as u64).wrapping_sub(Probe::u64(task, off!(task_stack)));
    found.tgid = Probe::u32(task, off!(task_tgid));
    // Migration is forbidden instead of preemption (kernel/trace/bpf_trace.c `__bpf_trace_run`).
    found.preemptible = u32::from(
        off!(task_migration_disabled) != ABSENT && Probe::u16(task, off!(task_migration_disabled)) != 0,
    );
    0
}

/// In: one of the `ADJUST_*`, with its arguments. Out: [`hotr_common::config::Exchange::done`].
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn update_roots(ctx: RawTracePointContext) -> u32 {
    let (what, inode, slot, flags) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2), ctx.arg::<u64>(3));
    let Some(exchange) = EXCHANGE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value that only this run writes: hotr makes one at a time, and waits for its end.
    let exchange = unsafe { &mut *exchange };
    let is_done = match what {
        ADJUST_RESOLVE => resolve(task::current(), inode as u32, &mut exchange.found),
        ADJUST_PUBLISH => true,
        ADJUST_ADD => add(inode, slot as u32, flags as u32),
        // Gone already is what was wanted.
        ADJUST_REMOVE => ROOTS.remove(inode).is_ok() || ROOTS.get_ptr(inode).is_none(),
        ADJUST_FOLLOW => delivery::follow(inode, slot as u32),
        ADJUST_LEAVE => delivery::leave(inode),
        _ => false,
    };
    if !matches!(what, ADJUST_RESOLVE | ADJUST_FOLLOW | ADJUST_LEAVE) {
        publish(&exchange.settings);
    }
    exchange.done = u64::from(is_done);
    0
}

fn add(inode: u64, slot: u32, flags: u32) -> bool {
    let Some(entry) = ROOT_SLOTS.get_ptr_mut(slot) else { return false };
    // SAFETY: an entry that no root has, so no program reads it.
    unsafe { *entry = RootSlot { inode, flags, reserved: 0 } };
    ROOTS.insert(inode, slot, 0).is_ok()
}

/// The epoch comes last: what was found by the former settings is not taken for an answer by the new ones.
fn publish(settings: &Live) {
    let live = &raw mut LIVE;
    // SAFETY: only this program writes them, one run at a time; others read them word by word.
    unsafe {
        let epoch = (*live).epoch;
        live.write_volatile(Live { epoch, ..*settings });
        (&raw mut (*live).epoch).write_volatile(settings.epoch);
    }
}

/// What a descriptor of this task leads to, except what only a system call's registers show.
#[inline(always)]
fn resolve(task: *const u8, fd: u32, found: &mut Registered) -> bool {
    let file = task::file(task, fd);
    if file.is_null() {
        return false;
    }
    let inode = Probe::ptr(file, off!(file_f_inode));
    let superblock = Probe::ptr(inode, off!(inode_i_sb));
    let mount = Probe::ptr(file, off!(file_mnt)).wrapping_sub(off!(mount_mnt) as usize);
    found.inode = inode as u64;
    found.superblock = superblock as u64;
    found.private_data = Probe::u64(file, off!(file_private_data));
    found.ino = Probe::u64(inode, off!(inode_i_ino));
    found.dev = Probe::u32(superblock, off!(super_block_s_dev));
    found.generation = Probe::u32(inode, off!(inode_i_generation));
    found.mnt_id = Probe::u32(mount, off!(mount_mnt_id));
    found.fsnotify_mask = match off!(inode_i_fsnotify_mask) {
        ABSENT => 0,
        at => Probe::u32(inode, at),
    };
    found.marks = marks(inode);
    true
}

/// Number of marks on an inode, of inotify and fanotify alike (include/linux/fsnotify_backend.h, `fsnotify_mark_connector`).
#[inline(always)]
fn marks(inode: *const u8) -> u32 {
    let (at, list) = (off!(inode_i_fsnotify_marks), off!(connector_list));
    if at == ABSENT || list == ABSENT {
        return NO_MARKS_FIELD;
    }
    let connector = Probe::ptr(inode, at);
    if connector.is_null() {
        return 0;
    }
    // The first member of a list's node is the next one; of its head, the first.
    let mut node = Probe::ptr(connector, list);
    let mut count = 0;
    while count < MOST_MARKS && !node.is_null() {
        node = Probe::ptr(node, 0);
        count += 1;
    }
    count
}
