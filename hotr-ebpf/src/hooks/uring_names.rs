//! io_uring requests about names, on the tracepoint tier: what a request names is copied when it is submitted, because
//! the kernel forgets it when the request has ended; its success is reported when it ends. Userspace joins the two.
//!
//! The buffer is that of path-taking system calls (`hooks/sys_exit/path.rs`): a program here runs without preemption as well,
//! or is not attached (`hotr-user/src/kernel/tracepoints.rs`).

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use hotr_common::hook::Hook;
use hotr_common::offsets::ABSENT;
use hotr_common::record::{ENDED_BORN, ENDED_FOUND, FLAG_BEGUN, FLAG_CALL, FLAG_ENDED};
use hotr_common::rules::URING_OPCODES;
use hotr_common::rules::{Class, NO_REGISTER, RULE_ENABLED, Rule};
use hotr_common::uapi::file::{FMODE_CREATED, O_CREAT, O_TMPFILE, O_TRUNC};

use super::sys_exit::PASS;
use super::sys_exit::is_watched;
use super::sys_exit::path::{self, Directory, Str, UNREADABLE, append};
use super::uring::{opcode_writes, submitter};
use crate::call::{PERF_TRACEPOINT, TRACEPOINT};
use crate::counters::{Count, count};
use crate::emit;
use crate::event::Event;
use crate::filter;
use crate::globals::{live, off};
use crate::hooks::sys_exit::path::CALL_RECORD;
use crate::kernel::{Mem, Probe, task};
use crate::messages::note;
use crate::path::OVERFLOW;

/// What to do with io_uring requests, by their opcode; zeros for those that change nothing. Registers are offsets in the
/// request here.
#[map(name = "URING_RULES")]
pub static URING_RULES: Array<Rule> = Array::with_max_entries(URING_OPCODES, 0);

/// `IOSQE_CQE_SKIP_SUCCESS`, also of the request (`REQ_F_CQE_SKIP`).
const CQE_SKIP_SUCCESS: u16 = 1 << 6;
/// `IORING_FILE_INDEX_ALLOC`: the ring chooses, and the result is its choice.
const ANY_SLOT: u32 = u32::MAX;
/// The bits of a pointer to a `struct file` in a ring's table that are flags.
const FILE_FLAGS: u64 = 7;

/// `io_uring_submit_req(req)`, earlier `io_uring_submit_sqe(req, …)`: the request is prepared, and nobody has begun it.
#[btf_tracepoint]
pub fn uring_submitted(ctx: BtfTracePointContext) -> u32 {
    submitted(Probe::ptr(ctx.as_ptr() as *const u8, 0), TRACEPOINT);
    0
}

/// The same through perf; see `hooks/sys_exit/way.rs`.
#[tracepoint]
pub fn perf_uring_submitted(ctx: TracePointContext) -> u32 {
    submitted(Probe::ptr(ctx.as_ptr() as *const u8, off!(trace_uring_submitted)), PERF_TRACEPOINT);
    PASS
}

#[inline(always)]
fn submitted(request: *const u8, tier: u16) {
    let opcode = opcode(request);
    let rule = rule(opcode);
    if rule.is_none() && !opcode_writes(opcode as u8) {
        return;
    }
    if Probe::u16(request, off!(io_kiocb_flags)) & CQE_SKIP_SUCCESS != 0 {
        // Its success is not reported. hotr looks for what it changed.
        let is_named = rule.is_some_and(is_about_names);
        let concerns = match rule {
            Some(rule) if is_named => concerns(request, rule),
            _ => is_watched(Probe::ptr(request, off!(io_kiocb_file))),
        };
        if concerns {
            note!(unknown_request, Hook::UringTrace, opcode);
            count(Count::Seen);
            count(Count::Oversize);
        }
        return;
    }
    if let Some(rule) = rule {
        begun(request, rule, tier);
    }
}

#[inline(always)]
pub fn opcode(request: *const u8) -> u32 {
    // The opcode is the low byte of what is read.
    u32::from(Probe::u16(request, off!(io_kiocb_opcode)) as u8)
}

/// The rule for an opcode that changes something.
#[inline(always)]
pub fn rule(opcode: u32) -> Option<&'static Rule> {
    URING_RULES.get(opcode).filter(|rule| rule.flags & RULE_ENABLED != 0)
}

/// Whether requests by this rule are about names.
#[inline(always)]
pub fn is_about_names(rule: &Rule) -> bool {
    rule.class == Class::Path as u8 || rule.class == Class::OpenHow as u8
}

/// A field of the request; 0 when it has none.
#[inline(always)]
fn field(request: *const u8, offset: u8) -> u32 {
    if offset == NO_REGISTER { 0 } else { Probe::u32(request, u32::from(offset)) }
}

