//! The ring buffer for userspace.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};

/// Records for userspace. The size is set by the loader.
#[map(name = "RECORDS")]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// When records were submitted on this CPU without waking userspace: one more than a place in the ring buffer that is
/// not behind the first of them.
#[map(name = "WAKE_DUE")]
pub static WAKE_DUE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
