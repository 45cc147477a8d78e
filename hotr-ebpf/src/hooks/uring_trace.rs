//! io_uring writes at their completion event, on the tracepoint tier.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use hotr_common::hook::Hook;

use crate::call::{Call, Known, Second, TRACEPOINT};
use crate::change::{self, Target};
use crate::filter;
use crate::hooks::sys_exit::PASS;
use crate::hooks::uring::{opcode_writes, submitter};
use crate::kernel::{Mem, Probe, task};
use crate::maps::{Count, InFlight, URING_REQUESTS, add, count, off, read};

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

/// `io_uring_submit_sqe(ctx, req, opcode, user_data, …)` of 5.10: remembers what is written, for the completion of that
/// kernel names user data only, and those may be the same for many. Submissions to a ring come one after the other
/// (fs/io_uring.c, `uring_lock`).
#[btf_tracepoint]
pub fn uring_submit(ctx: BtfTracePointContext) -> u32 {
    let request = ctx.arg::<u64>(1) as *const u8;
    let file = if opcode_writes(ctx.arg::<u64>(2) as u8) { watched_file(request) } else { 0 };
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(3)];
    if let Some(same) = URING_REQUESTS.get_ptr_mut(&key) {
        // SAFETY: a map value, which holds whatever this program and the completion write to it; at worst it has become
        // another key's.
        unsafe {
            if read(&raw const (*same).submitted) > read(&raw const (*same).completed) {
                if read(&raw const (*same).file) != file {
                    (&raw mut (*same).mixed).write_volatile(1);
                }
                add(&raw mut (*same).submitted, 1);
                return 0;
            }
        }
    }
    let first = InFlight { file, task: task::current() as u64, submitted: 1, completed: 0, mixed: 0 };
    let _ = URING_REQUESTS.insert(&key, &first, 0);
    0
}

/// `io_uring_complete(ctx, user_data, res, …)` of 5.10.
#[btf_tracepoint]
pub fn uring_complete_by_data(ctx: BtfTracePointContext) -> u32 {
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(1)];
    let written = ctx.arg::<u64>(2) as i32;
    let Some(same) = URING_REQUESTS.get_ptr_mut(&key) else { return 0 };
    // SAFETY: as above. What is told is read before the request counts as ended, for then the place may be taken anew.
    let (file, task, mixed) = unsafe {
        let told =
            (read(&raw const (*same).file), read(&raw const (*same).task), read(&raw const (*same).mixed));
        add(&raw mut (*same).completed, 1);
        if read(&raw const (*same).submitted) <= read(&raw const (*same).completed) {
            let _ = URING_REQUESTS.remove(&key);
        }
        told
    };
    if mixed != 0 && written > 0 {
        count(Count::Seen);
        count(Count::Oversize);
    } else if file != 0 && written > 0 {
        wrote(file as *const u8, task as *const u8, written);
    }
    0
}

/// The file of a request, or 0 when it is on no watched superblock.
#[inline(always)]
fn watched_file(request: *const u8) -> u64 {
    let file = Probe::ptr(request, off!(io_kiocb_file));
    let superblock = Probe::ptr(Probe::ptr(file, off!(file_f_inode)), off!(inode_i_sb));
    if filter::is_watched(superblock) { file as u64 } else { 0 }
}

#[inline(always)]
fn completed(request: *const u8, written: i32) {
    if written <= 0 || !opcode_writes(Probe::u16(request, off!(io_kiocb_opcode)) as u8) {
        return;
    }
    wrote(Probe::ptr(request, off!(io_kiocb_file)), submitter(request), written);
}

#[inline(always)]
fn wrote(file: *const u8, submitter: *const u8, written: i32) {
    let mut target = Target::file::<Probe>(file);
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
