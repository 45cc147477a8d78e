//! Delivery to the inotify instances of other processes, for `hotr diagnose`: each event that the kernel offers to one
//! that is followed, with what its queue said, and each that its program takes. Attached while a diagnosis runs, in an
//! object of its own, whose ring buffer holds these records and no others.
//!
//! What is said of an event is read before it is queued: from then on the reader may free it.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str};
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use hotr_common::delivery::{ADDED, CLOSED, NOT_INSERTED, OFFERED, Offer, TAKEN};
use hotr_common::offsets::ABSENT;
use hotr_common::record::MAX_NAME;

use crate::call::CALLS;
use crate::counters::{Count, count};
use crate::globals::off;
use crate::kernel::{Mem, Probe};
use crate::records::RECORDS;

/// Address of a `fsnotify_group` → its slot. A diagnosis gives this map and the next their size.
#[map(name = "FOLLOWED")]
pub static FOLLOWED: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// Events that are being offered, by thread.
#[map(name = "OFFERS")]
static OFFERS: HashMap<u32, Offer> = HashMap::with_max_entries(1, 0);

/// Room to build one: it is too large for the stack.
#[map(name = "OFFER_INIT")]
static OFFER_INIT: Array<Offer> = Array::with_max_entries(1, 0);

/// Key space of [`CALLS`] for `fsnotify_remove_first_event`, above every hook number.
const TAKE: u64 = 0xfffe;

/// `inotify_handle_inode_event(mark, mask, inode, dir, name, cookie)`.
#[fentry]
pub fn fentry_deliver(ctx: FEntryContext) -> u32 {
    begin(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2), ctx.arg(4), ctx.arg::<u64>(5) as u32);
    0
}

/// See [`fentry_deliver`].
#[kprobe]
pub fn kprobe_deliver(ctx: ProbeContext) -> u32 {
    let word = |n| ctx.arg::<u64>(n).unwrap_or(0);
    begin(word(0), word(1) as u32, word(2), word(4), word(5) as u32);
    0
}

#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The slot of a group that is followed.
#[inline(always)]
pub fn slot_of(group: u64) -> Option<u32> {
    // SAFETY: a number, copied at once.
    unsafe { FOLLOWED.get(&group) }.copied()
}

#[inline(always)]
fn begin(mark: u64, mask: u32, inode: u64, name: u64, cookie: u32) {
    let mark = mark as *const u8;
    let group = Probe::u64(mark, off!(mark_group));
    let Some(slot) = slot_of(group) else { return };
    let thread = thread();
    if let Some(outer) = OFFERS.get_ptr_mut(&thread) {
        // IN_ONESHOT ends its watch within the call that has queued the event, and that makes this call for IN_IGNORED
        // (fs/notify/inotify/inotify_fsnotify.c, `inotify_handle_inode_event`): the outer offer is complete.
        // SAFETY: the entry is this thread's own.
        unsafe {
            if (*outer).result != NOT_INSERTED {
                emit(&*outer);
            }
        }
    }
    let Some(empty) = OFFER_INIT.get(0) else { return };
    if OFFERS.insert(&thread, empty, 0).is_err() {
        // More threads at a time than there is room for.
        count(Count::RingFull);
        return;
    }
    let Some(offer) = OFFERS.get_ptr_mut(&thread) else { return };
    let inode = inode as *const u8;
    // SAFETY: the entry is this thread's own, and the name is bounded by the array.
    unsafe {
        (*offer).time = now();
        (*offer).group = group;
        (*offer).kind = OFFERED;
        (*offer).slot = slot;
        (*offer).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*offer).tid = thread;
        (*offer).wd = Probe::u32(mark, off!(inotify_mark_wd)) as i32;
        (*offer).mask = mask;
        (*offer).cookie = cookie;
        (*offer).result = NOT_INSERTED;
        (*offer).ino = Probe::u64(inode, off!(inode_i_ino));
        (*offer).dev = Probe::u32(Probe::ptr(inode, off!(inode_i_sb)), off!(super_block_s_dev));
        if name != 0 {
            // The string's place in a `qstr`, whose first member is the hash.
            let text = Probe::ptr(name as *const u8, off!(dentry_d_name_name) - off!(dentry_d_name_hash));
            bpf_probe_read_kernel_str((&raw mut (*offer).name).cast(), MAX_NAME as u32, text.cast());
        }
    }
}

/// Entry of `fsnotify_insert_event(group, event, merge, insert)`.
#[fentry]
pub fn fentry_deliver_insert(ctx: FEntryContext) -> u32 {
    event(ctx.arg(0), ctx.arg(1));
    0
}

/// Exit of the same.
#[fexit]
pub fn fexit_deliver_insert(ctx: FExitContext) -> u32 {
    inserted(ctx.arg::<u64>(4) as i32);
    0
}

