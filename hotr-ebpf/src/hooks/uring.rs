//! io_uring and libaio writes, at their completion.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use core::marker::PhantomData;
use core::ptr;

use hotr_common::offsets::ABSENT;

use crate::call::Call;
use crate::change::{self, Target};
use crate::globals::off;
use crate::hooks::{entry_hook, exit_hook};
use crate::kernel::{Mem, Probe, task};

/// Submitters of libaio requests, by the address of the `kiocb`: their completion runs in any task.
#[map(name = "AIO_TASKS")]
pub static AIO_TASKS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

exit_hook!(UringDone, Other, done => fexit_uring_done, kprobe_uring_done, kretprobe_uring_done);
entry_hook!(UringComplete, complete => fentry_uring_complete, kprobe_uring_complete);
entry_hook!(UringIopoll, complete => fentry_uring_iopoll, kprobe_uring_iopoll);
entry_hook!(AioComplete, aio_complete => fentry_aio_complete, kprobe_aio_complete);
entry_hook!(AioComplete, aio_submit => fentry_aio_submit, kprobe_aio_submit);

/// `IOCB_WRITE`.
const IOCB_WRITE: u32 = 1 << 18;

/// `IORING_SETUP_IOPOLL`.
pub const IOPOLL: u32 = 1;

/// Whether an opcode of the io_uring ABI writes: WRITEV, WRITE_FIXED, WRITE, WRITEV_FIXED.
#[inline(always)]
pub fn opcode_writes(opcode: u8) -> bool {
    matches!(opcode, 2 | 5 | 23 | 61)
}

/// The task that submitted a request.
#[inline(always)]
pub fn submitter(request: *const u8) -> *const u8 {
    if off!(io_kiocb_task) != ABSENT {
        return Probe::ptr(request, off!(io_kiocb_task));
    }
    if off!(io_kiocb_tctx) != ABSENT {
        let context = Probe::ptr(request, off!(io_kiocb_tctx));
        return Probe::ptr(context, off!(io_uring_task_task));
    }
    ptr::null()
}

/// `kiocb_done(kiocb or request, ret, …)`: the request begins with its kiocb, so one address serves both.
#[inline(always)]
fn done<M: Mem>(_: PhantomData<M>, call: &Call) {
    let written = call.second() as i64;
    // A polled request goes through `io_complete_rw_iopoll` even when it ended at once.
    if written > 0 && !is_polled(call.subject) {
        request(call, written);
    }
}

/// Whether the request's ring is polled. The request's own flag is cleared where the device cannot be polled.
#[inline(always)]
fn is_polled(request: *const u8) -> bool {
    off!(io_kiocb_ctx) != ABSENT
        && Probe::u32(Probe::ptr(request, off!(io_kiocb_ctx)), off!(io_ring_ctx_flags)) & IOPOLL != 0
}

/// `io_complete_rw(kiocb, res)`: in any task.
#[inline(always)]
fn complete<M: Mem>(_: PhantomData<M>, call: &Call) {
    let written = call.second() as i64;
    if written > 0 {
        request(call, written);
    }
}

#[inline(always)]
fn request(call: &Call, written: i64) {
    let request = call.subject;
    // The opcode is the low byte of what is read.
    if !opcode_writes(Probe::u16(request, off!(io_kiocb_opcode)) as u8) {
        return;
    }
    let mut target = Target::file::<Probe>(Probe::ptr(request, off!(kiocb_ki_filp)));
    let submitter = submitter(request);
    if submitter as u64 != task::current() as u64 {
        target.task = submitter;
    }
    change::file::<Probe>(call, &target, 0, written as u64, 0);
}

/// `aio_prep_rw(kiocb, …)`: the submitting task, for the completion.
#[inline(always)]
fn aio_submit<M: Mem>(_: PhantomData<M>, call: &Call) {
    let _ = AIO_TASKS.insert(&(call.subject as u64), &(task::current() as u64), 0);
}

/// `aio_complete_rw(kiocb, res)`: in the submitting task when the write was synchronous, in any other when not.
#[inline(always)]
fn aio_complete<M: Mem>(_: PhantomData<M>, call: &Call) {
    let written = call.second() as i64;
    let iocb = call.subject;
    if written <= 0 || Probe::u32(iocb, off!(kiocb_ki_flags)) & IOCB_WRITE == 0 {
        return;
    }
    let mut target = Target::file::<Probe>(Probe::ptr(iocb, off!(kiocb_ki_filp)));
    // SAFETY: a plain word.
    if let Some(submitter) = unsafe { AIO_TASKS.get(&(iocb as u64)) }
        && *submitter != task::current() as u64
    {
        target.task = *submitter as *const u8;
    }
    change::file::<Probe>(call, &target, 0, written as u64, 0);
}
