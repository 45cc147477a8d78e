//! Pages made dirty outside a writing system call: stores through shared mappings, on the tracepoint tier. Only
//! the first store to a page before it is written back is seen; on tmpfs none.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use hotr_common::hook::Hook;
use hotr_common::rules::RULE_CONTENT;

use crate::call::{Call, Known, TRACEPOINT};
use crate::change::{self, Target};
use crate::filter;
use crate::kernel::{Direct, Mem, Probe, task};
use crate::maps::{SYSCALLS, off};

const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;

/// `writeback_mark_inode_dirty(inode, flags)`.
#[btf_tracepoint]
pub fn mark_dirty(ctx: BtfTracePointContext) -> u32 {
    let inode: *const u8 = ctx.arg(0);
    let flags: u64 = ctx.arg(1);
    // Pages alone: with other bits it is a change of the inode itself, of everything or of its times. A fault makes
    // both calls, and is one change.
    let flags = flags as u32;
    if flags == 0 || flags & !off!(dirty_pages) != 0 {
        return 0;
    }
    if !filter::is_watched(Direct::ptr(inode, off!(inode_i_sb))) {
        return 0;
    }
    if Direct::u16(inode, off!(inode_i_mode)) & S_IFMT != S_IFREG || is_told_otherwise() {
        return 0;
    }
    let first = Direct::u64(inode, off!(inode_i_dentry));
    if first == 0 {
        return 0;
    }
    let dentry = first.wrapping_sub(u64::from(off!(dentry_d_alias))) as *const u8;
    let target = Target {
        dentry,
        inode: Probe::ptr(dentry, off!(dentry_d_inode)),
        file: core::ptr::null(),
        task: core::ptr::null(),
        flags: 0,
    };
    let call = Call {
        hook: Hook::Dirty,
        tier: TRACEPOINT,
        subject: core::ptr::null(),
        second: core::ptr::null(),
        known: Known::NOTHING,
        ret: core::ptr::null(),
    };
    change::file::<Probe>(&call, &target, 0, 0, 0);
    0
}

/// Whether the running system call reports this change itself, or a kernel thread finishes what another task's
/// call began.
#[inline(always)]
fn is_told_otherwise() -> bool {
    let task = task::current();
    if task::is_kthread(task) || task::is_io_worker(task) {
        return true;
    }
    if task::is_compat(task) {
        return false;
    }
    // An exception has no number: -1 is no index.
    SYSCALLS.get(task::syscall(task) as u32).is_some_and(|rule| rule.flags & RULE_CONTENT != 0)
}