/// Entry of the same.
#[kprobe]
pub fn kprobe_deliver_insert(ctx: ProbeContext) -> u32 {
    event(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

/// Return of the same.
#[kretprobe]
pub fn kretprobe_deliver_insert(ctx: RetProbeContext) -> u32 {
    inserted(ctx.ret::<u64>() as i32);
    0
}

#[inline(always)]
fn event(group: u64, event: u64) {
    let Some(offer) = OFFERS.get_ptr_mut(&thread()) else { return };
    // SAFETY: the entry is this thread's own.
    unsafe {
        if (*offer).group == group {
            (*offer).event = event;
            // Before it is queued, and after a former event at this address was taken.
            (*offer).time = now();
        }
    }
}

#[inline(always)]
fn inserted(result: i32) {
    let Some(offer) = OFFERS.get_ptr_mut(&thread()) else { return };
    // SAFETY: the entry is this thread's own.
    unsafe {
        // Without an event it was another instance's, whose offer is not followed.
        if (*offer).event == 0 || (*offer).result != NOT_INSERTED {
            return;
        }
        let group = (*offer).group as *const u8;
        (*offer).result = result;
        (*offer).queued = Probe::u32(group, off!(group_q_len));
        (*offer).limit = Probe::u32(group, off!(group_max_events));
    }
}

/// Exit of `inotify_handle_inode_event`.
#[fexit]
pub fn fexit_deliver(ctx: FExitContext) -> u32 {
    end(ctx.arg::<u64>(6) as i32);
    0
}

/// See [`fexit_deliver`].
#[kretprobe]
pub fn kretprobe_deliver(ctx: RetProbeContext) -> u32 {
    end(ctx.ret::<u64>() as i32);
    0
}

#[inline(always)]
fn end(status: i32) {
    let thread = thread();
    let Some(offer) = OFFERS.get_ptr_mut(&thread) else { return };
    // SAFETY: the entry is this thread's own, until it is removed.
    unsafe {
        (*offer).status = status;
        emit(&*offer);
    }
    let _ = OFFERS.remove(&thread);
}

#[inline(always)]
fn emit(offer: &Offer) {
    if RECORDS.output::<Offer>(offer, 0).is_err() {
        count(Count::RingFull);
    }
}

/// Exit of `fsnotify_remove_first_event(group)`, which returns the event.
#[fexit]
pub fn fexit_deliver_take(ctx: FExitContext) -> u32 {
    taken(ctx.arg(0), ctx.arg(1));
    0
}

/// Entry of the same.
#[kprobe]
pub fn kprobe_deliver_take(ctx: ProbeContext) -> u32 {
    let group = ctx.arg(0).unwrap_or(0);
    if slot_of(group).is_some() {
        let key = (bpf_get_current_pid_tgid() << 32) | TAKE;
        let _ = CALLS.insert(&key, &[group, 0, 0], 0);
    }
    0
}

/// Return of the same.
#[kretprobe]
pub fn kretprobe_deliver_take(ctx: RetProbeContext) -> u32 {
    let key = (bpf_get_current_pid_tgid() << 32) | TAKE;
    // SAFETY: the entry is this thread's own.
    let Some([group, ..]) = unsafe { CALLS.get(&key) }.copied() else { return 0 };
    let _ = CALLS.remove(&key);
    taken(group, ctx.ret());
    0
}

#[inline(always)]
fn taken(group: u64, event: u64) {
    let Some(slot) = slot_of(group) else { return };
    // A group that goes away empties its queue by the same function.
    let is_closing =
        off!(group_shutdown) != ABSENT && Probe::u16(group as *const u8, off!(group_shutdown)) & 0xff != 0;
    if event != 0 && !is_closing {
        emit_short(TAKEN, slot, group, Subject::event(event));
    }
}

/// `fsnotify_destroy_group(group)`.
#[fentry]
pub fn fentry_deliver_close(ctx: FEntryContext) -> u32 {
    closed(ctx.arg(0));
    0
}

/// See [`fentry_deliver_close`].
#[kprobe]
pub fn kprobe_deliver_close(ctx: ProbeContext) -> u32 {
    closed(ctx.arg(0).unwrap_or(0));
    0
}

#[inline(always)]
fn closed(group: u64) {
    let Some(slot) = slot_of(group) else { return };
    let _ = FOLLOWED.remove(&group);
    emit_short(CLOSED, slot, group, Subject::event(0));
}

/// The process set a watch.
#[inline(always)]
pub fn added(slot: u32, group: u64, wd: i32, mask: u32) {
    emit_short(ADDED, slot, group, Subject { event: 0, wd, mask });
}

/// What a short record is about; 0 where that is nothing.
struct Subject {
    event: u64,
    wd: i32,
    mask: u32,
}

impl Subject {
    const fn event(event: u64) -> Self {
        Self { event, wd: 0, mask: 0 }
    }
}

/// A record of the short kinds.
#[inline(always)]
fn emit_short(kind: u32, slot: u32, group: u64, subject: Subject) {
    let Some(mut entry) = RECORDS.reserve::<Offer>(0) else {
        count(Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the fields that are not set here are not read by userspace.
    unsafe {
        (*record).time = now();
        (*record).group = group;
        (*record).event = subject.event;
        (*record).kind = kind;
        (*record).slot = slot;
        (*record).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).tid = thread();
        (*record).wd = subject.wd;
        (*record).mask = subject.mask;
    }
    entry.submit(0);
}
