//! Returns the files of a directory to hotr's poller, from what the kernel has in memory: their inodes, through the
//! list of the directory's names in the dentry cache. Never attached; hotr runs it with `BPF_PROG_TEST_RUN`, which
//! takes the place of as many system calls as there are files.
//!
//! The list is walked without its lock, in an RCU read side (net/bpf/test_run.c `__bpf_prog_test_run_raw_tp`). What
//! appears or disappears in the meantime may be missed or returned in its former state. But such a name changes its
//! directory's times, and then the poller does not use the answer.

use aya_ebpf::macros::map;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::RawTracePointContext;
use hotr_common::children::Children;
use hotr_common::children::{AT_A_TIME, Child};
use hotr_common::config::MMAPABLE;

use crate::globals::off;
use crate::kernel::{DentryFields, Layout, Mem, Probe, task};

/// Answers to the poller, one entry for each of its threads. The loader sets how many there are.
#[map(name = "CHILDREN")]
pub static CHILDREN: Array<Children> = Array::with_max_entries(1, MMAPABLE);

/// In: a descriptor of the directory, the entry of [`CHILDREN`] for the answer, and 0 or where to continue. Out: the
/// entry.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn read_children(ctx: RawTracePointContext) -> u32 {
    let (descriptor, entry, begin) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2));
    let Some(answer) = CHILDREN.get_ptr_mut(entry as u32) else { return 0 };
    // SAFETY: a map value that only the caller's run of this program writes, and the caller reads afterwards.
    let answer = unsafe { &mut *answer };
    let file = task::file(task::current(), descriptor as u32);
    let dir = Probe::u64(file, off!(file_dentry));
    let head = dir.wrapping_add(u64::from(off!(dentry_children)));
    let mut at = if begin == 0 && dir != 0 { Probe::u64(head as *const u8, 0) } else { begin };
    let layout = Layout::of_kernel();
    let mut told = 0;
    // Where the list is not a circle it ends with NULL.
    while told < AT_A_TIME && at != head && at != 0 {
        let dentry = DentryFields::read(at.wrapping_sub(u64::from(off!(dentry_sibling))), layout);
        if dentry.parent != dir {
            // It was taken out of the list, or freed.
            at = 0;
            break;
        }
        answer.files[told] = child(dentry.inode as *const u8);
        told += 1;
        at = Probe::u64(at as *const u8, 0);
    }
    answer.next = if at == head { 0 } else { at };
    answer.told = told as u64;
    0
}

#[inline(always)]
fn child(inode: *const u8) -> Child {
    Child {
        ino: Probe::u64(inode, off!(inode_i_ino)),
        mtime: Probe::u64(inode, off!(inode_mtime)).cast_signed(),
        ctime: Probe::u64(inode, off!(inode_ctime)).cast_signed(),
        mtime_nsec: Probe::u32(inode, off!(inode_mtime_nsec)),
        ctime_nsec: Probe::u32(inode, off!(inode_ctime_nsec)),
        generation: Probe::u32(inode, off!(inode_i_generation)),
        mode: u32::from(Probe::u16(inode, off!(inode_i_mode))),
    }
}
