//! io_uring writes at their completion event, on the tracepoint tier.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use hotr_common::hook::Hook;

use crate::call::{Call, Known, Second, TRACEPOINT};
use crate::change::{self, Target};
use crate::hooks::sys_exit::PASS;
use crate::hooks::uring::{opcode_writes, submitter};
use crate::kernel::{Mem, Probe, task};
use crate::maps::{URING_REQUESTS, off};

/// Argument numbers of the tracepoint that mean something else than "this many".
const RESULT_IN_CQE: u8 = 1;

/// `io_uring_complete(ctx, req, user_data, res, …)`, later `(ctx, req, cqe)`.
#[btf_tracepoint]
pub fn uring_complete(ctx: BtfTracePointContext) -> u32 {
    let words = ctx.as_ptr() as *const u8;
    let arguments = off!(arguments[Hook::UringTrace as usize]);
    let request = Probe::ptr(words, u32::from(arguments.subject) * 8);
    let second = Probe::u64(words, u32::from(arguments.second) * 8);
    let written = if arguments.ret_pointer == RESULT_IN_CQE {
        Probe::u32(second as *const u8, off!(io_uring_cqe_res)) as i32
    } else {
        second as i32
    };
    completed(request, written);
    0
}

/// The same by way of perf, whose record has both; see `hooks/sys_exit/way.rs`.
#[tracepoint]
pub fn perf_uring_complete(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr() as *const u8;
    completed(Probe::ptr(record, off!(trace_uring_req)), Probe::u32(record, off!(trace_uring_res)) as i32);
    PASS
}

/// `io_uring_submit_sqe(ctx, req, opcode, user_data, …)` of 5.10: remembers the request, which the completion of
/// that kernel does not name.
#[btf_tracepoint]
pub fn uring_submit(ctx: BtfTracePointContext) -> u32 {
    let opcode: u64 = ctx.arg(2);
    if !opcode_writes(opcode as u8) {
        return 0;
    }
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(3)];
    let _ = URING_REQUESTS.insert(&key, &ctx.arg::<u64>(1), 0);
    0
}

/// `io_uring_complete(ctx, user_data, res, …)` of 5.10.
#[btf_tracepoint]
pub fn uring_complete_by_data(ctx: BtfTracePointContext) -> u32 {
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(1)];
    // SAFETY: a plain word.
    let Some(request) = unsafe { URING_REQUESTS.get(&key) }.copied() else { return 0 };
    let _ = URING_REQUESTS.remove(&key);
    let res: u64 = ctx.arg(2);
    completed(request as *const u8, res as i32);
    0
}

#[inline(always)]
fn completed(request: *const u8, written: i32) {
    if written <= 0 || !opcode_writes(Probe::u16(request, off!(io_kiocb_opcode)) as u8) {
        return;
    }
    let mut target = Target::file::<Probe>(Probe::ptr(request, off!(io_kiocb_file)));
    let submitter = submitter(request);
    if submitter as u64 != task::current() as u64 {
        target.task = submitter;
    }
    let call = Call {
        hook: Hook::UringTrace,
        tier: TRACEPOINT,
        subject: core::ptr::null(),
        second: Second::Is(core::ptr::null()),
        known: Known::NOTHING,
        ret: i64::from(written) as *const u8,
    };
    change::file::<Probe>(&call, &target, 0, written as u64, 0);
}
