//! Reads a storm's totals for userspace.
//!
//! A `bpf(BPF_MAP_LOOKUP_ELEM)` by hotr would do as well, were it not that the kernel skips kprobe programs on a CPU
//! while such a call is under way there (kernel/bpf/syscall.c `bpf_disable_instrumentation`), and that it may be
//! preempted in the middle: changes made meanwhile would not be seen. A test run of this program stops nobody.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use hotr_common::config::{ASK_FORGET, ASK_READ, StormKey};

use crate::maps::{ANSWER, STORM_MAP};

/// Arguments: inode, thread group id, hook, [`ASK_READ`] or [`ASK_FORGET`]. Run by hotr, attached to nothing.
/// Returns 1 when there is such a storm; after a read its totals are in [`ANSWER`].
#[raw_tracepoint]
pub fn ask(ctx: RawTracePointContext) -> u32 {
    let key = StormKey { inode: ctx.arg(0), pid: ctx.arg(1), hook: ctx.arg(2) };
    match ctx.arg::<u64>(3) {
        ASK_READ => {
            // SAFETY: the value lives until the program ends; its words are read one by one.
            let (Some(storm), Some(answer)) = (unsafe { STORM_MAP.get(&key) }, ANSWER.get_ptr_mut(0)) else {
                return 0;
            };
            // SAFETY: only this program writes the answer, and hotr runs it one call at a time.
            unsafe { *answer = *storm };
            1
        }
        ASK_FORGET => u32::from(STORM_MAP.remove(&key).is_ok()),
        _ => 0,
    }
}