/// A name that the request has a copy of.
#[inline(always)]
fn name(request: *const u8, offset: u8) -> Str {
    Str::OfKernel(Probe::u64(Probe::ptr(request, u32::from(offset)), off!(filename_name)))
}

/// Whether a request of its class changes anything: most opens do not.
#[inline(always)]
fn concerns(request: *const u8, rule: &Rule) -> bool {
    if rule.class != Class::OpenHow as u8 {
        return rule.class == Class::Path as u8;
    }
    let flags = field(request, rule.aux0);
    flags & (O_CREAT | O_TRUNC) != 0 && flags & O_TMPFILE == 0
}

/// Reports what a request names.
#[inline(always)]
pub fn begun(request: *const u8, rule: &Rule, tier: u16) {
    if !concerns(request, rule) || (bpf_get_current_pid_tgid() >> 32) as u32 == live!(own_tgid) {
        return;
    }
    let Some(sized) = CALL_RECORD.get_ptr_mut(0) else { return };
    // SAFETY: see the module: nobody else uses this CPU's buffer now.
    let (record, buffer) = unsafe { (&raw mut (*sized).record, (&raw mut (*sized).paths).cast::<u8>()) };
    let mut event = Event::new(Hook::UringTrace as u16, tier, 0, core::ptr::null());
    event.flags = FLAG_CALL | FLAG_BEGUN;
    event.aux[0] = u64::from(field(request, rule.aux0));
    event.victim = request as u64;
    event.way = opcode(request);
    // SAFETY: `record` is valid for writes.
    unsafe {
        emit::header(record, &event);
        (*record).victim = request as u64;
    }
    let directory = Directory::of(rule.descriptor, || field(request, rule.descriptor) as i32);
    let base = append(buffer, 0, directory, name(request, rule.path));
    let end = base.end;
    if end == UNREADABLE {
        // Not prepared: a request of a chain that failed is reported as submitted as well (fs/io_uring.c,
        // `io_submit_sqe`).
        return;
    }
    // SAFETY: as above.
    unsafe { path::set_path(record, &base) };
    let mut total = end;
    if end != OVERFLOW && rule.old_path != NO_REGISTER {
        let directory = Directory::of(rule.old_descriptor, || field(request, rule.old_descriptor) as i32);
        let base = append(buffer, end, directory, name(request, rule.old_path));
        total = base.end;
        if total == UNREADABLE {
            return;
        }
        // SAFETY: as above.
        unsafe { path::set_old_path(record, &base, end) };
    }
    count(Count::Seen);
    path::submit(sized, total, 0);
}

/// Reports that a request about names has succeeded.
#[inline(always)]
pub fn ended(request: *const u8, rule: &Rule, result: i32) {
    if !concerns(request, rule) {
        return;
    }
    let flags = u64::from(field(request, rule.aux0));
    if path::may_move_directories(rule, flags) {
        filter::bump_epoch();
    }
    count(Count::Seen);
    let mut event = Event::new(Hook::UringTrace as u16, TRACEPOINT, 0, core::ptr::null());
    event.flags = FLAG_ENDED;
    event.victim = request as u64;
    event.aux[0] = flags;
    if rule.class == Class::OpenHow as u8 {
        event.aux[1] = birth(request, rule, result);
    }
    emit::emit(&event);
}

/// Whether an open created its file, as far as its descriptor shows. The caller does not know that one before the
/// request has ended, so it is still there. A slot of the ring's own may have been emptied by a request that came
/// after.
#[inline(always)]
fn birth(request: *const u8, rule: &Rule, result: i32) -> u64 {
    let slot = field(request, rule.aux1);
    let file = if slot == 0 {
        task::file(submitter(request), result as u32)
    } else {
        file_of_ring(request, if slot == ANY_SLOT { result as u32 } else { slot - 1 })
    };
    if file.is_null() {
        return 0;
    }
    if Probe::u32(file, off!(file_f_mode)) & FMODE_CREATED != 0 { ENDED_BORN } else { ENDED_FOUND }
}

/// The file in a slot of the ring, NULL when there is none.
#[inline(always)]
fn file_of_ring(request: *const u8, slot: u32) -> *const u8 {
    if off!(io_ring_ctx_files) == ABSENT {
        return core::ptr::null();
    }
    let ring = Probe::ptr(request, off!(io_kiocb_ctx));
    let table = Probe::ptr(ring, off!(io_ring_ctx_files));
    let mut file = Probe::u64(table.wrapping_add(slot as usize * 8), 0);
    if off!(io_rsrc_node_file) != ABSENT {
        file = Probe::u64(file as *const u8, off!(io_rsrc_node_file));
    }
    (file & !FILE_FLAGS) as *const u8
}
