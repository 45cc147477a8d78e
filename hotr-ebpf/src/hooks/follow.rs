//! What followed processes do with their inotify instances and with files, by the exits of their system calls: for
//! `hotr diagnose`, where functions cannot be hooked. Attached while a diagnosis runs.
//!
//! The buffer of a `read` from a followed instance holds the events that the program got. It is copied when the call has
//! ended; nothing is taken out of the queue.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user};
use aya_ebpf::macros::{map, raw_tracepoint, tracepoint};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};
use hotr_common::delivery::{CHUNK, CHUNKS, Chunk, READ, calls};
use hotr_common::uapi::file::FMODE_READ;

use crate::counters::{Count, count};
use crate::globals::off;
use crate::hooks::sys_exit::PASS;
use crate::hooks::sys_exit::way::{Perf, Way};
use crate::hooks::{delivery, usage};
use crate::kernel::{Mem, Probe, task};
use crate::records::RECORDS;

/// What each system call does, one of [`calls`]. Written by userspace.
#[map(name = "FOLLOWED_CALLS")]
static FOLLOWED_CALLS: Array<u32> = Array::with_max_entries(calls::NUMBERS, 0);

/// `BPF_RB_NO_WAKEUP`: waking preempts the program where tracepoints may be preempted, and the kernel skips it then.
const NO_WAKEUP: u64 = 1;

/// `sys_exit(regs, ret)`.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn follow_exit(ctx: RawTracePointContext) -> u32 {
    let registers = ctx.arg::<*const u8>(0);
    ended(Probe::u64(registers, off!(regs_sysno)) as u32, ctx.arg::<i64>(1), registers);
    0
}

/// The same through perf, where the other could be preempted; see `hooks/sys_exit/way.rs`.
#[tracepoint]
pub fn perf_follow_exit(ctx: TracePointContext) -> u32 {
    let way = Perf::of(&ctx);
    if way.is_ready() {
        ended(way.sysno(), way.ret(), way.registers());
    }
    PASS
}

/// A system call has ended.
#[inline(always)]
fn ended(number: u32, ret: i64, registers: *const u8) {
    if ret < 0 {
        return;
    }
    let Some(&what) = FOLLOWED_CALLS.get(number) else { return };
    if what == calls::NONE || task::is_current_compat() {
        return;
    }
    let Some(process) = usage::user() else { return };
    let argument = |n: usize| Probe::u64(registers, off!(regs_arg[n]));
    let descriptor = match what {
        calls::OPENS => ret as u64,
        calls::SENDS => argument(1),
        _ => argument(0),
    };
    let file = task::file(task::current(), descriptor as u32);
    if file.is_null() {
        return;
    }
    match what {
        calls::OPENS => {
            if Probe::u32(file, off!(file_f_mode)) & FMODE_READ != 0 {
                usage::used(process, file, usage::Use::Opened);
            }
        }
        calls::WATCHES => {
            let group = Probe::u64(file, off!(file_private_data));
            if let Some(slot) = delivery::slot_of(group) {
                delivery::added(slot, ret as i32, argument(2) as u32);
            }
        }
        _ => {
            let group = Probe::u64(file, off!(file_private_data));
            match delivery::slot_of(group) {
                Some(slot) if what == calls::READS => {
                    let queued = Probe::u32(group as *const u8, off!(group_q_len));
                    hotr_copy(u64::from(slot), argument(1), ret as u64, u64::from(queued));
                }
                // Its events are not in one buffer.
                Some(_) => count(Count::RingFull),
                None => usage::used(process, file, usage::Use::Read),
            }
        }
    }
}

/// Sends one part: of these many bytes, with so many events in the queue, from there on. A global function, so that the loop
/// about it is short for the verifier.
#[inline(always)]
fn send(slot: u32, buffer: u64, [total, queued, at]: [u32; 3], time: u64) -> bool {
    let ends = u64::from(total) << 32 | u64::from(queued);
    hotr_copy_part(u64::from(at) << 32 | u64::from(slot), buffer, ends, time) == 0
}

/// See [`send`]: `at` and slot, the buffer, total and queued, the time. 0 when it is sent.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_copy_part(place: u64, buffer: u64, ends: u64, time: u64) -> u64 {
    let (at, total) = ((place >> 32) as u32, (ends >> 32) as u32);
    let rest = total.wrapping_sub(at);
    let len = if rest > CHUNK as u32 { CHUNK as u32 } else { rest };
    let Some(mut entry) = RECORDS.reserve::<Chunk>(0) else {
        count(Count::RingFull);
        return 1;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the helper checks the source, and `len` is at most the room.
    let failed = unsafe {
        (*record).time = time;
        (*record).kind = READ;
        (*record).slot = place as u32;
        (*record).tid = bpf_get_current_pid_tgid() as u32;
        (*record).at = at;
        (*record).total = total;
        (*record).queued = ends as u32;
        bpf_probe_read_user(
            (&raw mut (*record).bytes).cast(),
            len,
            buffer.wrapping_add(u64::from(at)) as *const _,
        )
    };
    if failed != 0 {
        entry.discard(NO_WAKEUP);
        count(Count::RingFull);
        return 1;
    }
    entry.submit(NO_WAKEUP);
    0
}

/// Sends the buffer of a call in parts. A global function: verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_copy(slot: u64, buffer: u64, total: u64, queued: u64) -> u64 {
    // SAFETY: no arguments.
    let time = unsafe { bpf_ktime_get_ns() };
    let total = total as u32;
    let mut part = 0u32;
    while part < CHUNKS {
        let at = part * CHUNK as u32;
        if at >= total {
            return 0;
        }
        if !send(slot as u32, buffer, [total, queued as u32, at], time) {
            return 0;
        }
        part += 1;
    }
    count(Count::RingFull);
    0
}
