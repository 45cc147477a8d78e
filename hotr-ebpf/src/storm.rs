//! Storms: the first change of a file is told at once, the next ones are only counted, and one record a window
//! carries the totals. Totals never go back, so userspace can read the rest from the map when a file is quiet.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use hotr_common::config::{Storm, StormKey};

use crate::maps::{STORM_MAP, add, live};

/// What to do with a change.
pub enum Decision {
    /// Tell it, with these totals; `writes` is 0 when it was not counted and `bytes` are its own.
    Emit { writes: u64, bytes: u64, born: u64 },
    /// It was counted.
    Counted,
}

/// Counts a change of `bytes` on the key.
#[inline(always)]
pub fn count(key: &StormKey, ino: u64, generation: u32, bytes: u64) -> Decision {
    if live!(window) == 0 {
        return Decision::Emit { writes: 0, bytes, born: 0 };
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(storm) = STORM_MAP.get_ptr_mut(key) {
        // SAFETY: the pointer is to a map value, alive until the program ends; words are read and written whole.
        unsafe {
            if (*storm).ino == ino && (*storm).generation == generation {
                add(&raw mut (*storm).writes, 1);
                add(&raw mut (*storm).bytes, bytes);
                (*storm).last = now;
                if now.wrapping_sub((*storm).start) < live!(window) {
                    return Decision::Counted;
                }
                (*storm).start = now;
                return Decision::Emit {
                    writes: (*storm).writes,
                    bytes: (*storm).bytes,
                    born: (*storm).born,
                };
            }
        }
    }
    let storm = Storm { ino, born: now, start: now, last: now, writes: 1, bytes, generation, reserved: 0 };
    match STORM_MAP.insert(key, &storm, 0) {
        Ok(()) => Decision::Emit { writes: 1, bytes, born: now },
        Err(_) => Decision::Emit { writes: 0, bytes, born: 0 },
    }
}
