//! Delivery to hotr's own inotify instance: what `fsnotify_insert_event` said of each event, kept for the record
//! of the change that the same task is making.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use hotr_common::config::Delivered;
use hotr_common::record::Delivery;

use crate::call::CALLS;
use crate::emit::DELIVERIES;
use crate::globals::{live, off};
use crate::kernel::{Mem, Probe};

/// Key space of [`CALLS`] for `fsnotify_insert_event`, above every hook number.
const INSERT: u64 = 0xffff;

/// `inotify_handle_inode_event(mark, mask, …)`.
#[fentry]
pub fn fentry_offer(ctx: FEntryContext) -> u32 {
    offer(ctx.arg::<*const u8>(0), ctx.arg::<u64>(1) as u32);
    0
}

/// See [`fentry_offer`].
#[kprobe]
pub fn kprobe_offer(ctx: ProbeContext) -> u32 {
    if let (Some(mark), Some(mask)) = (ctx.arg::<*const u8>(0), ctx.arg::<u64>(1)) {
        offer(mark, mask as u32);
    }
    0
}

#[inline(always)]
fn offer(mark: *const u8, mask: u32) {
    if Probe::u64(mark, off!(mark_group)) != live!(own_group) || live!(own_group) == 0 {
        return;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: no arguments.
    let time = unsafe { bpf_ktime_get_ns() };
    let _ = DELIVERIES.insert(&tid, &Delivered { time, mask, state: Delivery::Offered as u32 }, 0);
}

/// `fsnotify_insert_event(group, event, merge, insert)`, at its exit.
#[fexit]
pub fn fexit_insert(ctx: FExitContext) -> u32 {
    inserted(ctx.arg::<u64>(0), ctx.arg::<u64>(4) as i32);
    0
}

/// Entry of the same.
#[kprobe]
pub fn kprobe_insert(ctx: ProbeContext) -> u32 {
    let group = ctx.arg::<u64>(0).unwrap_or(0);
    if group != 0 && group == live!(own_group) {
        let key = (bpf_get_current_pid_tgid() << 32) | INSERT;
        let _ = CALLS.insert(&key, &[group, 0, 0], 0);
    }
    0
}

/// Return of the same.
#[kretprobe]
pub fn kretprobe_insert(ctx: RetProbeContext) -> u32 {
    let key = (bpf_get_current_pid_tgid() << 32) | INSERT;
    // SAFETY: the entry is this thread's own.
    let Some([group, ..]) = unsafe { CALLS.get(&key) }.copied() else { return 0 };
    let _ = CALLS.remove(&key);
    inserted(group, ctx.ret::<u64>() as i32);
    0
}

#[inline(always)]
fn inserted(group: u64, result: i32) {
    if group == 0 || group != live!(own_group) {
        return;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let state = match result {
        0 => Delivery::Queued,
        1 => Delivery::Merged,
        2 => Delivery::Overflow,
        _ => return,
    };
    if let Some(delivered) = DELIVERIES.get_ptr_mut(&tid) {
        // SAFETY: the entry belongs to this task.
        unsafe { (*delivered).state = state as u32 };
    }
}
