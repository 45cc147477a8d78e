//! Storms: the first change of a file is reported at once, the next ones are only counted, and one record per window
//! carries the totals. Totals never go back, so userspace can read the rest from the slot when a file is quiet.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use hotr_common::config::{MMAPABLE, STORMS, TryLock};
use hotr_common::config::{STORM_FREE, STORM_WAYS, Storm, storm_slot};

use crate::globals::{add, live, read};
use crate::try_lock::with_lock;

/// Files under continuous change; hotr reads and frees the slots in its own mapping of it.
#[map(name = "STORM_SLOTS")]
pub static STORM_SLOTS: Array<Storm> = Array::with_max_entries(STORMS, MMAPABLE);

/// Who takes a free slot of [`STORM_SLOTS`].
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.storm_turn")]
pub static mut STORM_TURN: TryLock = TryLock { entered: 0, left: 0 };

/// What to do with a change.
pub enum Decision {
    /// Report it, with these totals; `writes` is 0 when it was not counted and `bytes` are its own.
    Emit { writes: u64, bytes: u64, born: u64, slot: u32 },
    /// It was counted.
    Counted,
}

/// A change of this file, by this process in this way.
pub struct Key {
    /// Address of the inode.
    pub inode: u64,
    /// See [`hotr_common::config::storm_who`].
    pub who: u64,
    pub ino: u64,
    pub generation: u32,
}

/// Counts a change of `bytes`.
#[inline(always)]
pub fn count(key: &Key, bytes: u64) -> Decision {
    let uncounted = Decision::Emit { writes: 0, bytes, born: 0, slot: 0 };
    let window = live!(window);
    if window == 0 {
        return uncounted;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let first = storm_slot(key.ino, key.who);
    let mut free = None;
    let mut way = 0;
    while way < STORM_WAYS {
        let number = first | way;
        let Some(slot) = STORM_SLOTS.get_ptr_mut(number) else { return uncounted };
        // SAFETY: map memory, alive as long as the program; words are read whole.
        let inode = unsafe { read(&raw const (*slot).inode) };
        if inode == key.inode
            && let Some(decision) = enter(slot, key, number, now, bytes)
        {
            return decision;
        }
        if inode == STORM_FREE && free.is_none() {
            free = Some((slot, number));
        }
        way += 1;
    }
    match free {
        Some((slot, number)) => take(slot, key, number, bytes).unwrap_or(uncounted),
        None => uncounted,
    }
}

/// Whether a slot is this storm's, and open.
#[inline(always)]
fn is_ours(slot: *mut Storm, key: &Key) -> bool {
    // SAFETY: as in `count`.
    unsafe {
        read(&raw const (*slot).inode) == key.inode
            && read(&raw const (*slot).who) == key.who
            && read(&raw const (*slot).ino) == key.ino
            && read(&raw const (*slot).generation) == key.generation
    }
}

/// Counts in a storm's slot; `None` when it is another's, or userspace has closed it.
///
/// Userspace closes a slot and then looks whether somebody is busy; here it is the other way round. So one sees the other.
#[inline(always)]
fn enter(slot: *mut Storm, key: &Key, number: u32, now: u64, bytes: u64) -> Option<Decision> {
    let window = live!(window);
    // SAFETY: as in `count`; words that programs add to at the same time are added to atomically.
    unsafe {
        add(&raw mut (*slot).busy, 1);
        let mut decision = None;
        if is_ours(slot, key) {
            add(&raw mut (*slot).writes, 1);
            add(&raw mut (*slot).bytes, bytes);
            (&raw mut (*slot).last).write_volatile(now);
            decision = Some(Decision::Counted);
            if now.wrapping_sub(read(&raw const (*slot).start)) >= window {
                (&raw mut (*slot).start).write_volatile(now);
                decision = Some(Decision::Emit {
                    writes: read(&raw const (*slot).writes),
                    bytes: read(&raw const (*slot).bytes),
                    born: read(&raw const (*slot).born),
                    slot: number,
                });
            }
        }
        add(&raw mut (*slot).busy, u64::MAX);
        decision
    }
}

/// Takes a free slot for a new storm with its first change.
#[inline(always)]
fn take(slot: *mut Storm, key: &Key, number: u32, bytes: u64) -> Option<Decision> {
    let mut taken = None;
    with_lock(&raw mut STORM_TURN, || {
        // SAFETY: as in `count`; a free slot is written by nobody else, and found by nobody before its inode is there.
        // The helper has no arguments; it is called once more, so that a later storm of this slot is born later.
        unsafe {
            if read(&raw const (*slot).inode) == STORM_FREE {
                let born = bpf_ktime_get_ns();
                (&raw mut (*slot).who).write_volatile(key.who);
                (&raw mut (*slot).ino).write_volatile(key.ino);
                (&raw mut (*slot).generation).write_volatile(key.generation);
                (&raw mut (*slot).born).write_volatile(born);
                (&raw mut (*slot).start).write_volatile(born);
                (&raw mut (*slot).last).write_volatile(born);
                (&raw mut (*slot).writes).write_volatile(1);
                (&raw mut (*slot).bytes).write_volatile(bytes);
                (&raw mut (*slot).inode).write_volatile(key.inode);
                taken = Some(Decision::Emit { writes: 1, bytes, born, slot: number });
            }
        }
    });
    taken
}
