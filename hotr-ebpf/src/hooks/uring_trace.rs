//! io_uring requests at their completion event, on the tracepoint tier: writes, and whatever else changes a file.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use hotr_common::hook::Hook;
use hotr_common::offsets::ABSENT;
use hotr_common::offsets::RESULT_IN_CQE;
use hotr_common::rules::{Class, NO_REGISTER};

use crate::call::{Call, Known, Second, TRACEPOINT};
use crate::change::{self, Target};
use crate::counters::{Count, count};
use crate::filter;
use crate::globals::{add, off, read, verifier_opaque};
use crate::hooks::sys_exit::PASS;
use crate::hooks::uring::{IOPOLL, opcode_writes, submitter};
use crate::hooks::uring_names;
use crate::kernel::{Mem, Probe, task};
use crate::messages::note;

/// Requests in flight of one ring with the same user data.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// What is written: a file on a watched superblock; 0 for every other request.
    pub file: u64,
    /// The `io_kiocb` of the first.
    pub request: u64,
    /// Its opcode.
    pub opcode: u64,
    /// Who submitted the first.
    pub task: u64,
    /// How many there were, and how many have ended.
    pub submitted: u64,
    pub completed: u64,
    /// Not 0: they are not of one file, and which one ended cannot be known. 2: some are about names.
    pub mixed: u64,
}

/// io_uring requests in flight, by (ring, user data), for kernels whose completion event does not name the request.
#[map(name = "URING_REQUESTS")]
pub static URING_REQUESTS: LruHashMap<[u64; 2], InFlight> = LruHashMap::with_max_entries(4096, 0);

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

/// The same through perf, whose record has both; see `hooks/sys_exit/way.rs`.
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
    let ring = ctx.arg::<u64>(0) as *const u8;
    if off!(io_ring_ctx_flags) != ABSENT && Probe::u32(ring, off!(io_ring_ctx_flags)) & IOPOLL != 0 {
        // Their completion is not reported: what is remembered would be taken for a request of the next ring there.
        return 0;
    }
    let request = ctx.arg::<u64>(1) as *const u8;
    let opcode = u64::from(ctx.arg::<u64>(2) as u8);
    let rule = uring_names::rule(opcode as u32);
    let is_named = rule.is_some_and(uring_names::is_about_names);
    let has_file = opcode_writes(opcode as u8) || (rule.is_some() && !is_named);
    let file = if has_file { watched_file(request) } else { 0 };
    let opcode = if !is_named && file == 0 {
        0
    } else if opcode_writes(opcode as u8) {
        u64::from(WRITE)
    } else {
        opcode
    };
    if let Some(rule) = rule {
        uring_names::begun(request, rule, TRACEPOINT);
    }
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(3)];
    if let Some(same) = URING_REQUESTS.get_ptr_mut(&key) {
        // SAFETY: a map value, which holds whatever this program and the completion write to it; at worst it has become
        // another key's.
        unsafe {
            if read(&raw const (*same).submitted) > read(&raw const (*same).completed) {
                let first = read(&raw const (*same).opcode);
                if is_other(opcode) || is_other(first) {
                    (&raw mut (*same).mixed).write_volatile(2);
                } else if read(&raw const (*same).file) != file {
                    (&raw mut (*same).mixed).write_volatile(1);
                }
                add(&raw mut (*same).submitted, 1);
                return 0;
            }
        }
    }
    let first = InFlight {
        file,
        request: request as u64,
        opcode,
        task: task::current() as u64,
        submitted: 1,
        completed: 0,
        mixed: 0,
    };
    let _ = URING_REQUESTS.insert(&key, &first, 0);
    0
}

/// `io_uring_complete(ctx, user_data, res, …)` of 5.10.
#[btf_tracepoint]
pub fn uring_complete_by_data(ctx: BtfTracePointContext) -> u32 {
    let key = [ctx.arg::<u64>(0), ctx.arg::<u64>(1)];
    let written = ctx.arg::<u64>(2) as i32;
    let Some(same) = URING_REQUESTS.get_ptr_mut(&key) else { return 0 };
    // SAFETY: as above. What is reported is read before the request counts as ended, because then the place may be
    // reused.
    let (first, is_last) = unsafe {
        let first = core::ptr::read_volatile(same);
        add(&raw mut (*same).completed, 1);
        (first, read(&raw const (*same).submitted) <= read(&raw const (*same).completed))
    };
    if is_last {
        let _ = URING_REQUESTS.remove(&key);
    }
    if first.mixed != 0 {
        if written > 0 || (written == 0 && first.mixed > 1) {
            note!(unknown_request, Hook::UringTrace, first.opcode);
            count(Count::Seen);
            count(Count::Oversize);
        }
        return 0;
    }
    ended(
        first.request as *const u8,
        first.file as *const u8,
        first.opcode as u32,
        first.task as *const u8,
        written,
    );
    0
}

/// `IORING_OP_WRITE`, which stands for all that write.
const WRITE: u8 = 23;

/// Whether an opcode that is remembered is none that writes: those succeed with 0 as well.
#[inline(always)]
fn is_other(opcode: u64) -> bool {
    opcode != 0 && opcode != u64::from(WRITE)
}

/// The file of a request, or 0 when it is on no watched superblock.
#[inline(always)]
fn watched_file(request: *const u8) -> u64 {
    let file = Probe::ptr(request, off!(io_kiocb_file));
    let superblock = Probe::ptr(Probe::ptr(file, off!(file_f_inode)), off!(inode_i_sb));
    if filter::is_watched(superblock) { file as u64 } else { 0 }
}

#[inline(always)]
fn completed(request: *const u8, result: i32) {
    if result >= 0 {
        let file = Probe::ptr(request, off!(io_kiocb_file));
        ended(request, file, uring_names::opcode(request), submitter(request), result);
    }
}

/// A request has ended, with this file of its own.
#[inline(always)]
fn ended(request: *const u8, file: *const u8, opcode: u32, submitter: *const u8, result: i32) {
    let mut class = 0;
    let mut bytes = result as u64;
    let mut aux = 0;
    if opcode_writes(opcode as u8) {
        if result <= 0 {
            return;
        }
    } else {
        let Some(rule) = uring_names::rule(opcode) else { return };
        if result < 0 {
            return;
        }
        if uring_names::is_about_names(rule) {
            uring_names::ended(request, rule, result);
            return;
        }
        if rule.class == Class::Write as u8 {
            if result == 0 {
                return;
            }
        } else {
            bytes = 0;
        }
        if rule.aux0 != NO_REGISTER {
            aux = u64::from(Probe::u32(request, u32::from(rule.aux0)));
        }
        class = opcode;
    }
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
        ret: core::ptr::null(),
    };
    change::file::<Probe>(
        &call,
        &target,
        verifier_opaque(u64::from(class)) as u32,
        verifier_opaque(bytes),
        verifier_opaque(aux),
    );
}
