//! The current task: who it is, which system call it is in, whether it acts for somebody else.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use hotr_common::offsets::ABSENT;
use hotr_common::record::NO_SYSCALL;
use hotr_common::rules::RULES;
use hotr_common::uapi::task::{PF_DUMPCORE, PF_EXITING, PF_IO_WORKER, PF_KTHREAD};

use super::{Direct, Mem, Probe};
use crate::globals::{live, off};

/// For the number of a call in the 32-bit table one more than the native number of the same call, or 0.
#[map(name = "COMPAT_CALLS")]
pub static COMPAT_CALLS: Array<u32> = Array::with_max_entries(RULES, 0);

/// The running task's `task_struct`.
#[inline(always)]
pub fn current() -> *const u8 {
    // SAFETY: the helper has no arguments and always answers.
    unsafe { bpf_get_current_task() as *const u8 }
}

/// Whether the task is a kernel thread. An io_uring worker is not.
#[inline(always)]
pub fn is_kthread(task: *const u8) -> bool {
    Probe::u32(task, off!(task_flags)) & PF_KTHREAD != 0
}

/// Whether the task is an io_uring worker.
#[inline(always)]
pub fn is_io_worker(task: *const u8) -> bool {
    Probe::u32(task, off!(task_flags)) & PF_IO_WORKER != 0
}

/// Whether the task dumps its core or ends: it will not run its user's code again.
#[inline(always)]
pub fn is_ending(task: *const u8) -> bool {
    Probe::u32(task, off!(task_flags)) & (PF_DUMPCORE | PF_EXITING) != 0
}

/// Whether the task's credentials are overridden (`override_creds`), as overlayfs does around every operation
/// on its layers. Kernel threads that serve clients (nfsd) do it too, and are not meant; nor is a worker of io_uring that
/// acts with what its request was submitted with.
#[inline(always)]
pub fn acts_for_another() -> bool {
    let task = current();
    let cred = Probe::u64(task, off!(task_cred));
    let real = Probe::u64(task, off!(task_real_cred));
    cred != real && !is_kthread(task) && !acts_for_its_request(task, cred)
}

/// Whether these are the credentials of the request that the task, a worker of io_uring, is at (io_uring/io_uring.c
/// `io_issue_sqe`). All requests about names run in workers. What an overlay does for such a request has the overlay's.
#[inline(always)]
fn acts_for_its_request(task: *const u8, cred: u64) -> bool {
    if !is_io_worker(task) || off!(task_io_worker) == ABSENT || off!(io_kiocb_creds) == ABSENT {
        return false;
    }
    let worker = Probe::ptr(task, off!(task_io_worker));
    let work = Probe::ptr(worker, off!(io_worker_cur_work));
    let request = work.wrapping_sub(off!(io_kiocb_work) as usize);
    !work.is_null() && Probe::u64(request, off!(io_kiocb_creds)) == cred
}

/// Address of the credentials that the task acts with.
#[inline(always)]
pub fn credentials() -> u64 {
    Probe::u64(current(), off!(task_cred))
}

/// Number of the system call the task is in, -1 in an exception, [`NO_SYSCALL`] when it has no user registers. A call
/// of the 32-bit table has the number of the native call that does the same.
/// `pt_regs` lie at a fixed distance from the base of the kernel stack, which hotr measures on its own task.
#[inline(always)]
pub fn syscall(task: *const u8) -> i32 {
    let distance = live!(regs_off);
    if distance == 0 {
        return NO_SYSCALL;
    }
    let stack = Probe::u64(task, off!(task_stack));
    let regs = stack.wrapping_add(distance) as *const u8;
    let number = Probe::u64(regs, off!(regs_sysno)) as i64 as i32;
    if !is_compat(task) {
        return number;
    }
    match COMPAT_CALLS.get(number as u32) {
        Some(next) if *next != 0 => *next as i32 - 1,
        _ => NO_SYSCALL,
    }
}

/// The command of the ioctl that the running task is in, if it is in one.
#[inline(always)]
pub fn ioctl_command() -> Option<u32> {
    let task = current();
    if syscall(task) as u32 != off!(sysno_ioctl) {
        return None;
    }
    let registers = Probe::u64(task, off!(task_stack)).wrapping_add(live!(regs_off)) as *const u8;
    let second = if is_compat(task) { off!(regs_compat[1]) } else { off!(regs_arg[1]) };
    Some(Probe::u32(registers, second))
}

