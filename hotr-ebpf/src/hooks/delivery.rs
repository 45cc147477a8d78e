//! Delivery to the inotify instances of other processes, for `hotr diagnose`: each event that the kernel offers to one
//! that is followed, with what its queue said, and each that its program takes. Attached while a diagnosis runs, in an
//! object of its own, whose ring buffer holds these records and no others.
//!
//! The record of an event is sent before it is queued, since from then on the reader may free it; another one follows if it
//! is not queued after all. What only `inotify_handle_inode_event` has is noted there, and used when the event is queued.

use core::marker::PhantomData;

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use hotr_common::delivery::{
    ADDED, CLOSED, EVENT_HEAD, FIRST_GROUPS, FirstGroups, NO_MEMORY, NamedOffer, OFFERED, Offer, QUEUED,
    REFUSED, SHORT_NAME, TAKEN,
};
use hotr_common::record::MAX_NAME;
use hotr_common::uapi::inotify::Q_OVERFLOW;

use crate::counters::{Count, count};
use crate::globals::{off, read, verifier_opaque};
use crate::kernel::{Direct, Mem, Probe};
use crate::records::RECORDS;

/// The first groups that are followed: a word is compared in a few instructions, and most diagnoses follow no more.
/// In a section of its own: userspace rewrites the map of `.bss` as a whole; no map function is needed to read it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.followed")]
// SAFETY: integers only, for which zero is a value.
pub static mut FIRST_FOLLOWED: FirstGroups = unsafe { core::mem::zeroed() };

/// Address of each other `fsnotify_group` → its slot. A diagnosis gives this map its size.
#[map(name = "FOLLOWED")]
pub static FOLLOWED: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// What is known of an event before it exists. Threads share the entries by their number: an entry that another thread
/// took before it was used is a loss, and counted. A diagnosis gives this map [`NOTES`](hotr_common::delivery::NOTES) entries.
#[map(name = "NOTES")]
static NOTES: Array<Note> = Array::with_max_entries(1, 0);

/// See [`NOTES`].
#[repr(C)]
struct Note {
    group: u64,
    noted: Noted,
    /// Address of the event, and when it was offered.
    event: u64,
    time: u64,
    state: u32,
    reserved: u32,
}

/// What was noted; used as a copy that its check has shown to be whole.
#[derive(Clone, Copy)]
#[repr(C)]
struct Noted {
    ino: u64,
    thread: u32,
    slot: u32,
    dev: u32,
    mask: u32,
    name_len: u32,
    /// See [`Self::sum`].
    check: u32,
}

/// [`Note::state`]: the event is about to be made.
const AWAITED: u32 = 1;
/// It is being queued.
const OFFERING: u32 = 2;

impl Noted {
    /// Shows that two threads have not written into the entry at once.
    #[inline(always)]
    fn sum(&self) -> u32 {
        let file = self.ino as u32 ^ (self.ino >> 32) as u32 ^ self.dev;
        file ^ self.thread ^ self.slot ^ self.mask ^ self.name_len
    }

    #[inline(always)]
    fn is_whole(&self, thread: u32) -> bool {
        self.thread == thread && self.check == self.sum()
    }
}

/// `inotify_handle_inode_event(mark, mask, inode, dir, name, cookie)`.
#[fentry]
pub fn fentry_deliver(ctx: FEntryContext) -> u32 {
    begin(PhantomData::<Direct>, ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg(2), ctx.arg(4));
    0
}

