//! What became of the calls of the kernel programs, in numbers.

use serde::{Deserialize, Serialize};

/// Totals of the kernel side; `seen == submitted + coalesced + filtered + ring_full + oversize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelTotals {
    /// Hook calls on a watched superblock.
    pub seen: u64,
    /// Records handed to userspace.
    pub submitted: u64,
    /// Counted in the kernel, and reported by a later record's totals.
    pub coalesced: u64,
    /// Outside the watched trees, or an inner operation of a watched overlay.
    pub filtered: u64,
    /// Lost: the ring buffer was full.
    pub ring_full: u64,
    /// Lost: the path was longer than a record can hold.
    pub oversize: u64,
    /// Programs the kernel did not run because one of ours was already running on that CPU.
    pub recursion_misses: u64,
}

impl KernelTotals {
    /// Whether it is known of each hook call what came of it.
    #[must_use]
    pub const fn add_up(&self) -> bool {
        let Self { seen, submitted, coalesced, filtered, ring_full, oversize, recursion_misses: _ } = *self;
        seen == submitted + coalesced + filtered + ring_full + oversize
    }
}
