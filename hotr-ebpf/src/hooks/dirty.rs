//! Pages made dirty outside a writing system call: stores through shared mappings, on the tracepoint tier. Only
//! the first store to a page before it is written back is seen; on tmpfs none.
//!
//! A task that dumps its core or ends runs no code of its user any more: pages that become dirty there are written by the
//! kernel, whichever system call or fault the task came from.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::BtfTracePointContext;
use hotr_common::hook::Hook;
use hotr_common::record::DIRTY_BY_KERNEL;
use hotr_common::rules::{RULE_CONTENT, RULE_KERNEL_WRITES};
use hotr_common::uapi::file::S_IFREG;

use crate::call::{Call, Known, Second, TRACEPOINT};
use crate::change::{self, Target};
use crate::filter;
use crate::globals::off;
use crate::hooks::sys_exit::SYSCALLS;
use crate::kernel::{Direct, Mem, Probe, S_IFMT, number, task};

/// The last store through a mapping that was reported for a thread, by its id.
#[map(name = "TOLD_FAULTS")]
pub static TOLD_FAULTS: LruHashMap<u32, ReportedFault> = LruHashMap::with_max_entries(1024, 0);

/// Declares a program and its copies: see [`is_first`].
macro_rules! dirty_program {
    ($($copy:literal => $name:ident),+) => {$(
        /// `writeback_mark_inode_dirty(inode, flags)`.
        #[btf_tracepoint]
        pub fn $name(ctx: BtfTracePointContext) -> u32 {
            dirtied::<$copy>(ctx.arg(0), ctx.arg(1));
            0
        }
    )+};
}

dirty_program! { 1 => mark_dirty, 2 => mark_dirty_2, 3 => mark_dirty_3 }

#[inline(always)]
fn dirtied<const COPY: u32>(inode: *const u8, flags: u64) {
    // Pages alone: with other bits it is a change of the inode itself, of everything or of its times. A fault makes
    // both calls, and is one change.
    let flags = flags as u32;
    if flags == 0 || flags & !off!(dirty_pages) != 0 {
        return;
    }
    if !filter::is_watched(Direct::ptr(inode, off!(inode_i_sb))) {
        return;
    }
    if Direct::u16(inode, off!(inode_i_mode)) & S_IFMT != S_IFREG {
        return;
    }
    let Some(class) = class_of_change() else { return };
    let first = Direct::u64(inode, off!(inode_i_dentry));
    if first == 0 || !is_first::<COPY>(inode) {
        return;
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
        second: Second::Is(core::ptr::null()),
        known: Known::NOTHING,
        ret: core::ptr::null(),
    };
    change::file::<Probe>(&call, &target, class, 0, 0);
}

/// Who stored: 0 for the program that runs, or [`DIRTY_BY_KERNEL`]. `None` when the running system call reports this change
/// itself, or a kernel thread finishes what another task's call began.
#[inline(always)]
fn class_of_change() -> Option<u32> {
    let task = task::current();
    if task::is_ending(task) {
        return Some(DIRTY_BY_KERNEL);
    }
    if task::is_kthread(task) || task::is_io_worker(task) {
        return None;
    }
    // An exception has no number: -1 is no index.
    let flags = SYSCALLS.get(task::syscall(task) as u32).map_or(0, |rule| rule.flags);
    if flags & RULE_CONTENT != 0 {
        return None;
    }
    Some(if flags & RULE_KERNEL_WRITES != 0 { DIRTY_BY_KERNEL } else { 0 })
}

/// The last reported fault of a thread, and which copy of the program reported it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ReportedFault {
    inode: u64,
    fault: u64,
    copy: u64,
}

/// Whether no earlier copy has reported this change; marks it as reported.
///
/// Kernels that let a task be preempted inside a program skip that one program for every other task of the CPU
/// meanwhile. So there are copies, called one after the other, and the first that is not skipped reports the change.
/// Two calls are about one change when the thread's faults, which are counted at their end, are as many, the inode is
/// the same and the earlier call was by an earlier copy.
#[inline(always)]
fn is_first<const COPY: u32>(inode: *const u8) -> bool {
    let task = task::current();
    let fault = Probe::u64(task, off!(task_min_flt)).wrapping_add(Probe::u64(task, off!(task_maj_flt)));
    let told = ReportedFault { inode: number(inode), fault, copy: u64::from(COPY) };
    let thread = bpf_get_current_pid_tgid() as u32;
    if COPY > 1 {
        // SAFETY: the entry is this thread's own.
        let known = unsafe { TOLD_FAULTS.get(&thread) };
        if known.is_some_and(|last| last.inode == told.inode && last.fault == fault && last.copy < told.copy)
        {
            return false;
        }
    }
    let _ = TOLD_FAULTS.insert(&thread, &told, 0);
    true
}
