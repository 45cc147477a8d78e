//! Which file a removing system call removes: every filesystem sets the change time of a file that loses a name,
//! and kernels from 6.13 on have tracepoints there. Without them the name is all that is known of it.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use hotr_common::rules::RULE_REMOVES;

use crate::filter;
use crate::globals::{live, off};
use crate::hooks::Victim;
use crate::hooks::names::CALL_VICTIMS;
use crate::hooks::sys_exit::SYSCALLS;
use crate::kernel::{Direct, Mem, S_IFDIR, S_IFMT, task};

/// Declares a program and its copies. A copy is for kernels that let a task be preempted inside a program, and skip
/// that one program for others meanwhile: to remember a file twice does no harm.
macro_rules! touch_program {
    (#[$doc:meta] $($name:ident),+) => {$(
        #[$doc]
        #[btf_tracepoint]
        pub fn $name(ctx: BtfTracePointContext) -> u32 {
            touched(ctx.arg(0));
            0
        }
    )+};
}

touch_program! {
    /// `ctime_ns_xchg(inode, …)`: a new time of fine grain.
    ctime_xchg, ctime_xchg_2, ctime_xchg_3
}
touch_program! {
    /// `ctime_xchg_skip(inode, …)`: the time it has already.
    ctime_skip, ctime_skip_2, ctime_skip_3
}
touch_program! {
    /// `inode_set_ctime_to_ts(inode, …)`: filesystems with coarse times.
    ctime_set, ctime_set_2, ctime_set_3
}

/// Remembers the file for the exit of the task's call. The directory it was in is touched, too, but is no file; a
/// directory that is removed is known by its call. What an overlay does to a layer on the way (a whiteout is a new
/// file) is not what was requested.
#[inline(always)]
fn touched(inode: *const u8) {
    if !filter::is_watched(Direct::ptr(inode, off!(inode_i_sb))) {
        return;
    }
    let mode = Direct::u16(inode, off!(inode_i_mode));
    if mode & S_IFMT == S_IFDIR {
        return;
    }
    let task = task::current();
    let removes = SYSCALLS.get(task::syscall(task) as u32).is_some_and(|rule| rule.flags & RULE_REMOVES != 0);
    if !removes || (live!(layers) != 0 && task::acts_for_another()) {
        return;
    }
    let victim = Victim {
        ino: Direct::u64(inode, off!(inode_i_ino)),
        generation: Direct::u32(inode, off!(inode_i_generation)),
        mode: u32::from(mode),
        itself: 0,
    };
    // A full map costs the removed file's number and type, not the change.
    let _ = CALL_VICTIMS.insert(&(bpf_get_current_pid_tgid() as u32), &victim, 0);
}
