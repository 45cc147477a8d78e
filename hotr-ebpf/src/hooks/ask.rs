//! Reads a storm's totals for userspace.
//!
//! A `bpf(BPF_MAP_LOOKUP_ELEM)` by hotr would do as well, were it not that the kernel skips kprobe programs on a CPU
//! while such a call is under way there (kernel/bpf/syscall.c `bpf_disable_instrumentation`), and that it may be
//! preempted in the middle: changes made meanwhile would not be seen. A test run of this program stops nobody.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use hotr_common::config::{ASK_FORGET, ASK_READ, StormKey};

use crate::maps::{ANSWER, STORM_MAP};

/// Arguments: inode, thread group id, hook, [`ASK_READ`] or [`ASK_FORGET`]. Run by hotr, attached to nothing. After a
/// read the totals are in [`ANSWER`]; `born` is 0 there when there is no such storm.
#[raw_tracepoint]
pub fn ask(ctx: RawTracePointContext) -> u32 {
    let key = StormKey { inode: ctx.arg(0), pid: ctx.arg(1), hook: ctx.arg(2) };
    match ctx.arg::<u64>(3) {
        ASK_READ => {
            let Some(answer) = ANSWER.get_ptr_mut(0) else { return 0 };
            // SAFETY: only this program writes the answer, and hotr runs it one call at a time; the storm's entry
            // lives until the program ends, and its words are written whole.
            unsafe {
                match STORM_MAP.get(&key) {
                    Some(storm) => *answer = *storm,
                    None => (*answer).born = 0,
                }
            }
        }
        // Gone already is what was wanted.
        ASK_FORGET => drop(STORM_MAP.remove(&key)),
        _ => {}
    }
    0
}
