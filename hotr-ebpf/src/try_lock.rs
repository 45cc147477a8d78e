//! A lock that nobody waits for, of counters only: the oldest verifier knows no atomic exchange.

use hotr_common::config::TryLock;

use crate::globals::{add, read};

/// Runs `work` when nobody else is inside.
///
/// Try-lock: the caller that reads `left` and then `entered` owns it if they differ by one after its own increment; a
/// later caller finds two. This needs loads and stores in the order they are written, which the only supported
/// architecture keeps.
#[inline(always)]
pub fn with_lock(turn: *mut TryLock, work: impl FnOnce()) {
    if try_lock(turn) {
        work();
    }
    unlock(turn);
}

/// Enters; whether nobody else is inside. Either way [`unlock`] must follow.
#[inline(always)]
pub fn try_lock(turn: *mut TryLock) -> bool {
    // SAFETY: callers pass one of the statics above; words are read whole.
    unsafe {
        add(&raw mut (*turn).entered, 1);
        let left = read(&raw const (*turn).left);
        read(&raw const (*turn).entered).wrapping_sub(left) == 1
    }
}

/// See [`try_lock`].
#[inline(always)]
pub fn unlock(turn: *mut TryLock) {
    // SAFETY: as in `try_lock`.
    unsafe { add(&raw mut (*turn).left, 1) };
}
