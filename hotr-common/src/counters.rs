//! Counters kept per CPU by the kernel programs.
//!
//! `seen == submitted + coalesced + filtered + ring_full + oversize` holds at any quiet moment. The calls that are most
//! are counted once, in [`Frequent`]: add `outside` to `seen` and `filtered`, `coalesced` to `seen`.

/// What userspace asks for while changes come, and what is rare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Hook calls with a result on a watched superblock, but for those in [`Frequent`].
    pub seen: u64,
    /// Records given to the ring buffer.
    pub submitted: u64,
    /// Outside the watched trees, of a file without a name, of hotr itself, or an overlay's inner operation.
    pub filtered: u64,
    /// Lost: no room in the ring buffer.
    pub ring_full: u64,
    /// Lost: path longer than a record holds, or more requests in a call than hotr reads.
    pub oversize: u64,
    /// 0: no two CPUs share a cache line.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<Counters>() == 64);

/// What the programs count most often, where they need no map function for it. CPUs whose numbers are the same modulo
/// [`FREQUENT_CELLS`] share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Frequent {
    /// Outside the watched trees by a remembered verdict.
    pub outside: u64,
    /// Only counted, in a storm.
    pub coalesced: u64,
    /// 0: no two CPUs share a cache line.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Frequent>() == 64);

/// A power of two.
pub const FREQUENT_CELLS: usize = 256;
