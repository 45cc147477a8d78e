//! Registers a directory that hotr holds open: a system call of hotr's own, marked by a cookie, lets this program
//! resolve the descriptor to kernel addresses. Attached only for that moment.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use hotr_common::offsets::ABSENT;

use crate::kernel::{Mem, Probe, task};
use crate::maps::{REGISTERED, live, off};

/// `sys_enter(regs, id)`: `fcntl(fd, F_GETFD, cookie)` by hotr.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn register(ctx: RawTracePointContext) -> u32 {
    let regs = ctx.arg::<*const u8>(0);
    if live!(cookie) == 0 || Probe::u64(regs, off!(regs_arg[2])) != live!(cookie) {
        return 0;
    }
    let fd = Probe::u64(regs, off!(regs_arg[0]));
    let task = task::current();
    let file = task::file(task, fd as u32);
    if file.is_null() {
        return 0;
    }
    let inode = Probe::ptr(file, off!(file_f_inode));
    let superblock = Probe::ptr(inode, off!(inode_i_sb));
    let mount = Probe::ptr(file, off!(file_mnt)).wrapping_sub(off!(mount_mnt) as usize);
    let Some(found) = REGISTERED.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value that only this program writes, and userspace reads after the call returned.
    let found = unsafe { &mut *found };
    found.inode = inode as u64;
    found.superblock = superblock as u64;
    found.private_data = Probe::u64(file, off!(file_private_data));
    found.ino = Probe::u64(inode, off!(inode_i_ino));
    found.regs_off = (regs as u64).wrapping_sub(Probe::u64(task, off!(task_stack)));
    found.dev = Probe::u32(superblock, off!(super_block_s_dev));
    found.tgid = Probe::u32(task, off!(task_tgid));
    found.generation = Probe::u32(inode, off!(inode_i_generation));
    // Migration is forbidden instead of preemption (kernel/trace/bpf_trace.c `__bpf_trace_run`).
    found.preemptible = u32::from(
        off!(task_migration_disabled) != ABSENT && Probe::u16(task, off!(task_migration_disabled)) != 0,
    );
    found.mnt_id = Probe::u32(mount, off!(mount_mnt_id));
    0
}
