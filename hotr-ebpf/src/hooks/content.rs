//! Content: write, writev, splice, sendfile, copy_file_range, clone, fallocate. All at the function's exit, when
//! the change is made and its size is known.

use core::marker::PhantomData;

use crate::call::Call;
use crate::change::{self, Target};
use crate::filter;
use crate::hooks::exit_hook;
use crate::kernel::{Mem, Probe, task};

exit_hook!(Write, FirstFile, write => fexit_write, kprobe_write, kretprobe_write);
exit_hook!(Writev, FirstFile, write => fexit_writev, kprobe_writev, kretprobe_writev);
exit_hook!(IterWrite, FirstFile, kernel_write => fexit_iter_write, kprobe_iter_write, kretprobe_iter_write);
exit_hook!(KernelWrite, FirstFile, any_kernel_write => fexit_kernel_write, kprobe_kernel_write, kretprobe_kernel_write);
exit_hook!(Sendfile, Other, sendfile => fexit_sendfile, kprobe_sendfile, kretprobe_sendfile);
exit_hook!(Splice, File, write => fexit_splice, kprobe_splice, kretprobe_splice);
exit_hook!(CopyFileRange, File, write => fexit_copy_file_range, kprobe_copy_file_range, kretprobe_copy_file_range);
exit_hook!(Clone, File, write => fexit_clone, kprobe_clone, kretprobe_clone);
exit_hook!(Fallocate, FirstFile, fallocate => fexit_fallocate, kprobe_fallocate, kretprobe_fallocate);

/// The subject is a `struct file`, the result the bytes written or an error.
#[inline(always)]
fn write<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.result() > 0 {
        change::file::<M>(call, &Target::subject::<M>(call), 0, call.result() as u64, 0);
    }
}

/// `vfs_iter_write` serves kernel threads; in a process it is the inner half of another hook's call. So it is where a kernel
/// thread writes to an overlay, and that writes to its layer.
#[inline(always)]
fn kernel_write<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.result() > 0 && task::is_kthread(task::current()) && !filter::is_opened_by_overlay(call.subject) {
        change::file::<M>(call, &Target::subject::<M>(call), 0, call.result() as u64, 0);
    }
}

/// `__kernel_write_iter` serves every task.
#[inline(always)]
fn any_kernel_write<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.result() > 0 {
        change::file::<M>(call, &Target::subject::<M>(call), 0, call.result() as u64, 0);
    }
}

/// `do_sendfile(out_fd, …)`: the descriptor is still open. A pipe or socket is on no watched superblock.
#[inline(always)]
fn sendfile<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.result() > 0 {
        let file = task::file(task::current(), call.subject as u64 as u32);
        change::file::<Probe>(call, &Target::file::<Probe>(file), 0, call.result() as u64, 0);
    }
}

/// Returns 0; the mode says what was done to the blocks.
#[inline(always)]
fn fallocate<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.status() == 0 {
        let mode = call.second() as u64 & 0xffff_ffff;
        change::file::<M>(call, &Target::subject::<M>(call), mode as u32 & 0xff, 0, mode);
    }
}