/// The running task's user registers. See [`syscall`].
#[inline(always)]
pub fn registers() -> *const u8 {
    let stack = if off!(has_typed_task) == 0 {
        Probe::u64(current(), off!(task_stack))
    } else {
        // SAFETY: the helper has no arguments and always answers.
        Direct::u64(unsafe { bpf_get_current_task_btf() } as *const u8, off!(task_stack))
    };
    stack.wrapping_add(live!(regs_off)) as *const u8
}

/// First argument of the running task's system call: one load where a helper gives the registers a type (5.15).
#[inline(always)]
pub fn first_argument() -> u64 {
    if off!(has_typed_registers) == 0 {
        return Probe::u64(registers(), off!(regs_arg[0]));
    }
    // SAFETY: neither helper fails, and the task is the running one.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    Direct::u64(registers as *const u8, off!(regs_arg[0]))
}

/// `TS_COMPAT` of x86: the task is in a system call of the 32-bit table.
const TS_COMPAT: u32 = 2;

/// Whether the task is in a system call of the 32-bit table, whose numbers mean other calls.
#[inline(always)]
pub fn is_current_compat() -> bool {
    if off!(task_thread_status) == ABSENT {
        return false;
    }
    if off!(has_typed_task) == 0 {
        return is_compat(current());
    }
    // SAFETY: the helper has no arguments and always answers.
    let task = unsafe { bpf_get_current_task_btf() } as *const u8;
    Direct::u32(task, off!(task_thread_status)) & TS_COMPAT != 0
}

/// See [`is_current_compat`].
#[inline(always)]
fn is_compat(task: *const u8) -> bool {
    off!(task_thread_status) != ABSENT && Probe::u32(task, off!(task_thread_status)) & TS_COMPAT != 0
}

/// The `struct file` of a descriptor of the running task, NULL when there is none.
#[inline(always)]
pub fn current_file(descriptor: u32) -> *const u8 {
    hotr_current_file(u64::from(descriptor)) as *const u8
}

/// See [`current_file`]. With direct loads where the helper that gives the task a type exists (5.11): writes to files
/// that nobody watches also come here. A global function, because the verifier searches all types of the kernel by name
/// four times whenever it meets a pointer loaded from a task (kernel/bpf/verifier.c `btf_nested_type_is_trusted`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_current_file(descriptor: u64) -> u64 {
    let descriptor = descriptor as u32;
    if off!(has_typed_task) == 0 {
        return file(current(), descriptor) as u64;
    }
    // SAFETY: the helper has no arguments and always answers.
    let task = unsafe { bpf_get_current_task_btf() } as *const u8;
    let table = Direct::ptr(Direct::ptr(task, off!(task_files)), off!(files_fdt));
    if descriptor >= Direct::u32(table, off!(fdtable_max_fds)) {
        return 0;
    }
    let files = Direct::u64(table, off!(fdtable_fd));
    Probe::u64(files.wrapping_add(u64::from(descriptor) * 8) as *const u8, 0)
}

/// The `struct file` of a task's descriptor, NULL when there is none.
#[inline(always)]
pub fn file(task: *const u8, descriptor: u32) -> *const u8 {
    let table = Probe::ptr(Probe::ptr(task, off!(task_files)), off!(files_fdt));
    if descriptor >= Probe::u32(table, off!(fdtable_max_fds)) {
        return core::ptr::null();
    }
    let files = Probe::ptr(table, off!(fdtable_fd));
    Probe::ptr(files.wrapping_add(descriptor as usize * 8), 0)
}

/// Inode number of the task's mount namespace.
#[inline(always)]
pub fn mount_namespace(task: *const u8) -> u32 {
    let namespaces = Probe::ptr(task, off!(task_nsproxy));
    Probe::u32(Probe::ptr(namespaces, off!(nsproxy_mnt_ns)), off!(mnt_namespace_inum))
}

/// Whether the running task is hotr itself: reporting its own output into a watched tree would never end.
#[inline(always)]
pub fn is_own() -> bool {
    (bpf_get_current_pid_tgid() >> 32) as u32 == live!(own_tgid)
}
