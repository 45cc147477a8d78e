//! Long paths are put together apart from the ring buffer: in memory that a global function can reach, for which the
//! verifier goes through a few levels, not through as many as a path may have.

use hotr_common::config::TryLock;
use hotr_common::record::{LARGE_PATHS, MAX_NAME};

use crate::event::Event;
use crate::filter;
use crate::globals::verifier_opaque;
use crate::kernel::number;
use crate::path::{self, OVERFLOW, Walk};
use crate::try_lock::{try_lock, unlock};

/// In a section of its own: userspace rewrites the map of `.bss` as a whole.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.drafts")]
// SAFETY: integers and arrays of integers only, for which zero is a value.
pub static mut DRAFTS: [Draft; DRAFT_COUNT as usize] = unsafe { core::mem::zeroed() };

/// Drafts of the machine: programs on functions may be preempted, or interrupted by others, while they write one. A power
/// of two.
pub const DRAFT_COUNT: u64 = 8;

/// The paths of a record to be.
#[repr(C)]
pub struct Draft {
    /// Who writes it.
    turn: TryLock,
    walk: Walk,
    paths: [u8; LARGE_PATHS],
    slack: [u8; MAX_NAME],
}

/// A draft that this program alone writes, by its number.
pub struct ClaimedDraft(u64);

/// Where the paths of a draft end, also as one number.
pub struct Ends {
    /// The first, or [`OVERFLOW`].
    pub path: u32,
    /// Both, or [`OVERFLOW`].
    pub all: u32,
}

impl Ends {
    #[inline(always)]
    pub const fn of(number: u64) -> Self {
        Self { path: number as u32, all: (number >> 32) as u32 }
    }

    #[inline(always)]
    const fn number(self) -> u64 {
        self.path as u64 | ((self.all as u64) << 32)
    }
}

/// Writes the path of an event, and for a rename the old path behind it; [`Ends`].
#[inline(never)]
pub fn write<const RENAME: bool>(taken: &ClaimedDraft, event: &Event) -> u64 {
    let path = taken.append(0, number(event.dentry), filter::root_of_slot(event.root));
    if !RENAME || path == OVERFLOW {
        return Ends { path, all: path }.number();
    }
    // SAFETY: the buffer has as many bytes, and MAX_NAME of slack.
    let end =
        unsafe { path::name::<LARGE_PATHS>((&raw mut (*draft(taken.0)).paths).cast(), path, event.old_name) };
    if end == OVERFLOW {
        return Ends { path, all: end }.number();
    }
    let all = taken.append(end, number(event.old_parent), filter::root_of_slot(event.old_root));
    Ends { path, all }.number()
}

#[inline(always)]
fn draft(number: u64) -> *mut Draft {
    // SAFETY: the number is below their count.
    unsafe { (&raw mut DRAFTS).cast::<Draft>().add((number % DRAFT_COUNT) as usize) }
}

impl ClaimedDraft {
    /// Takes one that nobody is writing; to be given back.
    #[inline(always)]
    pub fn any() -> Option<Self> {
        let mut number = 0;
        while number < DRAFT_COUNT {
            // SAFETY: the address of a field of a static.
            let turn = unsafe { &raw mut (*draft(number)).turn };
            if try_lock(turn) {
                return Some(Self(verifier_opaque(number)));
            }
            unlock(turn);
            number += 1;
        }
        None
    }

    #[inline(always)]
    pub fn give_back(self) {
        // SAFETY: as above.
        unlock(unsafe { &raw mut (*draft(self.0)).turn });
    }

    /// Its first byte.
    #[inline(always)]
    pub fn paths(&self) -> *const u8 {
        // SAFETY: as above.
        unsafe { (&raw const (*draft(self.0)).paths).cast() }
    }

    #[inline(always)]
    fn append(&self, start: u32, dentry: u64, root: u64) -> u32 {
        // SAFETY: nobody else uses the walk of a draft that is taken.
        unsafe {
            Walk::along(&raw mut (*draft(self.0)).walk, start, dentry, root, || hotr_draft_names(self.0))
        }
    }
}

/// See [`path::stride`]. A global function, see [`filter::hotr_directory`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hotr_draft_names(number: u64) -> u64 {
    let draft = draft(number);
    // SAFETY: the caller has taken the draft; its buffer has as many bytes, and MAX_NAME of slack.
    unsafe { path::stride::<LARGE_PATHS>(&raw mut (*draft).walk, (&raw mut (*draft).paths).cast()) }
}