/// See [`fentry_deliver`].
#[kprobe]
pub fn kprobe_deliver(ctx: ProbeContext) -> u32 {
    let word = |n| ctx.arg::<u64>(n).unwrap_or(0);
    let pointer = |n| word(n) as *const u8;
    begin(PhantomData::<Probe>, pointer(0), word(1) as u32, pointer(2), pointer(4));
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

/// The slot of a group that is followed. The address may be a pointer of known type, with which no more than a
/// comparison is allowed.
#[inline(always)]
pub fn slot_of(group: u64) -> Option<u32> {
    let mut n = 0;
    while n < FIRST_GROUPS {
        // SAFETY: words of a static, read whole.
        unsafe {
            if read(&raw const FIRST_FOLLOWED.groups[n]) == group {
                return Some(read(&raw const FIRST_FOLLOWED.slots[n]));
            }
        }
        n += 1;
    }
    // SAFETY: as above.
    if unsafe { read(&raw const FIRST_FOLLOWED.has_more) } == 0 {
        return None;
    }
    // SAFETY: a number, copied at once.
    unsafe { FOLLOWED.get(&group) }.copied()
}

#[inline(always)]
fn note_of(thread: u32) -> Option<*mut Note> {
    NOTES.get_ptr_mut(thread & (hotr_common::delivery::NOTES - 1))
}

#[inline(always)]
fn begin<M: Mem>(_: PhantomData<M>, mark: *const u8, mask: u32, inode: *const u8, name: *const u8) {
    let group = M::u64(mark, off!(mark_group));
    let Some(slot) = slot_of(group) else { return };
    let thread = thread();
    let Some(note) = note_of(thread) else { return };
    let (mut ino, mut dev, mut name_len) = (0, 0, 0);
    if !inode.is_null() {
        ino = M::u64(inode, off!(inode_i_ino));
        dev = M::u32(M::ptr(inode, off!(inode_i_sb)), off!(super_block_s_dev));
    }
    if !name.is_null() {
        // A `qstr`, whose first member is the hash.
        name_len = M::u32(name, off!(dentry_d_name_len) - off!(dentry_d_name_hash));
    }
    let mut noted = Noted { ino, thread, slot, dev, mask, name_len, check: 0 };
    noted.check = noted.sum();
    // SAFETY: memory of the map. Another thread's entry is recognised by its check, and that thread's loss is counted.
    unsafe {
        if (*note).state == AWAITED && (*note).noted.thread != thread {
            count(Count::RingFull);
        }
        (*note).group = group;
        (*note).noted = noted;
        (&raw mut (*note).state).write_volatile(AWAITED);
    }
}

/// Entry of `fsnotify_insert_event(group, event, merge, insert)`.
#[fentry]
pub fn fentry_deliver_insert(ctx: FEntryContext) -> u32 {
    offered(PhantomData::<Direct>, ctx.arg(0), ctx.arg(1));
    0
}

/// Exit of the same.
#[fexit]
pub fn fexit_deliver_insert(ctx: FExitContext) -> u32 {
    refused(ctx.arg::<u64>(4) as i32);
    0
}

/// Entry of the same.
#[kprobe]
pub fn kprobe_deliver_insert(ctx: ProbeContext) -> u32 {
    let pointer = |n| ctx.arg::<u64>(n).unwrap_or(0) as *const u8;
    offered(PhantomData::<Probe>, pointer(0), pointer(1));
    0
}

/// Return of the same.
#[kretprobe]
pub fn kretprobe_deliver_insert(ctx: RetProbeContext) -> u32 {
    refused(ctx.ret::<u64>() as i32);
    0
}

#[inline(always)]
fn offered<M: Mem>(_: PhantomData<M>, group: *const u8, event: *const u8) {
    let thread = thread();
    let Some(note) = note_of(thread) else { return };
    // SAFETY: memory of the map; what another thread writes meanwhile shows in the check.
    unsafe {
        let noted = (&raw const (*note).noted).read();
        if (*note).state != AWAITED || (*note).group != group as u64 || !noted.is_whole(thread) {
            if noted.thread == thread {
                (*note).state = 0;
            }
            if slot_of(group as u64).is_some() {
                // Another thread took the entry.
                count(Count::RingFull);
            }
            return;
        }
        let time = now();
        (*note).event = event as u64;
        (*note).time = time;
        (*note).state = OFFERING;
        if noted.name_len < SHORT_NAME as u32 {
            emit_offer::<M, SHORT_NAME>(group, event, &noted, time);
        } else {
            emit_offer::<M, MAX_NAME>(group, event, &noted, time);
        }
    }
}

/// Sends what is offered, before it is queued: from then on the reader may free it.
#[inline(always)]
fn emit_offer<M: Mem, const ROOM: usize>(group: *const u8, event: *const u8, noted: &Noted, time: u64) {
    let Some(mut entry) = RECORDS.reserve::<NamedOffer<ROOM>>(0) else {
        count(Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the name is bounded by its room, and userspace reads no further than its length.
    let flags = unsafe {
        let head = &raw mut (*record).head;
        let place = place_of(head);
        (*head).time = time;
        (*head).event = event as u64;
        (*head).ino = noted.ino;
        (*head).kind = OFFERED;
        (*head).slot = noted.slot;
        (*head).tid = noted.thread;
        (*head).dev = noted.dev;
        (*head).result = QUEUED;
        (*head).queued = M::u32(group, off!(group_q_len));
        (*head).limit = M::u32(group, off!(group_max_events));
        // The compiler would leave out a mask that changes nothing, which the verifier of older kernels needs to see.
        let name_len = verifier_opaque(u64::from(noted.name_len)) as u32 & (ROOM as u32 - 1);
        let length = EVENT_HEAD as u32 + name_len + 1;
        bpf_probe_read_kernel(
            (&raw mut (*head).mask).cast(),
            length,
            event.wrapping_add(off!(inotify_event) as usize).cast(),
        );
        if (*head).mask & Q_OVERFLOW != 0 {
            (*head).result = NO_MEMORY;
            (*head).mask = noted.mask;
            (*head).name_len = 0;
        }
        wakeup::<NamedOffer<ROOM>>(place)
    };
    entry.submit(flags);
}

/// The address of a record as a number: what the kernel gave a program is a pointer to it until it was stored.
///
/// # Safety
/// It is reserved, and not yet written.
#[inline(always)]
unsafe fn place_of(record: *mut Offer) -> u64 {
    // SAFETY: as required; the time is written afterwards.
    unsafe {
        (*record).time = record as u64;
        (&raw const (*record).time).read_volatile()
    }
}

/// How a record at this address is submitted. Userspace looks whenever it gets a change, and a few times a second besides:
/// it is woken only so often that the ring buffer never fills up meanwhile.
#[inline(always)]
fn wakeup<T>(place: u64) -> u64 {
    const EVERY: u64 = 256 << 10;
    let is_first = place & (EVERY - 1) < size_of::<T>() as u64 + 16;
    u64::from(if is_first { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// What was offered last by this thread was not queued.
#[inline(always)]
fn refused(result: i32) {
    if result == 0 {
        return;
    }
    let thread = thread();
    let Some(note) = note_of(thread) else { return };
    // SAFETY: memory of the map; the record is of this size.
    unsafe {
        let noted = (&raw const (*note).noted).read();
        if (*note).state != OFFERING || !noted.is_whole(thread) {
            if noted.thread != thread && noted.thread != 0 {
                // Another thread may have taken the entry.
                count(Count::RingFull);
            }
            return;
        }
        (*note).state = 0;
        let Some(mut entry) = RECORDS.reserve::<Offer>(0) else {
            count(Count::RingFull);
            return;
        };
        let record = entry.as_mut_ptr();
        let (group, event) = ((*note).group as *const u8, (*note).event as *const u8);
        (*record).time = (*note).time;
        (*record).event = (*note).event;
        (*record).ino = noted.ino;
        (*record).kind = REFUSED;
        (*record).slot = noted.slot;
        (*record).tid = thread;
        (*record).dev = noted.dev;
        (*record).result = result;
        (*record).queued = Probe::u32(group, off!(group_q_len));
        (*record).limit = Probe::u32(group, off!(group_max_events));
        (*record).mask = noted.mask;
        // The second of the event's members; it is freed after this.
        (*record).wd = Probe::u32(event, off!(inotify_event) + 4) as i32;
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
}

/// `fsnotify_remove_first_event(group)`. Its callers hold the lock of the queue: the first event now is the one that it
/// will return. An entry costs the reader less than an exit, of which the kernel also has to keep track.
#[fentry]
pub fn fentry_deliver_take(ctx: FEntryContext) -> u32 {
    taken::<Direct>(ctx.arg(0));
    0
}

/// See [`fentry_deliver_take`].
#[kprobe]
pub fn kprobe_deliver_take(ctx: ProbeContext) -> u32 {
    taken::<Probe>(ctx.arg::<u64>(0).unwrap_or(0) as *const u8);
    0
}

#[inline(always)]
fn taken<M: Mem>(group: *const u8) {
    let Some(slot) = slot_of(group as u64) else { return };
    // A group that goes away empties its queue by the same function.
    if M::u8(group, off!(group_shutdown)) != 0 {
        return;
    }
    // Of an empty queue, for which no kernel so far calls the function, this is an address within the group: no event's.
    let event = M::u64(group, off!(group_unread));
    let Some(mut entry) = RECORDS.reserve::<Offer>(0) else {
        count(Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the fields that are not set here are not read by userspace.
    let place = unsafe {
        (*record).event = event;
        (*record).kind = TAKEN;
        (*record).slot = slot;
        let place = place_of(record);
        (*record).time = now();
        place
    };
    entry.submit(wakeup::<Offer>(place));
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
    leave(group);
    emit_short(CLOSED, slot, BPF_RB_FORCE_WAKEUP, 0, 0);
}

/// Follows a group. Only one program run at a time calls this or [`leave`] for userspace.
pub fn follow(group: u64, slot: u32) -> bool {
    let first = &raw mut FIRST_FOLLOWED;
    // SAFETY: words of a static. The slot is there before the group, and a place is used once: whoever finds the group finds
    // its slot.
    unsafe {
        let used = (*first).used;
        if used < FIRST_GROUPS as u64 {
            let n = used as usize & (FIRST_GROUPS - 1);
            (&raw mut (*first).slots[n]).write_volatile(slot);
            (&raw mut (*first).groups[n]).write_volatile(group);
            (*first).used = used + 1;
            return true;
        }
        if FOLLOWED.insert(&group, &slot, 0).is_err() {
            return false;
        }
        (&raw mut (*first).has_more).write_volatile(1);
    }
    true
}

/// Follows it no longer; `true` also if it was not followed.
pub fn leave(group: u64) -> bool {
    let first = &raw mut FIRST_FOLLOWED;
    let mut n = 0;
    while n < FIRST_GROUPS {
        // SAFETY: a static; a word is written whole.
        unsafe {
            let place = &raw mut (*first).groups[n];
            if place.read_volatile() == group {
                place.write_volatile(0);
                return true;
            }
        }
        n += 1;
    }
    FOLLOWED.remove(&group).is_ok() || FOLLOWED.get_ptr(&group).is_none()
}

/// The process set a watch.
#[inline(always)]
pub fn added(slot: u32, wd: i32, mask: u32) {
    emit_short(ADDED, slot, 0, wd, mask);
}

/// A record of what is not an event.
#[inline(always)]
fn emit_short(kind: u32, slot: u32, wakeup: u32, wd: i32, mask: u32) {
    let Some(mut entry) = RECORDS.reserve::<Offer>(0) else {
        count(Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the fields that are not set here are not read by userspace.
    unsafe {
        (*record).time = now();
        (*record).kind = kind;
        (*record).slot = slot;
        (*record).wd = wd;
        (*record).mask = mask;
    }
    entry.submit(u64::from(wakeup));
}
