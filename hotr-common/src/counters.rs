//! Counters kept per CPU by the kernel programs.

/// `seen == submitted + coalesced + filtered + ring_full + oversize` holds at any quiet moment; `outside` is to be added
/// to both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Hook calls with a result on a watched superblock.
    pub seen: u64,
    /// Records given to the ring buffer.
    pub submitted: u64,
    /// Only counted in the storm map.
    pub coalesced: u64,
    /// Outside the watched trees, of a file without a name, of hotr itself, or an overlay's inner operation.
    pub filtered: u64,
    /// Lost: no room in the ring buffer.
    pub ring_full: u64,
    /// Lost: path longer than a record holds.
    pub oversize: u64,
    /// Outside the watched trees by a remembered verdict: both seen and filtered, and counted here alone, for this is
    /// what most calls are.
    pub outside: u64,
    /// 0: no two CPUs share a cache line.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Counters>() == 64);
